/**
 * Activations where systemd is PID 1: the supervisor in a unit of its own, the agent restarted and replaced by the
 * switch itself, and a way back that needs neither agent, supervisor nor network.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { rm, writeFile } from "node:fs/promises";
import { agentListSchema } from "../../src/api/agents.ts";
import type { FixtureUnit } from "../support/builder.ts";
import { createHolds } from "../support/holds.ts";
import {
  AGENT_UNIT,
  type AgentUnitOptions,
  createSystemdFleet,
  HOLD_AGENT,
  NAME,
  OTHER_PROGRAM,
  STATE_DIRECTORY,
  SUPERVISOR_UNIT,
  type SystemdFleet,
  UNDO_UNIT,
} from "../support/systemd-fleet.ts";
import { waitFor } from "../support/wait-for.ts";

let under: SystemdFleet;
/** What the box runs when a test begins. */
let before: string;

beforeAll(async () => {
  under = await createSystemdFleet("systemd");
  before = under.installed;
}, 90_000);
afterAll(() => under[Symbol.asyncDispose]());

async function expectRuns(system: string): Promise<void> {
  expect(await under.state()).toEqual({ profile: system, current: system, bootDefault: system });
  expect(await under.box.unit(AGENT_UNIT, "ActiveState")).toBe("active");
  await under.clean();
}

/** Nobody answers there. */
const DEAF: AgentUnitOptions = { flags: ["--url", "http://127.0.0.1:9"] };

const BROKEN: FixtureUnit = { name: "broken.service", fails: true };
/** Ends its `test` with 4, as the real script does while systemd remembers a failed unit. */
const COMPLAINS = { stage: "end", kind: "exit", argument: 4, actions: ["test"] } as const;

test("a switch that replaces the agent's program and restarts it succeeds, proved by the new one", async () => {
  const system = await under.build({ version: "2", agent: { program: OTHER_PROGRAM } });
  const deployment = await under.deploy(system);
  expect(deployment).toMatchObject({ state: "succeeded", previousPath: before });
  const agent = await under.box.unit(AGENT_UNIT, "MainPID");
  expect(await under.box.run(["readlink", `/proc/${agent}/exe`])).toBe(OTHER_PROGRAM);
  await expectRuns(system);
  before = system;
}, 60_000);

test.each([
  ["agent's", AGENT_UNIT, { agent: null }],
  ["undo", UNDO_UNIT, { hasUndoUnit: false }],
] as const)(
  "a system without the %s unit is refused, untouched",
  async (_whose, unit, options) => {
    const system = await under.build({ version: `without ${unit}`.replaceAll(/[^a-z]/g, "-"), ...options });
    const deployment = await under.deploy(system);
    expect(deployment.state).toBe("failed");
    expect(deployment.reason).toContain(
      `it does not contain ${unit === UNDO_UNIT ? "the" : "this agent's"} unit ${unit}`,
    );
    await expectRuns(before);
  },
  60_000,
);

const UNABLE_TO_PROVE: readonly (readonly [string, AgentUnitOptions, RegExp])[] = [
  ["cannot be started", { program: "/nowhere/nixdeploy" }, /did not start/],
  ["does not reach the coordinator", DEAF, /nobody has logged in/],
  ["has another state directory", { flags: ["--state-dir", "/var/lib/nixdeploy/other"] }, /nobody has logged in/],
];
test.each(UNABLE_TO_PROVE)(
  "a new system whose agent %s is undone within the window",
  async (what, agent, reason) => {
    const system = await under.build({ version: what.replaceAll(" ", "-"), agent });
    const deployment = await under.deploy(system, ["--confirm-window", "2s", "--on-unit-failure", "keep"]);
    expect(deployment.state).toBe("rolled-back");
    expect(deployment.reason).toMatch(/did not prove itself within 2 s/);
    expect(deployment.reason).toMatch(reason);
    await expectRuns(before);
  },
  60_000,
);

test("a login by somebody else than the agent's unit is no proof", async () => {
  // Only an agent that began after the switch proves anything.
  const program = `/bin/sh -c "sleep 2; exec /usr/local/bin/nixdeploy agent --name ${NAME}"`;
  const impostor: FixtureUnit = {
    name: "impostor.service",
    service: ["EnvironmentFile=/var/lib/nixdeploy/environment", `ExecStart=${program}`],
  };
  const agent = { program: `/bin/sh -c "exec sleep infinity"` };
  const system = await under.build({ version: "impostor", agent, units: [impostor] });
  const deployment = await under.deploy(system, ["--confirm-window", "5s"]);
  expect(deployment.state).toBe("rolled-back");
  expect(deployment.reason).toContain(`is not the main process of ${AGENT_UNIT}`);
  await expectRuns(before);
}, 60_000);

test("failed units undo it, and what only the new system has does not spoil the way back", async () => {
  const system = await under.build({ version: "broken-1", units: [BROKEN] });
  const deployment = await under.deploy(system);
  expect(deployment.state).toBe("rolled-back");
  expect(deployment.reason).toContain("ended with code 4): broken.service");
  await expectRuns(before);
}, 60_000);

test("failed units can be kept; then they are no fault of the next system", async () => {
  const kept = await under.build({ version: "broken-2", units: [BROKEN] });
  expect(await under.deploy(kept, ["--on-unit-failure", "keep"])).toMatchObject({ state: "degraded" });
  await expectRuns(kept);
  before = kept;
  await waitFor("the coordinator to know of it", () => under.fleet.expectRun(["agents", "--json"]), {
    until: (text) =>
      agentListSchema.parse(JSON.parse(text)).agents[0]?.failedUnits?.includes("broken.service") === true,
  });

  const next = await under.build({ version: "broken-3", units: [BROKEN] });
  const deployment = await under.deploy(next);
  expect(deployment).toMatchObject({ state: "succeeded" });
  expect(deployment.reason).toContain("as before, these units fail: broken.service");
  await expectRuns(next);
  before = next;

  const worse = await under.build({ version: "broken-4", units: [BROKEN, { ...BROKEN, name: "worse.service" }] });
  const undone = await under.deploy(worse);
  expect(undone.state).toBe("rolled-back");
  expect(undone.reason).toContain("ended with code 4): worse.service");
  await expectRuns(next);
}, 60_000);

test("a way back whose script complains of a unit that only the new system has is a way back", async () => {
  const old = await under.build({ version: "complains", faults: [COMPLAINS] });
  await under.deploy(old, ["--on-unit-failure", "keep"]);
  await expectRuns(old);
  before = old;
  const system = await under.build({ version: "complains-not", units: [BROKEN] });
  const deployment = await under.deploy(system);
  expect(deployment.state).toBe("rolled-back");
  expect(deployment.reason).toContain("ended with code 4): broken.service; the machine is back on");
  await expectRuns(old);
}, 60_000);

test("a supervisor that is killed is started again by systemd, and finishes", async () => {
  const { box } = under;
  const holds = createHolds(box);
  const faults = [{ stage: "activate", kind: "hold", argument: "switch", actions: ["test"] }] as const;
  const system = await under.build({ version: "killed", faults });
  await holds.set("switch");
  const end = await under.start(system);
  await holds.reached("switch");
  const killed = await box.unit(SUPERVISOR_UNIT, "MainPID");
  await box.run(["systemctl", "stop", AGENT_UNIT]);
  await box.run(["kill", "-9", killed]);
  await waitFor("another supervisor", () => box.unit(SUPERVISOR_UNIT, "MainPID"), {
    until: (id) => id !== "0" && id !== killed,
  });
  await holds.releaseAll();
  expect(await end()).toMatchObject({ state: "succeeded" });
  await expectRuns(system);
  before = system;
}, 60_000);

test("when the supervisor is gone for good, the timer goes back", async () => {
  const { box } = under;
  const system = await under.build({ version: "stopped", agent: DEAF });
  const end = await under.start(system, ["--confirm-window", "4s"]);
  await under.stage("confirming");
  await waitFor("the timer", () => box.unit(`nixdeploy-deadline-${NAME}-confirming.timer`, "ActiveState"), {
    until: (state) => state === "active",
  });
  await box.run(["systemctl", "mask", "--runtime", SUPERVISOR_UNIT]);
  await box.run(["systemctl", "stop", AGENT_UNIT, SUPERVISOR_UNIT]);
  expect(await box.run(["cat", `${STATE_DIRECTORY}/activation.json`])).toContain('"stage": "confirming"');
  expect(await end()).toMatchObject({ state: "rolled-back" });
  await box.run(["systemctl", "unmask", "--runtime", SUPERVISOR_UNIT]);
  await expectRuns(before);
}, 60_000);

test("a reboot within the window boots the old system, which undoes it without agent and coordinator", async () => {
  const { box, fleet } = under;
  const system = await under.build({ version: "rebooted", agent: DEAF });
  const end = await under.start(system);
  await under.stage("confirming");
  await fleet.coordinator.killHard();
  await writeFile(box.diskPath(HOLD_AGENT), "");
  await box.reboot();
  // The last that it does is to start the agent again.
  await waitFor("the way back", () => box.run(["cat", `${STATE_DIRECTORY}/activation.json`]), {
    until: (record) => record.includes('"stage": "undoing"'),
  });
  expect(await box.unit(UNDO_UNIT, "ActiveState")).toBe("active");
  expect(await under.state()).toEqual({ profile: before, current: before, bootDefault: before });
  expect(await box.unit(AGENT_UNIT, "MainPID")).toBe("0");
  await rm(box.diskPath(HOLD_AGENT));
  await waitFor("the undo unit to be done", () => box.unit(UNDO_UNIT, "ActiveState"), {
    until: (state) => state === "inactive",
  });
  expect(await box.unit(UNDO_UNIT, "ExecMainStatus")).toBe("0");
  await fleet.coordinator.restart();
  const deployment = await end();
  expect(deployment.state).toBe("rolled-back");
  expect(deployment.reason).toContain("rebooted before the new version had proved itself");
  await expectRuns(before);
}, 90_000);

test("without the agent's unit a system is taken only by permission; then the supervisor proves it, and tells", async () => {
  const system = await under.build({ version: "no-agent", agent: null, hasUndoUnit: false });
  const refused = await under.deploy(system);
  expect([refused.state, refused.reason]).toEqual([
    "failed",
    expect.stringContaining("(--allow-agent-removal takes it"),
  ]);
  await expectRuns(before);

  const failing = await under.build({ version: "no-agent-broken", agent: null, hasUndoUnit: false, units: [BROKEN] });
  const undone = await under.deploy(failing, ["--allow-agent-removal"]);
  expect(undone.state).toBe("rolled-back");
  // The old system has its agent again.
  await expectRuns(before);

  const removed = await under.deploy(system, ["--allow-agent-removal"]);
  expect([removed.state, removed.reason]).toEqual(["succeeded", `${system} is live.`]);
  expect(await under.state()).toEqual({ profile: system, current: system, bootDefault: system });
  expect(await under.box.unit(AGENT_UNIT, "ActiveState")).toBe("inactive");
  await under.clean();
}, 120_000);
