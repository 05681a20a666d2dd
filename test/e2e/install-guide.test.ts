/**
 * The unit files of docs/install.md, as they stand there and fenced in as they may be, under systemd: they start, they
 * take a deployment, and they go back. (Its NixOS modules run in own-host.test.ts.)
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createOwnHost, FILES_AGENT_UNIT, type OwnHost, SERVE_UNIT } from "../support/own-host.ts";
import { waitFor } from "../support/wait-for.ts";

let host: OwnHost;
let before: string;

beforeAll(async () => {
  host = await createOwnHost("install-guide", { units: "files" });
  before = host.installed;
}, 90_000);
afterAll(() => host[Symbol.asyncDispose]());

async function expectRuns(system: string): Promise<void> {
  expect(await host.state()).toEqual({ profile: system, current: system, bootDefault: system });
  for (const unit of [SERVE_UNIT, FILES_AGENT_UNIT]) {
    await waitFor(`${unit} to be active`, () => host.box.unit(unit, "ActiveState"), { until: (is) => is === "active" });
  }
}

test("the units are what the document says: ready when they say so, their own user, fenced in", async () => {
  const { box } = host;
  for (const unit of [SERVE_UNIT, FILES_AGENT_UNIT]) {
    expect(await box.unit(unit, "Type")).toBe("notify");
    expect(await box.unit(unit, "NeedDaemonReload")).toBe("no");
  }
  expect(await box.unit(SERVE_UNIT, "DynamicUser")).toBe("yes");
  expect(await box.unit(FILES_AGENT_UNIT, "ProtectSystem")).toBe("strict");
  expect(await box.unit(SERVE_UNIT, "ProtectKernelModules")).toBe("yes");
  expect(await box.unit(SERVE_UNIT, "WatchdogUSec")).toBe("1min");
  // systemd tells of lines that it does not understand in its journal alone.
  const complaints = await box.run(["journalctl", "--boot", "--no-pager", "--output=cat", "--identifier=systemd"]);
  expect(complaints.split("\n").filter((line) => /nixdeploy.*(?:Unknown|Failed to parse)/.test(line))).toEqual([]);
});

test("an agent that is fenced in takes a deployment", async () => {
  const system = await host.build({ version: "2", units: [{ name: "app.service" }] });
  await host.push(system);
  const { exitCode, output } = await host.start(system).end();
  expect({ exitCode, output }).toMatchObject({ exitCode: 0 });
  await expectRuns(system);
  before = system;
}, 60_000);

test("and goes back from one that fails", async () => {
  const system = await host.build({
    version: "3",
    units: [{ name: "app.service" }, { name: "broken.service", fails: true }],
  });
  await host.push(system);
  const { exitCode, deployment } = await host.start(system).end();
  expect({ exitCode, ...deployment }).toMatchObject({ exitCode: 1, state: "rolled-back" });
  expect(deployment.reason).toContain("broken.service");
  await expectRuns(before);
}, 60_000);
