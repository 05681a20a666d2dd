/**
 * Carries one activation from its record to its end: the only one who changes the machine. Runs in a process of its own,
 * so that the activation may stop, replace or kill the agent; whoever is started next on the same state directory goes
 * on from the record. One lock keeps all of them apart.
 *
 * Each stage is recorded before it begins. A stage that cannot be recorded does not begin, except the way back, which
 * must not depend on a disk that takes nothing any more.
 */
import { join } from "node:path";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock, Random } from "../../runtime.ts";
import { openDeploymentJournal } from "../deployment-store.ts";
import { tryLockFile } from "../flock.ts";
import { type Journal, measurePhases } from "../journal.ts";
import type { RunProgram } from "../process.ts";
import type { BootClock } from "./boot-clock.ts";
import type { Driver, DriverDeps, StageEnd } from "./driver.ts";
import { advance, begin, PHASE_OF } from "./engine.ts";
import { recordingRuns, stopLeftover } from "./leftover.ts";
import { createNixosDriver } from "./nixos.ts";
import { createPlainDriver } from "./plain.ts";
import { awaitProof } from "./proof.ts";
import { type ActivationRecord, isCancelRequested, readRecord, writeRecord } from "./record.ts";

export type SuperviseDeps = {
  readonly stateDirectory: string;
  readonly run: RunProgram;
  readonly bootClock: BootClock;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly readProfilePath: (profilePath: string) => Promise<StorePath | null>;
  readonly readCurrentSystem: () => Promise<StorePath | null>;
  readonly readNames: (path: StorePath) => Promise<ReadonlySet<string>>;
  readonly readFailedUnits: () => Promise<readonly string[] | null>;
  readonly hasUnit: (system: StorePath, unit: string) => Promise<boolean>;
  /** Starts the agent's unit again as the new system has it. */
  readonly restartUnit: (unit: string) => Promise<void>;
  readonly loginAsSupervisor: (record: ActivationRecord, signal: AbortSignal) => Promise<boolean>;
  readonly signal: AbortSignal;
};

export type SuperviseEnd = "finished" | "nothing-to-do" | "somebody-else-does";

const LOCK_FILE = "activation.lock";
/** Between tries to write the outcome where the disk takes nothing. */
const OUTCOME_RETRY_MS = 5_000;
const UNDO_RETRY_MS = 2_000;

/** @throws the signal's reason; the record then says where to go on */
export async function superviseActivation(given: SuperviseDeps): Promise<SuperviseEnd> {
  const { stateDirectory } = given;
  using lock = tryLockFile(join(stateDirectory, LOCK_FILE));
  if (lock === null) return "somebody-else-does";
  const recorded = await readRecord(stateDirectory);
  if (recorded === null) return "nothing-to-do";
  const { bootId } = await given.bootClock.read();
  await stopLeftover({ ...given, bootId });
  const deps = { ...given, run: recordingRuns(given.run, { stateDirectory, bootId }) };
  await using opened = await openDeploymentJournal({ ...deps, deploymentId: recorded.deploymentId });
  const { journal } = opened;
  if (journal.outcome !== null) return "nothing-to-do";
  const driverOf = (record: ActivationRecord) => createDriver(createDriverDeps(deps, record, journal));
  let record = await noticeReboot(recorded, driverOf(recorded), deps);
  while (record.stage !== "finished") record = await runStage({ deps, journal, record, driver: driverOf });
  await finish(deps, journal, record);
  return "finished";
}

/** A reboot between the record and now decides for itself what the machine runs. */
async function noticeReboot(record: ActivationRecord, driver: Driver, deps: SuperviseDeps): Promise<ActivationRecord> {
  const { bootId } = await deps.bootClock.read();
  if (record.bootId === bootId) return record;
  return advance(record, { kind: "rebooted", bootId, runsNew: await driver.runsNew() });
}

type StageContext = {
  readonly deps: SuperviseDeps;
  readonly journal: Journal;
  readonly record: ActivationRecord;
  readonly driver: (record: ActivationRecord) => Driver;
};

async function runStage({ deps, journal, record: before, driver }: StageContext): Promise<ActivationRecord> {
  const { clock, signal } = deps;
  signal.throwIfAborted();
  const record = await withDeadline(begin(before), deps);
  try {
    await writeRecord(deps.stateDirectory, record);
    await enterPhase(journal, record);
  } catch (error) {
    const reason = `the record of the activation cannot be written: ${describeError(error)}`;
    deps.logger.error(reason);
    if (record.stage !== "undoing") return advance(record, { kind: "refused", reason, exitCode: null });
  }
  if (record.stage === "undoing" && record.tries > 1) await clock.sleep(UNDO_RETRY_MS, signal);
  if (record.stage === "undoing" && record.tries === 1) await journal.log("agent", `going back: ${record.reason}`);
  const end = await runWork({ deps, journal, record, driver });
  return advance(record, end);
}

async function runWork({ deps, journal, record, driver }: StageContext): Promise<StageEnd> {
  try {
    const obstacle = await findObstacleInBetween(deps, record, driver(record));
    if (obstacle !== null) return { kind: "refused", reason: obstacle, exitCode: null };
    switch (record.stage) {
      case "checking":
        return await driver(record).check();
      case "activating":
        return await driver(record).activate();
      case "confirming":
        return await confirm(deps, journal, record);
      case "committing":
        return await driver(record).commit();
      case "undoing":
        return await undo(deps, record, driver(record));
      case "finished":
        return { kind: "good", exitCode: null };
      default:
        return record.stage satisfies never;
    }
  } catch (error) {
    deps.signal.throwIfAborted();
    return { kind: "bad", reason: `unexpectedly: ${describeError(error)}`, exitCode: null };
  }
}

/** What forbids to go forward, and has nothing to do with the stage's own work. */
async function findObstacleInBetween(
  { stateDirectory }: SuperviseDeps,
  { stage, mode, deploymentId }: ActivationRecord,
  driver: Driver,
): Promise<string | null> {
  if (stage === "undoing" || stage === "finished") return null;
  const isLive = stage === "confirming" || (stage === "committing" && mode !== "boot");
  // Somebody else's hand; or a way back that could not be recorded, before its supervisor was killed.
  if (isLive && !(await driver.runsNew())) return "the new version does not run any more";
  return (await isCancelRequested(stateDirectory, deploymentId)) ? "a cancel asked to go back" : null;
}

async function confirm(deps: SuperviseDeps, journal: Journal, record: ActivationRecord): Promise<StageEnd> {
  // At every try: an agent that began before the switch proves nothing (see `activations.ts`).
  if (record.prover.kind === "agent") await deps.restartUnit(record.prover.unit);
  return await awaitProof({
    ...deps,
    record,
    driverDeps: createDriverDeps(deps, record, journal),
    loginAsSupervisor: (signal) => deps.loginAsSupervisor(record, signal),
  });
}

async function undo(deps: SuperviseDeps, record: ActivationRecord, driver: Driver): Promise<StageEnd> {
  const end = await driver.undo();
  if (end.kind === "good" && record.prover.kind === "agent") await deps.restartUnit(record.prover.unit);
  return end;
}

/** The confirm window begins when the script has ended, once, however often somebody takes over. */
async function withDeadline(record: ActivationRecord, deps: SuperviseDeps): Promise<ActivationRecord> {
  if (record.stage !== "confirming" || record.deadlineUptimeMs !== null) return record;
  const { uptimeMs } = await deps.bootClock.read();
  return { ...record, deadlineUptimeMs: uptimeMs + record.policy.confirmWindowMs };
}

async function enterPhase(journal: Journal, record: ActivationRecord): Promise<void> {
  const phase = PHASE_OF[record.stage];
  if (phase === null || journal.phases.at(-1)?.phase === phase) return;
  await journal.phase({ phase, previousPath: previousPathOf(record) });
}

/** The outcome is not given up: without it the deployment would never end for anybody else. */
async function finish(deps: SuperviseDeps, journal: Journal, record: ActivationRecord): Promise<void> {
  const { outcome, reason } = record;
  if (outcome === null || reason === null) throw new Error("a finished activation has no outcome");
  for (;;) {
    try {
      await writeRecord(deps.stateDirectory, record);
      return await journal.finish({
        outcome,
        reason,
        previousPath: previousPathOf(record),
        fetchedBytes: record.fetchedBytes,
        exitCode: record.exitCode,
        phaseMs: measurePhases(journal, deps.clock.nowMs()),
      });
    } catch (error) {
      deps.logger.error(`cannot record the outcome: ${describeError(error)}`);
      await deps.clock.sleep(OUTCOME_RETRY_MS, deps.signal);
    }
  }
}

function previousPathOf({ previous }: ActivationRecord): StorePath | null {
  return previous.profile ?? previous.current;
}

function createDriverDeps(deps: SuperviseDeps, record: ActivationRecord, journal: Journal): DriverDeps {
  return {
    ...deps,
    record,
    readProfilePath: () => deps.readProfilePath(record.profilePath),
    log: (stream, text) => journal.log(stream, text),
  };
}

function createDriver(deps: DriverDeps): Driver {
  const { type } = deps.record;
  switch (type) {
    case "nixos":
      return createNixosDriver(deps);
    case "plain":
      return createPlainDriver(deps);
    case "darwin":
    case "home-manager":
      throw new Error(`no driver for ${type}`);
    default:
      return type satisfies never;
  }
}
