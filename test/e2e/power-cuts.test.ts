/**
 * The power goes at each stage of an activation. What boots is the old system, or the new one once it was made the
 * default; the agent's next start finishes what is on record, and what it tells is true.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { Fault } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { type Gate, startGate } from "../support/gate.ts";
import { createHolds, type Holds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";

const APP = "app.service";

type PowerCut = {
  readonly title: string;
  readonly mode: "switch" | "boot" | "test";
  readonly stage: "checking" | "activating" | "confirming" | "committing" | "undoing";
  /** The script stays here; null: nobody can log in. */
  readonly hold: "check" | "test" | "boot" | "boot-done" | "old-test" | null;
  readonly boots: "old" | "new";
  readonly state: "succeeded" | "rolled-back";
};

const CUTS: readonly PowerCut[] = [
  { title: "while it is checked", mode: "switch", stage: "checking", hold: "check", boots: "old", state: "succeeded" },
  {
    title: "in the middle of it",
    mode: "switch",
    stage: "activating",
    hold: "test",
    boots: "old",
    state: "rolled-back",
  },
  { title: "in mode test", mode: "test", stage: "activating", hold: "test", boots: "old", state: "rolled-back" },
  { title: "before the proof", mode: "switch", stage: "confirming", hold: null, boots: "old", state: "rolled-back" },
  {
    title: "when the profile names the new one and the boot loader does not",
    ...{ mode: "switch", stage: "committing", hold: "boot", boots: "old", state: "rolled-back" },
  },
  {
    title: "when the boot loader names the new one",
    ...{ mode: "switch", stage: "committing", hold: "boot-done", boots: "new", state: "succeeded" },
  },
  {
    title: "in mode boot, when the boot loader does not name it yet",
    ...{ mode: "boot", stage: "committing", hold: "boot", boots: "old", state: "succeeded" },
  },
  { title: "on the way back", mode: "switch", stage: "undoing", hold: "old-test", boots: "old", state: "rolled-back" },
];

let fleet: Fleet;
let gate: Gate;

beforeAll(async () => {
  fleet = await createFleet("power");
  gate = await startGate(fleet.coordinator.url);
}, 60_000);

afterAll(async () => {
  await gate[Symbol.asyncDispose]();
  await fleet[Symbol.asyncDispose]();
}, 30_000);

for (const [index, cut] of CUTS.entries()) {
  test(`the power goes ${cut.title}: the ${cut.boots} system boots, and it ends ${cut.state}`, async () => {
    const { device, holds, probe, oldSystem, newSystem } = await prepare(cut, index);
    const activate = await fleet.start(["activate", `${device.name}=${newSystem}`, "--json", "--mode", cut.mode]);
    await reach(cut, { activate, holds, probe });

    await device.powerOff();
    gate.open();
    expect(await device.boot()).toBe(cut.boots === "old" ? oldSystem : newSystem);
    await device.startDaemon();
    await fleet.startAgent(device, { url: gate.url, token: null });

    const { exitCode } = await activate.exited;
    const stdout = activate.lines.filter(({ stream }) => stream === "stdout").map(({ text }) => text);
    const [deployment] = rolloutResultSchema.parse(JSON.parse(stdout.join("\n"))).deployments;
    expect(deployment?.state).toBe(cut.state);
    expect(exitCode).toBe(cut.state === "succeeded" ? 0 : 1);
    const isNew = cut.state === "succeeded";
    expect(await probe.sides()).toEqual({
      permanent: isNew ? newSystem : oldSystem,
      running: isNew && cut.mode !== "boot" ? newSystem : oldSystem,
      unit: isNew && cut.mode !== "boot" ? "1" : "0",
    });
    await waitFor("nothing to be left over", async () => (await probe.leftovers(deployment?.id ?? "")).length === 0);
    // And what the next boot finds is the same.
    expect(await device.boot()).toBe(isNew ? newSystem : oldSystem);
    await device[Symbol.asyncDispose]();
  }, 90_000);
}

type Prepared = {
  readonly device: Device;
  readonly holds: Holds;
  readonly probe: ActivationProbe;
  readonly oldSystem: string;
  readonly newSystem: string;
};

async function prepare(cut: PowerCut, index: number): Promise<Prepared> {
  const name = `node${index}`;
  const units = [{ name: APP }];
  const oldFaults: Fault[] = [{ stage: "start", kind: "hold", argument: "old-test", actions: ["test"] }];
  const oldSystem = await fleet.builder.build("system", { name, version: "0", units, faults: oldFaults });
  const fails: Fault[] = cut.stage === "undoing" ? [{ stage: "activate", kind: "fail", actions: ["test"] }] : [];
  const newSystem = await fleet.builder.build("system", {
    ...{ name, version: "1", units },
    faults: [
      { stage: "start", kind: "hold", argument: "check", actions: ["check"] },
      { stage: "activate", kind: "hold", argument: "test", actions: ["test"] },
      { stage: "boot-loader", kind: "hold", argument: "boot", actions: ["boot"] },
      { stage: "boot-loader-done", kind: "hold", argument: "boot-done", actions: ["boot"] },
      ...fails,
    ],
  });
  await fleet.expectRun(["push", newSystem]);
  const device = await fleet.addDevice(name, oldSystem);
  await fleet.startAgent(device, { url: gate.url });
  const holds = createHolds(device);
  await holds.set(cut.hold ?? "test");
  return { device, holds, probe: createActivationProbe(device, { agent: name, unit: APP }), oldSystem, newSystem };
}

async function reach(
  cut: PowerCut,
  { activate, holds, probe }: Pick<Prepared, "holds" | "probe"> & { activate: SpawnedProcess },
): Promise<void> {
  await holds.reached(cut.hold ?? "test", activate.output);
  if (cut.hold === null) {
    gate.shut();
    await holds.release("test");
  }
  await waitFor(`the record to say ${cut.stage}`, async () => (await probe.stage()) === cut.stage);
}
