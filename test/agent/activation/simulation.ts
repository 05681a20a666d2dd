/**
 * A whole activation on a model machine and a simulated disk: supervisors are started, killed between any two of their
 * steps (a change of a file or of the machine), and started again; the disk fills up; power is cut.
 *
 * Forbids throughout what must never happen: a step forward that is not durably on record, and a boot default that has
 * not proved itself.
 */
import { expect } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { readBootTrial } from "../../../src/agent/activation/boot/boot-trial.ts";
import { type ActivationRecord, readRecord, writeRecord } from "../../../src/agent/activation/record.ts";
import { type SuperviseEnd, superviseActivation } from "../../../src/agent/activation/supervise.ts";
import { openDeploymentStore } from "../../../src/agent/journal/deployment-store.ts";
import type { OutcomeEntry } from "../../../src/agent/journal/journal.ts";
import { hasCode } from "../../../src/agent/machine/system-error.ts";
import type { ReportEntry } from "../../../src/protocol.ts";
import type { Clock } from "../../../src/runtime.ts";
import { pretendExecutable, type SimulatedDisk, simulateDisk } from "../../support/simulated-files.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { offerOf } from "../offers.ts";
import { createModelMachine, type ModelMachine } from "./model-machine.ts";
import { NEW, OLD, recordOf, SCRIPT } from "./records.ts";
import { createSimulatedProcess, type Faults } from "./simulated-process.ts";

export type Simulation = AsyncDisposable & {
  readonly machine: ModelMachine;
  readonly disk: SimulatedDisk;
  readonly stateDirectory: string;
  readonly record: ActivationRecord;
  /** One supervisor, until it ends; the steps it took. */
  supervise(faults?: Faults, signal?: AbortSignal): Promise<Run>;
  /** One after the other, as the machine reboots, until one is killed before this step of all of them. */
  superviseUntil(step: number): Promise<Run>;
  /** Supervisors, one after the other, until there is an outcome. */
  settle(): Promise<OutcomeEntry>;
  /** What the coordinator would be told. */
  readEntries(): Promise<readonly ReportEntry[]>;
};

export type Run = { readonly end: SuperviseEnd | "killed"; readonly steps: readonly string[] };

/** Each reboot takes one. */
const SUPERVISORS_MAX = 10;

/** An activation that its agent has just put on record. */
export async function createSimulation(changes: Partial<ActivationRecord> = {}): Promise<Simulation> {
  return await createEmptySimulation(changes, putOnRecord);
}

async function putOnRecord(stateDirectory: string, record: ActivationRecord, clock: Clock): Promise<void> {
  const { mode, rollbackScript, previous } = record;
  await using store = await openDeploymentStore({ stateDirectory, clock, followed: null });
  const journal = await store.begin(offerOf("a", { storePath: NEW, mode, rollbackScript }));
  await journal.phase({ phase: "activating", previousPath: previous.profile });
  await writeRecord(stateDirectory, record);
}

/** A machine with an empty state directory, to which the record would belong. */
export async function createEmptySimulation(
  changes: Partial<ActivationRecord> = {},
  prepare?: typeof putOnRecord,
): Promise<Simulation> {
  const directory = await createTemporaryDirectory("simulation");
  const stateDirectory = directory.join("state");
  const record = recordOf({ profilePath: directory.join("profiles", "test"), ...changes });
  const isNixos = record.type === "nixos";
  const { profile, current } = record.previous;
  const machine = createModelMachine({ ...record, isNixos, previous: profile, current });
  pretendExecutable(SCRIPT);
  await mkdir(stateDirectory);
  await prepare?.(stateDirectory, record, machine.clock);
  const disk = simulateDisk(stateDirectory);
  const proven = new Set<string>();
  machine.onEffect = (effect) => forbid(effect, { disk, stateDirectory, record, machine, proven });

  const supervise = async (faults: Faults = {}, signal = new AbortController().signal) =>
    await runSupervisor({ machine, stateDirectory, faults, signal });
  return {
    ...{ machine, disk, stateDirectory, record, supervise },
    async superviseUntil(step) {
      let left = step;
      for (;;) {
        const run = await supervise({ killBefore: left });
        if (run.end !== "killed" || run.steps.length === left) return run;
        left -= run.steps.length;
      }
    },
    async settle() {
      for (let count = 0; count < SUPERVISORS_MAX; count += 1) if ((await supervise()).end !== "killed") break;
      const last = (await readEntries(stateDirectory, machine)).at(-1);
      if (last?.type !== "outcome") throw new Error(`there is no outcome, but ${JSON.stringify(last)}`);
      return last;
    },
    readEntries: () => readEntries(stateDirectory, machine),
    async [Symbol.asyncDispose]() {
      disk[Symbol.dispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

async function readEntries(stateDirectory: string, { clock }: ModelMachine): Promise<readonly ReportEntry[]> {
  const followed = (await readRecord(stateDirectory))?.deploymentId ?? null;
  await using store = await openDeploymentStore({ stateDirectory, clock, followed });
  const [journal] = store.journals;
  if (journal === undefined) throw new Error("the deployment is gone");
  return (await journal.read({ n: 0, offset: 0 })).entries;
}

async function runSupervisor(options: {
  readonly machine: ModelMachine;
  readonly stateDirectory: string;
  readonly faults: Faults;
  readonly signal: AbortSignal;
}): Promise<Run> {
  const process = createSimulatedProcess(options.machine, options.faults);
  const { steps } = process;
  try {
    const deps = process.superviseDeps(options.stateDirectory, options.signal);
    return { end: await process.run(() => superviseActivation(deps)), steps };
  } catch (error) {
    // A supervisor that cannot open its files ends, too.
    if (!process.isDead && !hasCode(error, "ENOSPC")) throw error;
    return { end: "killed", steps };
  }
}

/** What the outcome says is what the machine shows; `isRebooted`: since then, so what it runs says nothing about it. */
export async function expectTruth(
  { outcome, reason }: OutcomeEntry,
  simulation: Pick<Simulation, "machine" | "record" | "stateDirectory"> & { readonly isRebooted?: boolean },
): Promise<void> {
  const { machine, record, isRebooted = false } = simulation;
  const isNixos = record.type === "nixos";
  const { profile, bootDefault, current, variables } = machine;
  const waiting = await readBootTrial(simulation.stateDirectory);
  // What waits for a reboot is tried by the next boot alone; otherwise nothing is special.
  const special = waiting === null ? { pinned: null, oneShot: null } : { pinned: OLD, oneShot: NEW };
  expect({ outcome, reason, variables }).toEqual({ outcome, reason, variables: variables && special });
  const old = { profile: record.previous.profile, bootDefault: isNixos ? OLD : null };
  const setsProfile = outcome === "succeeded" && (record.mode === "switch" || record.mode === "boot");
  const permanent = setsProfile ? { profile: NEW, bootDefault: isNixos ? NEW : null } : old;
  // A trial that was decided by a reboot since then may have gone back.
  const hasBooted = machine.readBoot().bootId !== record.bootId;
  const isDecided = isNixos && setsProfile && hasBooted && waiting === null && isTried(simulation);
  const seen = { profile, bootDefault };
  expect({ outcome, reason, ...seen }).toEqual({
    ...{ outcome, reason, ...(isDecided && bootDefault === OLD ? old : permanent) },
  });
  // Of a way back that failed nothing is known.
  if (!isNixos || isRebooted || isDecided || outcome === "degraded") return;
  const isLive = record.mode === "switch" || record.mode === "test" || machine.booted === NEW;
  const runsNew = outcome === "succeeded" && isLive;
  const expected = runsNew ? [liveOf(record)] : [record.previous.current];
  // A boot brings the system itself, whichever variant of it ran before.
  if (machine.readBoot().bootId !== record.bootId) expected.push(runsNew ? NEW : OLD);
  expect(expected, `${outcome}: ${reason}`).toContain(current);
}

/** What is to be the running system. */
const liveOf = ({ specialisation }: ActivationRecord) => specialisation?.path ?? NEW;

/** Whether a boot has to prove it after its deployment has ended. */
function isTried({ machine, record }: Pick<Simulation, "machine" | "record">): boolean {
  return record.mode === "boot" || (machine.variables !== null && machine.kernels.includes(NEW));
}

type Rules = Pick<Simulation, "disk" | "stateDirectory" | "record" | "machine"> & { readonly proven: Set<string> };

/** What an effect must find on the disk, as a power cut would leave it. */
const STAGES_OF: Readonly<Record<string, readonly string[]>> = {
  "new check": ["checking"],
  "new test": ["activating"],
  "new boot": ["committing", "arming"],
  "set new": ["committing", "arming"],
  "oneShot new": ["committing", "arming"],
  "systemctl reboot": ["rebooting", "returning"],
  login: ["confirming"],
};

function forbid(effect: string, { disk, stateDirectory, record, machine, proven }: Rules): void {
  const stage = durableStage(disk, stateDirectory);
  // Once it is undone, a login only looks whether the coordinator is there.
  if (effect === "login" && stage === "undoing") return;
  const stages = record.type === "plain" && effect === "set new" ? ["activating"] : STAGES_OF[effect];
  if (stages !== undefined && !stages.includes(stage ?? ""))
    expect({ effect, stage }).toEqual({ effect, stage: stages.join(" or ") });
  const { variables } = machine;
  if (effect === "login" && machine.isReachable) {
    proven.add("once");
    // A power cut in the middle of the commit, and the same boots again, asks for no other proof.
    if (machine.booted === NEW) proven.add("booted");
  }
  const isBooted = proven.has("booted");
  if (effect === "new boot" && stage === "committing" && record.mode === "switch") {
    const isLive = machine.current === liveOf(record) || machine.current === NEW;
    if (!isLive) throw new Error("what does not run becomes the boot default");
    if (!proven.has("once")) throw new Error("the boot default has not proved itself");
  }
  if (variables === null) return;
  const isUnproved = !isBooted && (record.mode === "boot" || stage === "arming" || machine.kernels.includes(NEW));
  const isPinned = variables.pinned === OLD;
  if (effect === "new boot" && isUnproved && !isPinned) throw new Error("nothing falls back from the new system");
  if (effect === "oneShot new" && !isPinned) throw new Error("nothing falls back after the one boot");
  const releasesNew = effect === "pinned nothing" && [machine.bootDefault, machine.syncedBootDefault].includes(NEW);
  if (releasesNew && isUnproved) throw new Error("what has not proved itself after a boot becomes the default");
}

/** Of the activation, or, when that is over, of a trial. */
function durableStage(disk: SimulatedDisk, stateDirectory: string): string | null {
  const read = (name: string): string | null => {
    const text = disk.durableText(join(stateDirectory, name));
    return text === null ? null : String(JSON.parse(text).stage);
  };
  const stage = read("activation.json");
  return stage === null || stage === "finished" ? (read("boot-trial.json") ?? stage) : stage;
}
