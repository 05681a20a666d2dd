/**
 * The new system takes the device's network: its activation stops the unit that the agent reaches the coordinator
 * through. Nobody can tell the device to go back; it does by itself, and tells when it is back.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { FixtureUnit } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import { createDeviceNetwork, type DeviceNetwork } from "../support/device-network.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";

const APP = "app.service";

let fleet: Fleet;
let device: Device;
let probe: ActivationProbe;
let agent: SpawnedProcess;
let network: DeviceNetwork;
let oldSystem: string;

beforeAll(async () => {
  fleet = await createFleet("network");
  network = await createDeviceNetwork(fleet.coordinator.url);
  oldSystem = await buildSystem("0", network.unit);
  device = await fleet.addDevice("far", oldSystem);
  probe = createActivationProbe(device, { agent: "far", unit: APP });
  agent = await fleet.startAgent(device, { url: network.url });
}, 60_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

test("the device comes back by itself, and the outcome arrives when it is back", async () => {
  const newSystem = await buildSystem("1", network.brokenUnit);
  await fleet.expectRun(["push", newSystem]);
  const activate = await startActivation(newSystem);
  await waitFor("the new system to run", async () => (await probe.sides()).running === newSystem);
  expect((await probe.sides()).permanent).toBe(oldSystem);
  // Nobody gets through from the device.
  expect(await isReachable(network.url)).toBe(false);
  expect((await activate.exited).exitCode).toBe(1);
  expect(readDeployment(activate)).toMatchObject({ state: "rolled-back", previousPath: oldSystem });
  expect(readDeployment(activate).reason).toContain("did not prove itself within 3 s");
  await expectOldAndTidy(readDeployment(activate).id);
}, 90_000);

test("the agent dies with the network and nobody starts it: the supervisor alone undoes it", async () => {
  const newSystem = await buildSystem("2", network.brokenUnit);
  await fleet.expectRun(["push", newSystem]);
  const activate = await startActivation(newSystem);
  await waitFor("the confirm window", async () => (await probe.stage()) === "confirming");
  agent.kill("SIGKILL");
  await agent.exited;
  await waitFor("the supervisor to finish", async () => (await probe.stage()) === "finished", { timeoutMs: 30_000 });
  await waitFor("the supervisor to end", () => probe.supervisors().length === 0);
  expect(await probe.sides()).toEqual({ permanent: oldSystem, running: oldSystem, unit: "0" });

  agent = await fleet.startAgent(device, { url: network.url, token: null });
  expect((await activate.exited).exitCode).toBe(1);
  expect(readDeployment(activate).state).toBe("rolled-back");
  await expectOldAndTidy(readDeployment(activate).id);
}, 90_000);

test("a network that comes back within the window is no reason to go back", async () => {
  const newSystem = await buildSystem("3", network.slowUnit);
  await fleet.expectRun(["push", newSystem]);
  const activate = await startActivation(newSystem, "60s");
  expect((await activate.exited).exitCode).toBe(0);
  expect(await probe.sides()).toEqual({ permanent: newSystem, running: newSystem, unit: "3" });
}, 90_000);

function buildSystem(version: string, network: Omit<FixtureUnit, "name">): Promise<string> {
  const units = [
    { name: APP, version },
    { ...network, name: "network.service" },
  ];
  return fleet.builder.build("system", { name: "far", version, units });
}

function startActivation(system: string, window = "3s"): Promise<SpawnedProcess> {
  return fleet.start(["activate", `far=${system}`, "--json", "--confirm-window", window]);
}

function readDeployment(activate: SpawnedProcess) {
  const text = activate.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
  const [deployment] = rolloutResultSchema.parse(JSON.parse(text.join("\n"))).deployments;
  if (deployment === undefined) throw new Error(activate.output());
  return deployment;
}

async function expectOldAndTidy(deploymentId: string): Promise<void> {
  expect(await probe.sides()).toEqual({ permanent: oldSystem, running: oldSystem, unit: "0" });
  await waitFor("nothing to be left over", async () => (await probe.leftovers(deploymentId)).length === 0);
}

async function isReachable(address: string): Promise<boolean> {
  return await fetch(address).then(
    () => true,
    () => false,
  );
}
