/** What waits for a reboot: proved by it, taken back after it, overtaken before it. */
import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import {
  createBootTrial,
  isDue,
  readBootTrial,
  writeBootTrial,
} from "../../../../src/agent/activation/boot/boot-trial.ts";
import type { ActivationRecord } from "../../../../src/agent/activation/record.ts";
import { exited } from "../model-machine.ts";
import { BOOT_ID, NEW, NEWER, OLD, recordOf } from "../records.ts";
import { createSimulation, type Simulation } from "../simulation.ts";

const FALLBACK = { system: OLD, entry: OLD } as const;
const ONE_SHOT = { kind: "one-shot", loader: "systemd-boot", pinnedBefore: null, fallback: FALLBACK } as const;

/** A deployment of another kernel that has ended well, and waits for its boot. */
async function createWaiting(changes: Partial<ActivationRecord> = {}): Promise<Simulation> {
  const simulation = await createSimulation(changes);
  const { machine } = simulation;
  machine.variables = { pinned: null, oneShot: null };
  machine.kernels = [NEW, NEWER];
  expect((await simulation.supervise()).end).toBe("finished");
  expect(await simulation.settle()).toMatchObject({ outcome: "succeeded" });
  expect(machine).toMatchObject({ bootDefault: NEW, booted: OLD, variables: { pinned: OLD, oneShot: NEW } });
  return simulation;
}

/** Supervisors, as the machine reboots, until the trial is over. */
async function decide({ machine, supervise, stateDirectory }: Simulation): Promise<void> {
  machine.reboot();
  for (let reboots = 0; (await supervise()).end === "killed"; reboots += 1) expect(reboots).toBeLessThan(4);
  expect(await readBootTrial(stateDirectory)).toBeNull();
  expect(await readdir(stateDirectory)).not.toContain("proof.json");
}

const NOTHING = { pinned: null, oneShot: null } as const;
const IS_NEW = { profile: NEW, current: NEW, booted: NEW, bootDefault: NEW, variables: NOTHING } as const;
const IS_OLD = { profile: OLD, current: OLD, booted: OLD, bootDefault: OLD, variables: NOTHING } as const;

describe("after its reboot", () => {
  for (const mode of ["switch", "boot"] as const) {
    test(`mode ${mode}: it proves itself, and is the default`, async () => {
      await using simulation = await createWaiting({ mode });
      await decide(simulation);
      expect(simulation.machine).toMatchObject(IS_NEW);
      expect((await simulation.readEntries()).filter(({ type }) => type === "outcome").length).toBe(1);
    });

    test(`mode ${mode}: without a proof the machine reboots into the old one`, async () => {
      await using simulation = await createWaiting({ mode });
      simulation.machine.isReachable = false;
      await decide(simulation);
      expect(simulation.machine).toMatchObject(IS_OLD);
      expect(simulation.machine.effects).toContain("systemctl reboot");
    });

    test(`mode ${mode}: when its kernel hangs, the next reset boots the old one, which stays`, async () => {
      await using simulation = await createWaiting({ mode });
      simulation.machine.deadKernels = [NEW];
      await decide(simulation);
      expect(simulation.machine).toMatchObject(IS_OLD);
      expect(simulation.machine.effects).not.toContain("systemctl reboot");
    });
  }

  test("what was pinned before is pinned again", async () => {
    await using simulation = await createSimulation();
    const { machine } = simulation;
    machine.variables = { pinned: NEWER, oneShot: null };
    machine.kernels = [NEW];
    await simulation.supervise();
    expect(machine.variables).toEqual({ pinned: OLD, oneShot: NEW });
    await decide(simulation);
    expect(machine.variables).toEqual({ pinned: NEWER, oneShot: null });
  });

  test("it is left alone when somebody has set another profile since", async () => {
    await using simulation = await createWaiting();
    const { machine } = simulation;
    machine.profile = NEWER;
    machine.bootDefault = NEWER;
    await decide(simulation);
    expect(machine).toMatchObject({ profile: NEWER, bootDefault: NEWER, variables: NOTHING });
  });

  for (const proves of [true, false]) {
    test(`${proves ? "with" : "without"} a proof it ends old or new, whichever step a reset or a kill comes before`, async () => {
      for (const fault of ["reset", "kill"]) {
        for (let step = 1; ; step += 1) {
          await using simulation = await createWaiting();
          const { machine, superviseUntil } = simulation;
          machine.isReachable = proves;
          machine.reboot();
          if ((await superviseUntil(step)).end !== "killed") break;
          if (fault === "reset") machine.reboot();
          for (let reboots = 0; (await simulation.supervise()).end === "killed"; reboots += 1)
            expect(reboots).toBeLessThan(4);
          // A reset before the proof is as good as no proof.
          const isNew = proves && (fault === "kill" || machine.bootDefault === NEW);
          expect(machine).toMatchObject(isNew ? IS_NEW : IS_OLD);
          expect(await readBootTrial(simulation.stateDirectory)).toBeNull();
        }
      }
    });
  }
});

describe("a newer deployment", () => {
  /** The newer one on record, while the older one waits. */
  async function createOvertaking(changes: Partial<ActivationRecord> = {}): Promise<Simulation> {
    const waiting = createBootTrial(recordOf({ trial: ONE_SHOT, stage: "committing" }));
    const simulation = await createSimulation({
      ...{ storePath: NEWER, previous: { profile: NEW, current: NEW, failedUnits: [] } },
      ...{ replacedTrial: waiting, ...changes },
    });
    const { machine, record, stateDirectory } = simulation;
    await writeBootTrial(stateDirectory, { ...waiting, profilePath: record.profilePath });
    // What a simulation forbids is about another pair.
    machine.onEffect = () => {};
    machine.variables = { pinned: OLD, oneShot: NEW };
    Object.assign(machine, { profile: NEW, current: NEW, bootDefault: NEW, kernels: [NEW, NEWER] });
    return simulation;
  }
  const ARE_WAITING = { profile: NEW, current: NEW, booted: OLD, bootDefault: NEW } as const;

  test("of another kernel waits in its place, and goes back to what has booted", async () => {
    await using simulation = await createOvertaking();
    const { machine } = simulation;
    expect((await simulation.settle()).outcome).toBe("succeeded");
    expect(machine).toMatchObject({ profile: NEWER, variables: { pinned: OLD, oneShot: NEWER } });
    machine.isReachable = false;
    await decide(simulation);
    expect(machine).toMatchObject(IS_OLD);
  });

  test("of the kernel that is booted is the default at once, and nothing waits any more", async () => {
    await using simulation = await createOvertaking();
    const { machine } = simulation;
    machine.kernels = [NEW];
    expect((await simulation.settle()).outcome).toBe("succeeded");
    expect(machine).toMatchObject({ profile: NEWER, current: NEWER, bootDefault: NEWER, variables: NOTHING });
    expect(await readBootTrial(simulation.stateDirectory)).toBeNull();
  });

  for (const [what, exits] of [
    ["cannot be made live", { "newer test": [exited(1)] }],
    ["cannot be installed", { "newer boot": [exited(1)] }],
  ] as const) {
    test(`that ${what} leaves the older one waiting`, async () => {
      await using simulation = await createOvertaking();
      const { machine } = simulation;
      machine.exits = exits;
      expect((await simulation.settle()).outcome).toBe("rolled-back");
      expect(machine).toMatchObject({ ...ARE_WAITING, variables: { pinned: OLD, oneShot: NEW } });
      await decide(simulation);
      expect(machine).toMatchObject(IS_NEW);
    });
  }

  test("that reboots and proves nothing leaves the older one waiting for the next boot", async () => {
    const policy = { ...recordOf().policy, reboot: true };
    await using simulation = await createOvertaking({ policy });
    const { machine } = simulation;
    machine.isReachable = false;
    expect((await simulation.settle()).outcome).toBe("rolled-back");
    expect(machine).toMatchObject({ ...ARE_WAITING, variables: { pinned: OLD, oneShot: NEW } });
    machine.isReachable = true;
    await decide(simulation);
    expect(machine).toMatchObject(IS_NEW);
  });
});

test("a trial is due after a reboot, and as long as it is being decided", () => {
  const waiting = createBootTrial(recordOf({ trial: ONE_SHOT }));
  expect(isDue(waiting, BOOT_ID)).toBe(false);
  expect(isDue(waiting, "boot-2")).toBe(true);
  expect(isDue({ ...waiting, stage: "undoing" }, BOOT_ID)).toBe(true);
});
