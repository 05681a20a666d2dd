/**
 * A whole activation on a model machine and a simulated disk: supervisors are started, killed between any two of their
 * steps (a change of a file or of the machine), and started again; the disk fills up; power is cut.
 *
 * Forbids throughout what must never happen: a step forward that is not durably on record, and a boot default that has
 * not proved itself.
 */
import { expect } from "bun:test";
import { join } from "node:path";
import { type ActivationRecord, readRecord, writeRecord } from "../../../src/agent/activation/record.ts";
import { type SuperviseEnd, superviseActivation } from "../../../src/agent/activation/supervise.ts";
import { openDeploymentStore } from "../../../src/agent/deployment-store.ts";
import type { OutcomeEntry } from "../../../src/agent/journal.ts";
import { hasCode } from "../../../src/agent/system-error.ts";
import { silentLogger } from "../../../src/log.ts";
import type { ReportEntry } from "../../../src/protocol.ts";
import { type Clock, systemRandom } from "../../../src/runtime.ts";
import { actAs, pretendExecutable, type SimulatedDisk, simulateDisk } from "../../support/simulated-files.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { offerOf } from "../offers.ts";
import { createModelMachine, type ModelMachine } from "./model-machine.ts";
import { NEW, OLD, recordOf, SCRIPT } from "./records.ts";

export type Simulation = AsyncDisposable & {
  readonly machine: ModelMachine;
  readonly disk: SimulatedDisk;
  readonly stateDirectory: string;
  readonly record: ActivationRecord;
  /** One supervisor, until it ends; the steps it took. */
  supervise(faults?: Faults): Promise<Run>;
  /** Supervisors, one after the other, until there is an outcome. */
  settle(): Promise<OutcomeEntry>;
  /** What the coordinator would be told. */
  readEntries(): Promise<readonly ReportEntry[]>;
};

export type Faults = {
  /** Before this step, counted from 1, the process is killed. */
  readonly killBefore?: number;
  /** Told before each step; what it throws is what the step throws, if it is one on files. */
  readonly onStep?: (step: string, number: number) => void;
  readonly signal?: AbortSignal;
};
export type Run = { readonly end: SuperviseEnd | "killed"; readonly steps: readonly string[] };

export class Killed extends Error {}
const SUPERVISORS_MAX = 4;

export async function createSimulation(changes: Partial<ActivationRecord> = {}): Promise<Simulation> {
  const directory = await createTemporaryDirectory("simulation");
  const stateDirectory = directory.join("state");
  const record = recordOf({ profilePath: directory.join("profiles", "test"), ...changes });
  const isNixos = record.type === "nixos";
  const machine = createModelMachine({ ...record, isNixos, previous: record.previous.profile });
  pretendExecutable(SCRIPT);
  const offer = offerOf("a", { storePath: NEW, mode: record.mode, rollbackScript: record.rollbackScript });
  await using store = await openDeploymentStore({ stateDirectory, clock: machine.clock, followed: null });
  const journal = await store.begin(offer);
  await journal.phase({ phase: "activating", previousPath: record.previous.profile });
  await writeRecord(stateDirectory, record);
  const disk = simulateDisk(stateDirectory);
  const proven = new Set<string>();
  machine.onEffect = (effect) => forbid(effect, { disk, stateDirectory, record, machine, proven });

  const supervise = async (faults: Faults = {}) => await runSupervisor({ machine, stateDirectory, faults });
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
}): Promise<Run> {
  const { machine, stateDirectory, faults } = options;
  const steps: string[] = [];
  let isDead = false;
  const mustLive = () => {
    if (isDead) throw new Killed("the process was killed");
  };
  const onStep = (step: string) => {
    mustLive();
    steps.push(step);
    isDead = steps.length === faults.killBefore;
    mustLive();
    faults.onStep?.(step, steps.length);
  };
  const clock: Clock = {
    ...machine.clock,
    async sleep(durationMs, signal) {
      mustLive();
      await machine.clock.sleep(durationMs, signal);
      mustLive();
    },
  };
  const work = async () =>
    await superviseActivation({
      ...{ stateDirectory, clock, random: systemRandom, logger: silentLogger },
      signal: faults.signal ?? new AbortController().signal,
      run: async (program) => {
        onStep(`run ${program.command.replace(/^.*?-/, "")} ${program.args.at(-1) ?? ""}`);
        const exit = await machine.run(program);
        mustLive();
        return exit;
      },
      bootClock: { read: async () => machine.readBoot() },
      readProfilePath: async () => machine.profile,
      readCurrentSystem: async () => machine.current,
      readNames: async () => new Set(),
      readFailedUnits: async () => machine.failedUnits,
      hasUnit: async () => true,
      mainProcess: async () => null,
      deadline: null,
      restartUnit: async () => {
        onStep("restart");
        machine.restartUnit();
      },
      loginAsSupervisor: async () => {
        onStep("login");
        return machine.login();
      },
    });
  try {
    return { end: await actAs(onStep, work), steps };
  } catch (error) {
    // A supervisor that cannot open its files ends, too.
    if (!isDead && !hasCode(error, "ENOSPC")) throw error;
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
  const isNew = outcome === "succeeded" || (outcome === "degraded" && machine.failedUnits?.length !== 0);
  const setsProfile = isNew && (record.mode === "switch" || record.mode === "boot");
  const { profile, bootDefault, current } = machine;
  const permanent = setsProfile ? { profile: NEW, bootDefault: isNixos ? NEW : null } : before;
  expect({ outcome, reason, profile, bootDefault }).toEqual({ outcome, reason, ...permanent });
  if (!isNixos || isRebooted) return;
  const runsNew = isNew && (record.mode === "switch" || record.mode === "test");
  expect({ outcome, reason, current }).toEqual({ outcome, reason, current: runsNew ? NEW : OLD });
}

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
  if (wanted !== undefined) expect({ effect, stage }).toEqual({ effect, stage: wanted[0] });
  if (effect === "login" && machine.isReachable) proven.add(machine.readBoot().bootId);
  const needsProof = effect === "new boot" && record.mode === "switch";
  if (needsProof && machine.current !== NEW) throw new Error("what does not run becomes the boot default");
  if (needsProof && proven.size === 0) throw new Error("the boot default has not proved itself");
}
