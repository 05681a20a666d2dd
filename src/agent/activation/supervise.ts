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
import { createDarwinDriver } from "./darwin.ts";
import type { Driver, DriverDeps, StageEnd } from "./driver.ts";
import { advance, begin, type EngineEvent, isUntouched, PHASE_OF } from "./engine.ts";
import type { HealthSenses } from "./health-probe.ts";
import { createHomeManagerDriver } from "./home-manager.ts";
import type { Deadline } from "./launch.ts";
import { recordingRuns, stopLeftover } from "./leftover.ts";
import { createNixosDriver } from "./nixos.ts";
import { createPlainDriver } from "./plain.ts";
import { awaitProof } from "./proof.ts";
import { type ActivationRecord, type Cause, isCancelRequested, readRecord, writeRecord } from "./record.ts";
import { canLogin } from "./timed-login.ts";

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
  /** The id of the main process of a unit; null when it has none. */
  readonly mainProcess: (unit: string) => Promise<number | null>;
  /** Null where nothing can stand in for us. */
  readonly deadline: Deadline | null;
  readonly healthSenses: HealthSenses;
  readonly loginAsSupervisor: (record: ActivationRecord, signal: AbortSignal) => Promise<boolean>;
  readonly signal: AbortSignal;
};

export type SuperviseEnd = "finished" | "nothing-to-do" | "somebody-else-does";

const LOCK_FILE = "activation.lock";
/** Between tries to write the outcome where the disk takes nothing. */
const OUTCOME_RETRY_MS = 5_000;
const UNDO_RETRY_MS = 2_000;
/** A script that is stopped when its time is up gets this long to end. */
const STOP_MS = 15_000;
/** Before somebody may stand in for us where the stage has no end of its own. */
const STAND_IN_MS = 30_000;

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
    if (record.stage !== "undoing")
      return advance(record, { kind: "refused", reason, exitCode: null, cause: "elsewhere" });
  }
  const unarmed = await armDeadline(deps, record);
  if (unarmed !== null) return advance(record, { kind: "refused", reason: unarmed, exitCode: null });
  if (record.stage === "undoing" && record.tries > 1) await clock.sleep(UNDO_RETRY_MS, signal);
  if (record.stage === "undoing" && record.tries === 1) await journal.log("agent", `going back: ${record.reason}`);
  signal.throwIfAborted();
  const end = await runWork({ deps, journal, record, driver });
  return advance(record, end);
}

/** So that somebody comes even if we are gone for good. @returns why this stage must not begin, or null */
async function armDeadline(deps: SuperviseDeps, record: ActivationRecord): Promise<string | null> {
  if (deps.deadline === null || record.stage === "checking" || record.mode === "dry-activate") return null;
  try {
    const { uptimeMs } = await deps.bootClock.read();
    const afterMs = record.deadlineUptimeMs === null ? STAND_IN_MS : record.deadlineUptimeMs - uptimeMs;
    await deps.deadline.arm(record.stage, afterMs);
    return null;
  } catch (error) {
    const reason = `nobody would go back if the supervisor were gone: ${describeError(error)}`;
    deps.logger.error(reason);
    // Later there are the timers of the stages before, and stopping half-way helps nobody.
    return isUntouched(record) ? reason : null;
  }
}

async function runWork({ deps, journal, record, driver }: StageContext): Promise<StageEnd | Cancelled> {
  try {
    const obstacle = await findObstacleInBetween(deps, record, driver(record));
    if (obstacle !== null) return obstacle;
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

type Cancelled = Extract<EngineEvent, { kind: "cancelled" }>;

function refuse(reason: string, cause: Cause = "version"): StageEnd {
  return { kind: "refused", reason, exitCode: null, cause };
}

/** What forbids to go forward, and has nothing to do with the stage's own work. */
async function findObstacleInBetween(
  { stateDirectory, bootClock }: SuperviseDeps,
  record: ActivationRecord,
  driver: Driver,
): Promise<StageEnd | Cancelled | null> {
  const { stage, mode, deploymentId } = record;
  if (stage === "undoing" || stage === "finished") return null;
  if (stage === "activating" && (await isLate(record, bootClock)))
    return refuse("the activation did not come to its end in time");
  const isLive = stage === "confirming" || (stage === "committing" && mode !== "boot");
  // Somebody else's hand; or a way back that could not be recorded, before its supervisor was killed.
  if (isLive && !(await driver.runsNew())) return refuse("the new version does not run any more", "elsewhere");
  return (await isCancelRequested(stateDirectory, deploymentId)) ? { kind: "cancelled" } : null;
}

async function confirm(deps: SuperviseDeps, journal: Journal, record: ActivationRecord): Promise<StageEnd> {
  // At every try: an agent that began before the switch proves nothing (see `activations.ts`).
  const trouble = record.prover.kind === "agent" ? await restartAgent(deps, journal, record.prover.unit) : null;
  return await awaitProof({
    ...deps,
    record,
    trouble,
    driverDeps: createDriverDeps(deps, record, journal),
    loginAsSupervisor: (signal) => deps.loginAsSupervisor(record, signal),
  });
}

/** It may still come up by itself. @returns why it did not, or null */
async function restartAgent(deps: SuperviseDeps, journal: Journal, unit: string): Promise<string | null> {
  try {
    await deps.restartUnit(unit);
    return null;
  } catch (error) {
    const trouble = `${unit} did not start: ${describeError(error)}`;
    await journal.log("agent", trouble);
    return trouble;
  }
}

async function undo(deps: SuperviseDeps, record: ActivationRecord, driver: Driver): Promise<StageEnd> {
  const end = await putBack(deps, record, driver);
  if (end.kind !== "good" || record.cause !== "unconfirmed") return end;
  const reachesCoordinator = await canLogin({
    ...deps,
    login: (signal) => deps.loginAsSupervisor(record, signal),
    maxMs: record.policy.confirmWindowMs,
  });
  return { ...end, reachesCoordinator };
}

async function putBack(deps: SuperviseDeps, record: ActivationRecord, driver: Driver): Promise<StageEnd> {
  const end = await driver.undo();
  if (end.kind !== "good" || record.prover.kind !== "agent") return end;
  const { unit } = record.prover;
  try {
    await deps.restartUnit(unit);
  } catch (error) {
    const previous = record.previous.current ?? record.previous.profile;
    // An agent that somebody started by hand: there is nothing to go back to.
    const hadUnit = previous !== null && (await deps.hasUnit(previous, unit));
    if (hadUnit) return { kind: "bad", reason: `${unit} did not start: ${describeError(error)}`, exitCode: null };
  }
  return end;
}

/** Counted once, from the first try, however often somebody takes over; the confirm window from the script's end. */
async function withDeadline(record: ActivationRecord, deps: SuperviseDeps): Promise<ActivationRecord> {
  const maxMs = stageMaxMs(record);
  if (maxMs === null || record.deadlineUptimeMs !== null) return record;
  const { uptimeMs } = await deps.bootClock.read();
  return { ...record, deadlineUptimeMs: uptimeMs + maxMs };
}

/** @returns null for a stage that goes on until it is done */
function stageMaxMs({ stage, policy }: ActivationRecord): number | null {
  if (stage === "activating") return policy.activationTimeoutMs + STOP_MS;
  return stage === "confirming" ? policy.confirmWindowMs : null;
}

async function isLate({ deadlineUptimeMs }: ActivationRecord, bootClock: BootClock): Promise<boolean> {
  return deadlineUptimeMs !== null && (await bootClock.read()).uptimeMs >= deadlineUptimeMs;
}

async function enterPhase(journal: Journal, record: ActivationRecord): Promise<void> {
  const phase = PHASE_OF[record.stage];
  if (phase === null || journal.phases.at(-1)?.phase === phase) return;
  await journal.phase({ phase, previousPath: previousPathOf(record) });
}

/** The outcome is not given up: without it the deployment would never end for anybody else. */
async function finish(deps: SuperviseDeps, journal: Journal, record: ActivationRecord): Promise<void> {
  const { outcome, reason, fault } = record;
  if (outcome === null || reason === null) throw new Error("a finished activation has no outcome");
  for (;;) {
    try {
      await writeRecord(deps.stateDirectory, record);
      // Before the outcome: whoever is killed in between is followed by somebody, and after it nobody looks any more.
      await deps.deadline?.disarm();
      return await journal.finish({
        outcome,
        reason,
        previousPath: previousPathOf(record),
        fetchedBytes: record.fetchedBytes,
        exitCode: record.exitCode,
        phaseMs: measurePhases(journal, deps.clock.nowMs()),
        ...(fault === null ? {} : { fault }),
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
      return createDarwinDriver(deps);
    case "home-manager":
      return createHomeManagerDriver(deps);
    default:
      return type satisfies never;
  }
}
