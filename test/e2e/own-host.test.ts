/**
 * The coordinator's own host deploys a new nixdeploy to itself, under systemd and with the units of docs/install.md: the
 * switch restarts `serve`, agent and all, and whoever waits outside is told the truth, also when the new one is no good
 * and the old `serve` has to work on the database that the new one has migrated.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  AGENT_TOKEN,
  createOwnHost,
  NEXT_MIGRATION,
  NEXT_VERSION,
  OWN_AGENT_UNIT,
  type OwnHost,
  SERVE_UNIT,
} from "../support/own-host.ts";
import { waitFor } from "../support/wait-for.ts";

const OURS = "/usr/local/bin/nixdeploy";
const NEXT = "/opt/next/bin/nixdeploy";

let host: OwnHost;
let before: string;

beforeAll(async () => {
  host = await createOwnHost("own-host");
  before = host.installed;
}, 120_000);
afterAll(() => host[Symbol.asyncDispose]());

async function expectRuns(system: string, program: string): Promise<void> {
  expect(await host.state()).toEqual({ profile: system, current: system, bootDefault: system });
  for (const unit of [SERVE_UNIT, OWN_AGENT_UNIT]) {
    await waitFor(`${unit} to be active`, () => host.box.unit(unit, "ActiveState"), { until: (is) => is === "active" });
    expect(await host.program(unit)).toBe(program);
  }
}

/** Whatever the coordinator has, it can be read and written. */
async function expectCoordinatorWorks(): Promise<void> {
  const commands = [
    ["agents", "--json"],
    ["status", "--json"],
    ["token", "create", "--kind", "read", "--json"],
    ["token", "list", "--json"],
    ["logs", "nuc"],
  ];
  for (const command of commands) {
    const { exitCode, stderr } = await host.cli(command);
    expect({ command, exitCode, stderr }).toMatchObject({ exitCode: 0 });
  }
}

test("a new serve that migrates the database and does not answer is undone; the old one works on what it left", async () => {
  // It listens where nobody looks for it.
  const system = await host.build({ version: "deaf", program: "next", listen: "127.0.0.1:0" });
  await host.push(system);
  const { exitCode, deployment, output } = await host.start(system, ["--confirm-window", "3s"]).end();
  expect(output).toContain("lost the connection to the coordinator");
  expect({ exitCode, state: deployment.state, output }).toMatchObject({ exitCode: 1, state: "rolled-back" });
  expect(deployment.reason).toContain("did not prove itself within 3 s");
  expect(await host.migrations()).toContain(NEXT_MIGRATION);
  await expectRuns(before, OURS);
  await expectCoordinatorWorks();
}, 90_000);

test("a new nixdeploy replaces the running one: activate follows through the restart and ends with 0", async () => {
  const system = await host.build({ version: "next", program: "next" });
  await host.push(system);
  const { exitCode, deployment, output } = await host.start(system).end();
  expect(output).toContain("the coordinator is there again");
  expect({ exitCode, state: deployment.state, output }).toMatchObject({ exitCode: 0, state: "succeeded" });
  await expectRuns(system, NEXT);
  before = system;
  const status = await host.cli(["status", "--json"]);
  expect(status.stdout).toContain(NEXT_VERSION);
  await expectCoordinatorWorks();
}, 90_000);

test("going back to the version before is a deployment as any other, also for who waits on the host itself", async () => {
  const { box, installed } = host;
  await host.push(installed);
  const dataDirectory = "/var/lib/nixdeploy/server";
  const token = await box.run([NEXT, "token", "create", "--kind", "activate", "--data-dir", dataDirectory]);
  const env = { NIXDEPLOY_URL: host.url, NIXDEPLOY_TOKEN: token };
  const { exitCode, stderr } = await box.exec([NEXT, "activate", `nuc=${installed}`], { env });
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  expect(await host.migrations()).toContain(NEXT_MIGRATION);
  await expectRuns(installed, OURS);
  await expectCoordinatorWorks();
}, 90_000);

test("an agent that was admitted starts without the file of its token, and says so", async () => {
  const { box } = host;
  await box.run(["/bin/sh", "-euc", `umount ${AGENT_TOKEN} && rm ${AGENT_TOKEN}`]);
  await box.run(["systemctl", "restart", OWN_AGENT_UNIT]);
  expect(await box.unit(OWN_AGENT_UNIT, "ActiveState")).toBe("active");
  const said = await box.run(["journalctl", "--no-pager", "--output=cat", `--unit=${OWN_AGENT_UNIT}`]);
  expect(said).toContain("it is not needed: this agent was admitted before");
  // One that was not is told where to look.
  await box.run([
    "/bin/sh",
    "-euc",
    `systemctl stop ${OWN_AGENT_UNIT} && rm /var/lib/nixdeploy/agents/nuc/enrolment.json`,
  ]);
  await box.exec(["systemctl", "start", OWN_AGENT_UNIT]);
  await waitFor(
    "the agent to say what it lacks",
    () => box.run(["journalctl", "--no-pager", "--output=cat", `--unit=${OWN_AGENT_UNIT}`]),
    {
      until: (text) => text.includes("the file is empty") && text.includes("that the unit names by LoadCredential"),
    },
  );
}, 60_000);
