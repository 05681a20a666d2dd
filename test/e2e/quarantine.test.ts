/**
 * What follows a rollback: a version that failed by its own fault is not tried again on this device before somebody says
 * so; one that only lacked contact is tried again by the coordinator, when there is contact.
 */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { type AgentDto, agentSchema } from "../../src/api/agents.ts";
import { type DeploymentDto, deploymentSchema } from "../../src/api/deployments.ts";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { FixtureUnit } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import { createDeviceNetwork, type DeviceNetwork } from "../support/device-network.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { type Gate, startGate } from "../support/gate.ts";
import { createHolds, type Holds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { waitFor } from "../support/wait-for.ts";

const APP = "app.service";
/** On the device: with it the cable of the version that wants it is plugged. */
const PLUG = "/run/plugged";

let fleet: Fleet;
let gate: Gate;
let device: Device;
let probe: ActivationProbe;
let holds: Holds;
let agent: SpawnedProcess;
let network: DeviceNetwork;
let runningSystem: string;

beforeAll(async () => {
  fleet = await createFleet("quarantine");
  gate = await startGate(fleet.coordinator.url);
  network = await createDeviceNetwork(gate.url);
  runningSystem = await buildSystem("0", network.unit);
  device = await fleet.addDevice("far", runningSystem);
  probe = createActivationProbe(device, { agent: "far", unit: APP });
  holds = createHolds(device);
  agent = await fleet.startAgent(device, { url: network.url });
}, 60_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
  await gate[Symbol.asyncDispose]();
}, 30_000);

test("a version that only lacked contact, as the old one does, is tried again when there is contact, and succeeds", async () => {
  const newSystem = await buildSystem("1", network.unit, "test");
  await fleet.expectRun(["push", newSystem]);
  await holds.set("test");
  const activate = await startActivation(newSystem);
  await holds.reached("test");
  gate.shut();
  await holds.release("test");
  await waitFor("the way back", async () => (await probe.stage()) === "finished", { timeoutMs: 60_000 });
  expect(await probe.sides()).toEqual({ permanent: runningSystem, running: runningSystem, unit: "0" });
  gate.open();

  expect((await activate.exited).exitCode).toBe(1);
  const first = readDeployment(activate);
  expect(first).toMatchObject({ state: "rolled-back", fault: "contact", attempt: 1 });
  expect(first.retriedBy).toMatchObject({ state: "queued", notBefore: expect.any(String) });
  expect(activate.output()).toContain("Tried again at ");
  const { deployment } = await readAgent();
  expect(deployment).toMatchObject({ id: first.retriedBy?.id, state: "queued", attempt: 2 });
  expect(await fleet.expectRun(["agents"])).toContain(", try 2, not before ");

  // Its minute passes while the coordinator does not run.
  await fleet.coordinator.killHard();
  const database = new Database(join(fleet.coordinator.dataDirectory, "coordinator.db"));
  database.run("update deployments set not_before_ms = ? where state = 'queued'", [Date.now()]);
  database.close();
  await fleet.coordinator.restart();
  await waitFor("the new version to stay", async () => (await readAgent()).deployment?.state === "succeeded", {
    timeoutMs: 60_000,
  });
  expect(await probe.sides()).toEqual({ permanent: newSystem, running: newSystem, unit: "1" });
  runningSystem = newSystem;
}, 150_000);

test("a version that cuts itself off is not tried again, though the agent is killed meanwhile, until a retry", async () => {
  const works = network.unit.exec;
  const cable = { name: "network.service", version: "cable", exec: `[ -e ${PLUG} ] || exec sleep infinity; ${works}` };
  const newSystem = await buildSystem("2", cable);
  await fleet.expectRun(["push", newSystem]);
  const activate = await startActivation(newSystem);
  await waitFor("the confirm window", async () => (await probe.stage()) === "confirming", { timeoutMs: 60_000 });
  agent.kill("SIGKILL");
  await agent.exited;
  await waitFor("the way back", async () => (await probe.stage()) === "finished", { timeoutMs: 60_000 });
  await waitFor("the supervisor to end", () => probe.supervisors().length === 0);
  // Between outcome and quarantine, and between quarantine and report.
  for (let count = 0; count < 2; count += 1) {
    agent = await fleet.startAgent(device, { url: network.url, token: null, awaitConnection: false });
    await agent.waitForLine(/keeps/);
    agent.kill("SIGKILL");
    await agent.exited;
  }
  agent = await fleet.startAgent(device, { url: network.url, token: null });
  expect((await activate.exited).exitCode).toBe(1);
  expect(readDeployment(activate)).toMatchObject({ state: "rolled-back", fault: "version", retriedBy: null });

  const refused = await startActivation(newSystem);
  expect((await refused.exited).exitCode).toBe(1);
  expect(readDeployment(refused)).toMatchObject({ state: "failed", fetchedBytes: null, phaseMs: {} });
  expect(readDeployment(refused).reason).toMatch(
    /^Not tried again: this version was rolled back on this device at \S+ \S+ UTC\. .* did not prove itself .*nixdeploy retry far, or activate --retry$/,
  );

  // What they are told to do is what helps.
  await device.run(["touch", PLUG]);
  const retried = await fleet.run(["retry", "far"]);
  expect([retried.exitCode, retried.stderr]).toEqual([0, expect.stringContaining("far: succeeded")]);
  expect(await probe.sides()).toEqual({ permanent: newSystem, running: newSystem, unit: "2" });
  const nothing = await fleet.run(["retry", "far"]);
  expect([nothing.exitCode, nothing.stderr]).toEqual([1, expect.stringContaining("nothing to try again: far")]);
}, 150_000);

test("a cancel ends what waits for an agent that is away", async () => {
  agent.kill("SIGTERM");
  await agent.exited;
  await fleet.expectRun(["activate", "--async", `far=${runningSystem}`]);
  expect(await fleet.expectRun(["cancel", "far"])).toBe("far: cancelled");
  expect((await readAgent()).deployment?.state).toBe("cancelled");
  expect((await fleet.run(["cancel", "far"])).exitCode).toBe(1);
}, 30_000);

/** @param hold a point where its activation can be held */
function buildSystem(version: string, unit: Omit<FixtureUnit, "name">, hold?: string): Promise<string> {
  const units = [
    { name: APP, version },
    { ...unit, name: "network.service" },
  ];
  const faults =
    hold === undefined ? [] : [{ stage: "start", kind: "hold", argument: hold, actions: ["test"] } as const];
  return fleet.builder.build("system", { name: "far", version, units, faults });
}

function startActivation(system: string): Promise<SpawnedProcess> {
  return fleet.start(["activate", `far=${system}`, "--json", "--confirm-window", "3s"]);
}

function readDeployment(activate: SpawnedProcess): DeploymentDto {
  const text = activate.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
  const rollout: { readonly deployments: readonly unknown[] } = JSON.parse(text.join("\n"));
  return deploymentSchema.parse(rollout.deployments[0]);
}

async function readAgent(): Promise<AgentDto> {
  const { agents }: { readonly agents: readonly unknown[] } = JSON.parse(await fleet.expectRun(["agents", "--json"]));
  return agentSchema.parse(agents[0]);
}
