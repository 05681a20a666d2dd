/**
 * A new system whose agent cannot say anything any more, although it would: its key, its state directory, the name of
 * the coordinator, the authority that signed for it, or its own start is gone. Each is undone within the window, and the
 * outcome arrives, also when the coordinator was away all the time.
 *
 * The network itself being gone: network-death.test.ts. An agent that is told the wrong thing: systemd-activation.test.ts.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { FixtureUnit } from "../support/builder.ts";
import { makeCertificate } from "../support/certificates.ts";
import {
  AGENT_UNIT,
  type AgentUnitOptions,
  createSystemdFleet,
  STATE_DIRECTORY,
  type SystemdFleet,
} from "../support/systemd-fleet.ts";
import { startTlsForward, type TlsForward } from "../support/tls-forward.ts";
import { waitFor } from "../support/wait-for.ts";

const HOST = "coordinator.test";
const AUTHORITIES = "/var/lib/nixdeploy/authorities.pem";
const OTHER_AUTHORITIES = "/var/lib/nixdeploy/other-authorities.pem";

let under: SystemdFleet;
let forward: TlsForward;
/** What the box runs; its agent finds the coordinator by name and trusts it by an authority of ours. */
let before: string;

beforeAll(async () => {
  under = await createSystemdFleet("contact");
  const { fleet, box } = under;
  for (const [name, target] of [
    ["ours", AUTHORITIES],
    ["other", OTHER_AUTHORITIES],
  ] as const) {
    const directory = join(fleet.directory, name);
    await mkdir(directory);
    const certificate = await makeCertificate(directory, [HOST]);
    await cp(certificate.authorityFile, box.diskPath(target));
    if (name === "ours") forward = await startTlsForward(certificate, new URL(fleet.coordinator.url));
  }
  before = await build("works", {});
  expect(await under.deploy(before)).toMatchObject({ state: "succeeded" });
}, 120_000);
afterAll(async () => {
  await under[Symbol.asyncDispose]();
  await forward[Symbol.asyncDispose]();
});

type Change = {
  /** More lines of the agent's unit. */
  readonly service?: readonly string[];
  readonly authorities?: string;
  /** What the unit does that makes the coordinator's name known. */
  readonly names?: FixtureUnit;
};

async function build(
  version: string,
  { service = [], authorities = AUTHORITIES, names = NAMES }: Change,
): Promise<string> {
  const agent: AgentUnitOptions = {
    flags: ["--url", `https://${HOST}:${forward.port}`],
    service: [`Environment=NIX_SSL_CERT_FILE=${authorities}`, ...service],
  };
  return await under.build({ version, agent, units: [names] });
}

function namesUnit(version: string, script: string): FixtureUnit {
  const exec = `ExecStart=/bin/sh -c "${script}"`;
  return { name: "names.service", version, service: ["Type=oneshot", "RemainAfterExit=yes", exec] };
}
const NAMES = namesUnit("known", `echo 127.0.0.1 ${HOST} >> /etc/hosts`);
const NO_NAMES = namesUnit("unknown", `grep -v ${HOST} /etc/hosts > /tmp/hosts; cat /tmp/hosts > /etc/hosts`);

async function expectRunsAsBefore(): Promise<void> {
  expect(await under.state()).toEqual({ profile: before, current: before, bootDefault: before });
  expect(await under.box.unit(AGENT_UNIT, "ActiveState")).toBe("active");
  await under.clean();
}

/** What is taken · how · what the agent's unit says of it. */
const TAKEN: readonly (readonly [string, Change, RegExp])[] = [
  [
    "its key",
    { service: [`InaccessiblePaths=${STATE_DIRECTORY}/key`] },
    /cannot read the agent's key .* it is damaged/,
  ],
  ["its state directory", { service: [`InaccessiblePaths=${STATE_DIRECTORY}`] }, /cannot write the lock/],
  ["its trust in the coordinator", { authorities: OTHER_AUTHORITIES }, /its TLS certificate is not accepted/],
  ["its start, without any failure", { service: ["ExecCondition=/bin/false"] }, /Skipped due to 'exec-condition'/],
];
test.each(TAKEN)(
  "a system that takes from the agent %s is undone",
  async (what, change, evidence) => {
    const system = await build(what.replaceAll(/[^a-z]+/g, "-"), change);
    const deployment = await under.deploy(system, ["--confirm-window", "2s", "--on-unit-failure", "keep"]);
    expect(deployment).toMatchObject({ state: "rolled-back", previousPath: before });
    expect(deployment.reason).toContain("did not prove itself within 2 s");
    await expectRunsAsBefore();
    const journal = ["journalctl", "--boot", "--no-pager", "--output=cat", `--unit=${AGENT_UNIT}`];
    expect(await under.box.run(journal)).toMatch(evidence);
  },
  60_000,
);

test("a system that takes the coordinator's name is undone while the coordinator is away, too", async () => {
  const { box, fleet } = under;
  const system = await build("no-names", { names: NO_NAMES });
  const end = await under.start(system, ["--confirm-window", "2s"]);
  await under.stage("confirming");
  expect((await box.exec(["getent", "hosts", HOST])).exitCode).not.toBe(0);
  await fleet.coordinator.killHard();
  await waitFor("the way back to be finished", () => box.run(["cat", `${STATE_DIRECTORY}/activation.json`]), {
    timeoutMs: 40_000,
    until: (record) => record.includes('"stage": "finished"'),
  });
  expect(await under.state()).toEqual({ profile: before, current: before, bootDefault: before });
  expect((await box.exec(["getent", "hosts", HOST])).exitCode).toBe(0);
  await fleet.coordinator.restart();
  const deployment = await end();
  expect(deployment).toMatchObject({ state: "rolled-back", previousPath: before });
  expect(deployment.reason).toContain("did not prove itself within 2 s");
  await expectRunsAsBefore();
}, 90_000);
