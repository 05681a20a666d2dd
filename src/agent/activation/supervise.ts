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
import type { HealthSenses } from "../health/health-probe.ts";
import { hasJournal, openDeploymentJournal } from "../journal/deployment-folder.ts";
import { type Journal, measurePhases } from "../journal/journal.ts";
import type { BootClock } from "../machine/boot-clock.ts";
import { tryLockFile } from "../machine/flock.ts";
import type { RunProgram } from "../machine/process.ts";
import { isDue, readBootTrial, removeBootTrial, writeBootTrial } from "./boot/boot-trial.ts";
import { advance, begin, isUntouched, PHASE_OF } from "./engine.ts";
import type { Deadline } from "./launch.ts";
import { recordingRuns, stopLeftover } from "./leftover.ts";
import { removeProof } from "./proof.ts";
import { type ActivationRecord, readRecord, writeRecord } from "./record.ts";
import { createDriver, createDriverDeps, runWork, type StageContext, type StageJournal } from "./stage-work.ts";
import type { BootDeps } from "./types/driver.ts";

export type SuperviseDeps = {
  readonly stateDirectory: string;
  readonly run: RunProgram;
  readonly bootClock: BootClock;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly readProfilePath: (profilePath: string) => Promise<StorePath | null>;
  readonly readCurrentSystem: () => Promise<StorePath | null>;
  readonly boot: BootDeps;
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

/**
 * First the activation on record, then a trial that has had its boot.
 * @throws the signal's reason; the record then says where to go on
 */
export async function superviseActivation(given: SuperviseDeps): Promise<SuperviseEnd> {
  const { stateDirectory } = given;
  using lock = tryLockFile(join(stateDirectory, LOCK_FILE));
  if (lock === null) return "somebody-else-does";
  if ((await readRecord(stateDirectory)) === null && (await readBootTrial(stateDirectory)) === null) {
    return "nothing-to-do";
  }
  const { bootId } = await given.bootClock.read();
  await stopLeftover({ ...given, bootId });
  const deps = { ...given, run: recordingRuns(given.run, { stateDirectory, bootId }) };
  const ends = [await superviseRecorded(deps), await superviseTrial(deps)];
  return ends.includes("finished") ? "finished" : "nothing-to-do";
}

async function superviseRecorded(deps: SuperviseDeps): Promise<SuperviseEnd> {
  const { stateDirectory } = deps;
  const recorded = await readRecord(stateDirectory);
  if (recorded === null) return "nothing-to-do";
  await using opened = await openRecorded(recorded, deps);
  if (opened === null) return "nothing-to-do";
  const { journal } = opened;
  if (journal.outcome !== null) return "nothing-to-do";
  const write = (record: ActivationRecord) => writeRecord(stateDirectory, record);
  const record = await runStages(recorded, { deps, journal, isTrial: false, write });
  await finish(deps, journal, record);
  return "finished";
}

/** @returns null when it is over, and the agent has told all of it and removed its journal, perhaps at this moment */
export async function openRecorded(
  { deploymentId, stage }: ActivationRecord,
  { stateDirectory, clock }: Pick<SuperviseDeps, "stateDirectory" | "clock">,
): Promise<Awaited<ReturnType<typeof openDeploymentJournal>> | null> {
  try {
    return await openDeploymentJournal({ stateDirectory, clock, deploymentId });
  } catch (error) {
    if (stage === "finished" && !(await hasJournal(stateDirectory, deploymentId))) return null;
    throw error;
  }
}

/** What was committed on trial, when it has been booted, or when the boot loader has fallen back. */
async function superviseTrial(deps: SuperviseDeps): Promise<SuperviseEnd> {
  const { stateDirectory, logger } = deps;
  const waiting = await readBootTrial(stateDirectory);
  if (waiting === null || !isDue(waiting, (await deps.bootClock.read()).bootId)) return "nothing-to-do";
  const what = `${waiting.storePath}, which waited for a reboot`;
  const journal = createTrialJournal(deps);
  const isBegun = waiting.stage !== "rebooting";
  if (isBegun || (await deps.readProfilePath(waiting.profilePath)) === waiting.storePath) {
    const write = (record: ActivationRecord) => writeBootTrial(stateDirectory, record);
    const { outcome, reason } = await runStages(waiting, { deps, journal, isTrial: true, write });
    logger.info(`${what}, ${outcome}: ${reason}`);
  } else {
    // Somebody has set another one since, which is not ours to undo.
    const end = await createDriver(createDriverDeps(deps, waiting, journal)).giveUpTrial?.();
    logger.info(`${what}, is not in the profile any more${end?.kind === "bad" ? `; ${end.reason}` : ""}`);
  }
  await untilTaken("forget what waited for a reboot", deps, async () => {
    await deps.deadline?.disarm();
    await removeProof(stateDirectory);
    await removeBootTrial(stateDirectory);
  });
  return "finished";
}

/** A trial's deployment has ended, so what there is to say is the machine's own log's. */
function createTrialJournal({ logger }: SuperviseDeps): StageJournal {
  return {
    phases: [],
    durable: { n: 0, offset: 0 },
    log: async (_, text) => logger.info(text),
    phase: async ({ phase }) => logger.info(phase),
  };
}

async function runStages(recorded: ActivationRecord, context: StageContext): Promise<ActivationRecord> {
  let record = await noticeReboot(recorded, context);
  while (record.stage !== "finished") record = await runStage(record, context);
  return record;
}

/** A reboot between the record and now decides for itself what the machine runs. */
async function noticeReboot(record: ActivationRecord, { deps, journal }: StageContext): Promise<ActivationRecord> {
  const { bootId } = await deps.bootClock.read();
  if (record.bootId === bootId) return record;
  const driver = createDriver(createDriverDeps(deps, record, journal));
  return advance(record, { kind: "rebooted", bootId, runsNew: await driver.runsNew() });
}

async function runStage(before: ActivationRecord, context: StageContext): Promise<ActivationRecord> {
  const { deps, journal } = context;
  const { clock, signal } = deps;
  signal.throwIfAborted();
  const record = await withDeadline(begin(before), deps);
  try {
    await context.write(record);
    await enterPhase(journal, record);
  } catch (error) {
    const reason = `the record of the activation cannot be written: ${describeError(error)}`;
    deps.logger.error(reason);
    const isBack = record.stage === "undoing" || record.stage === "returning";
    if (!isBack) return advance(record, { kind: "refused", reason, exitCode: null, cause: "elsewhere" });
  }
  const unarmed = await armDeadline(deps, record);
  if (unarmed !== null)
    return advance(record, { kind: "refused", reason: unarmed, exitCode: null, cause: "elsewhere" });
  if (record.stage === "undoing" && record.tries > 1) await clock.sleep(UNDO_RETRY_MS, signal);
  if (record.stage === "undoing" && record.tries === 1) await journal.log("agent", `going back: ${record.reason}`);
  signal.throwIfAborted();
  const driver = createDriver(createDriverDeps(deps, record, journal));
  return advance(record, await runWork({ ...context, record, driver }));
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

async function enterPhase(journal: StageJournal, record: ActivationRecord): Promise<void> {
  const phase = PHASE_OF[record.stage];
  if (phase === null || journal.phases.at(-1)?.phase === phase) return;
  const { confirmWindowMs } = record.policy;
  await journal.phase({ phase, previousPath: previousPathOf(record), confirmWindowMs });
}

/** The outcome is not given up: without it the deployment would never end for anybody else. */
async function finish(deps: SuperviseDeps, journal: Journal, record: ActivationRecord): Promise<void> {
  const { outcome, reason, fault } = record;
  if (outcome === null || reason === null) throw new Error("a finished activation has no outcome");
  await untilTaken("record the outcome", deps, async () => {
    await writeRecord(deps.stateDirectory, record);
    // Before the outcome: whoever is killed in between is followed by somebody, and after it nobody looks any more.
    await deps.deadline?.disarm();
    await journal.finish({
      outcome,
      reason,
      previousPath: previousPathOf(record),
      fetchedBytes: record.fetchedBytes,
      exitCode: record.exitCode,
      phaseMs: measurePhases(journal, deps.clock.nowMs()),
      ...(fault === null ? {} : { fault }),
      ...(record.unitChanges === undefined ? {} : { unitChanges: record.unitChanges }),
    });
  });
}

/** Again and again until the disk takes it; the machine itself is as it should be by then. @throws the signal's reason */
async function untilTaken(what: string, { clock, logger, signal }: SuperviseDeps, write: () => Promise<void>) {
  for (;;) {
    try {
      return await write();
    } catch (error) {
      logger.error(`cannot ${what}: ${describeError(error)}`);
      await clock.sleep(OUTCOME_RETRY_MS, signal);
    }
  }
}

function previousPathOf({ previous }: ActivationRecord): StorePath | null {
  return previous.profile ?? previous.current;
}
