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
import { type ActivationRecord, readRecord, writeRecord } from "../../../src/agent/activation/record.ts";
import { type SuperviseEnd, superviseActivation } from "../../../src/agent/activation/supervise.ts";
import { openDeploymentStore } from "../../../src/agent/deployment-store.ts";
import type { OutcomeEntry } from "../../../src/agent/journal.ts";
import { hasCode } from "../../../src/agent/system-error.ts";
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
  /** Supervisors, one after the other, until there is an outcome. */
  settle(): Promise<OutcomeEntry>;
  /** What the coordinator would be told. */
  readEntries(): Promise<readonly ReportEntry[]>;
};

export type Run = { readonly end: SuperviseEnd | "killed"; readonly steps: readonly string[] };

const SUPERVISORS_MAX = 4;

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
export function expectTruth(
  { outcome, reason }: OutcomeEntry,
  { machine, record, isRebooted = false }: Pick<Simulation, "machine" | "record"> & { readonly isRebooted?: boolean },
): void {
  const isNixos = record.type === "nixos";
  const before = { profile: record.previous.profile, bootDefault: isNixos ? OLD : null };
  const isNew = outcome === "succeeded";
  const setsProfile = isNew && (record.mode === "switch" || record.mode === "boot");
  const { profile, bootDefault, current } = machine;
  const permanent = setsProfile ? { profile: NEW, bootDefault: isNixos ? NEW : null } : before;
  expect({ outcome, reason, profile, bootDefault }).toEqual({ outcome, reason, ...permanent });
  if (!isNixos || isRebooted) return;
  const runsNew = isNew && (record.mode === "switch" || record.mode === "test");
  const expected = runsNew ? [liveOf(record)] : [record.previous.current];
  // A boot brings the system itself, whichever variant of it ran before.
  if (machine.readBoot().bootId !== record.bootId) expected.push(runsNew ? NEW : OLD);
  expect(expected, `${outcome}: ${reason}`).toContain(current);
}

/** What is to be the running system. */
const liveOf = ({ specialisation }: ActivationRecord) => specialisation?.path ?? NEW;

type Rules = Pick<Simulation, "disk" | "stateDirectory" | "record" | "machine"> & { readonly proven: Set<string> };

/** What an effect must find on the disk, as a power cut would leave it. */
const STAGE_OF: Readonly<Record<string, readonly string[]>> = {
  "new check": ["checking"],
  "new test": ["activating"],
  "new boot": ["committing"],
  login: ["confirming"],
};

function forbid(effect: string, { disk, stateDirectory, record, machine, proven }: Rules): void {
  const text = disk.durableText(join(stateDirectory, "activation.json"));
  const stage: unknown = text === null ? null : JSON.parse(text).stage;
  const setsNew = effect === "set new" ? [record.type === "plain" ? "activating" : "committing"] : undefined;
  const wanted = STAGE_OF[effect] ?? setsNew;
  // Once it is undone, a login only looks whether the coordinator is there.
  if (effect === "login" && stage === "undoing") return;
  if (wanted !== undefined) expect({ effect, stage }).toEqual({ effect, stage: wanted[0] });
  if (effect === "login" && machine.isReachable) proven.add(machine.readBoot().bootId);
  const needsProof = effect === "new boot" && record.mode === "switch";
  if (needsProof && machine.current !== liveOf(record) && machine.current !== NEW)
    throw new Error("what does not run becomes the boot default");
  if (needsProof && proven.size === 0) throw new Error("the boot default has not proved itself");
}
