/**
 * The agent's state directory takes nothing any more (read-only, or full to the last byte) while a version that cannot
 * prove itself is on trial, and whoever tried it is killed: whoever is next goes back all the same, and tells the outcome
 * once the disk takes it.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { type Gate, startGate } from "../support/gate.ts";
import { createHolds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";
import { mountSmallDisk } from "./bad-input/mount.ts";

const APP = "app.service";
const OLD_VERSION = "0";
const LONG_MS = 60_000;
/** Nobody who waits for its end gets there within a test. */
const WINDOW = "10m";

let fleet: Fleet;
let old: string;

beforeAll(async () => {
  fleet = await createFleet("state-disk");
  old = await fleet.builder.build("system", {
    name: "disk",
    version: OLD_VERSION,
    units: [{ name: APP, version: OLD_VERSION }],
  });
}, 60_000);
afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

type Trial = AsyncDisposable & {
  readonly device: Device;
  readonly gate: Gate;
  readonly probe: ActivationProbe;
  readonly activate: SpawnedProcess;
  agent: SpawnedProcess;
};

/** A device that is in the confirm window of a version from which nobody reaches the coordinator. */
async function beginTrial(device: Device, stateDirectory: string): Promise<Trial> {
  const { name } = device;
  const gate = await startGate(fleet.coordinator.url);
  const holds = createHolds(device);
  const agent = await fleet.startAgent(device, { url: gate.url, stateDirectory });
  const probe = createActivationProbe(device, { agent: name, unit: APP, stateDirectory });
  const path = await fleet.builder.build("system", {
    ...{ name: "disk", version: name, units: [{ name: APP, version: name }] },
    faults: [{ stage: "activate", kind: "hold", argument: name, actions: ["test"] }],
  });
  await fleet.expectRun(["push", path]);
  await holds.set(name);
  const activate = await fleet.start(["activate", `${name}=${path}`, "--json", "--confirm-window", WINDOW]);
  await holds.reached(name, () => agent.output());
  gate.shut();
  await holds.release(name);
  await waitFor("the confirm window", async () => (await probe.stage()) === "confirming", { timeoutMs: LONG_MS });
  expect((await probe.sides()).running).toBe(path);
  return { device, gate, probe, activate, agent, [Symbol.asyncDispose]: () => gate[Symbol.asyncDispose]() };
}

function killSupervisors({ probe }: Trial): void {
  const ids = probe.supervisors();
  if (ids.length === 0) throw new Error("there is no supervisor to kill");
  for (const id of ids) process.kill(id, "SIGKILL");
}

async function awaitOld({ probe, agent }: Trial): Promise<void> {
  const back = { permanent: old, running: old, unit: OLD_VERSION };
  const isBack = async () => Bun.deepEquals(await probe.sides(), back);
  await waitFor("the old version", isBack, { timeoutMs: LONG_MS, describe: () => agent.output() });
}

/** With the disk and the network in order again. */
async function expectTold({ activate, probe, agent }: Trial): Promise<void> {
  const { exitCode } = await activate.exited;
  const text = activate.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
  const [deployment] = rolloutResultSchema.parse(JSON.parse(text.join("\n"))).deployments;
  expect({ ...deployment, exitCode }).toMatchObject({ state: "rolled-back", previousPath: old, exitCode: 1 });
  const isQuiet = async () => probe.supervisors().length === 0 && (await probe.stage()) === null;
  await waitFor("nobody to be at work", isQuiet, { timeoutMs: LONG_MS, describe: () => agent.output() });
}

test("read-only, with supervisor and agent killed: an agent that starts on it has it undone", async () => {
  const device = await fleet.addDevice("sealed", old);
  const state = `/var/lib/nixdeploy/agents/${device.name}`;
  await using trial = await beginTrial(device, state);
  // Of this mount alone, because files that are open for writing keep a whole file system from being made so.
  const remount = (how: string) => device.run(["mount", "--no-mtab", "-o", `remount,bind,${how}`, state]);
  await device.run(["mount", "--no-mtab", "--bind", state, state]);
  await remount("ro");
  trial.agent.kill("SIGKILL");
  killSupervisors(trial);
  await trial.agent.exited;
  expect((await device.exec(["touch", `${state}/file`])).stderr).toContain("Read-only");

  const options = { url: trial.gate.url, stateDirectory: state, token: null, awaitConnection: false };
  trial.agent = await fleet.startAgent(device, options);
  await awaitOld(trial);
  expect(await trial.probe.stage()).toBe("confirming");
  trial.gate.open();
  // What there is on such a disk is enough to be seen by the coordinator.
  await trial.agent.waitForLine(/^connected to/, { timeoutMs: LONG_MS });
  await remount("rw");
  await expectTold(trial);
}, 120_000);

test("full, with the supervisor killed: the next one goes back, and tells when there is room", async () => {
  const device = await fleet.addDevice("full", old);
  const disk = await mountSmallDisk(device, { path: "/run/small-disk", sizeKib: 1_024 });
  const state = `${disk.path}/state`;
  await device.run(["mkdir", "-m", "700", state]);
  await using trial = await beginTrial(device, state);
  await disk.fill(0);
  killSupervisors(trial);
  await awaitOld(trial);
  expect(await trial.probe.stage()).toBe("confirming");
  trial.gate.open();
  await disk.empty();
  await expectTold(trial);
}, 120_000);
