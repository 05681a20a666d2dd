/**
 * The work of each stage: what is done, and what must be true before and between. When which stage comes, and what is
 * recorded before it, is the loop's business (`supervise.ts`); what follows from its end, the engine's.
 */
import { describeError } from "../../errors.ts";
import { readReported } from "../journal/deployment-folder.ts";
import type { Journal } from "../journal/journal.ts";
import type { BootClock } from "../machine/boot-clock.ts";
import { describeExit, isSuccess } from "../machine/program-exit.ts";
import { takesNothing } from "../machine/system-error.ts";
import { createBootTrial, removeBootTrial, writeBootTrial } from "./boot/boot-trial.ts";
import type { EngineEvent } from "./engine.ts";
import { awaitProof } from "./proof.ts";
import { type ActivationRecord, type Cause, isCancelRequested } from "./record.ts";
import type { SuperviseDeps } from "./supervise.ts";
import { canLogin } from "./timed-login.ts";
import { createDarwinDriver } from "./types/darwin.ts";
import { DONE, type Driver, type DriverDeps, makeDurable, runLogged, type StageEnd } from "./types/driver.ts";
import { createHomeManagerDriver } from "./types/home-manager.ts";
import { createNixosDriver } from "./types/nixos.ts";
import { createPlainDriver } from "./types/plain.ts";

const REBOOT = { command: "systemctl", args: ["reboot"], deadlineMs: 60_000 } as const;
/** Until the machine has gone down; services may take their time to stop. */
const REBOOT_MAX_MS = 10 * 60_000;
const REPORT_MAX_MS = 5_000;
const REPORT_LOOK_MS = 100;

/** What the stages say, and to whom does not matter to them. */
export type StageJournal = Pick<Journal, "phases" | "durable" | "log" | "phase">;

export type StageContext = {
  readonly deps: SuperviseDeps;
  readonly journal: StageJournal;
  /** Of a boot trial, whose file is its record. */
  readonly isTrial: boolean;
  /** Durable on return. */
  readonly write: (record: ActivationRecord) => Promise<void>;
};

export type Work = StageContext & { readonly record: ActivationRecord; readonly driver: Driver };

export async function runWork(work: Work): Promise<StageEnd | Cancelled> {
  const { deps, record, driver } = work;
  try {
    const obstacle = await findObstacleInBetween(deps, record, driver);
    if (obstacle !== null) return obstacle;
    switch (record.stage) {
      case "checking":
        return await driver.check();
      case "activating":
        return await driver.activate();
      case "arming":
        return await arm(work);
      case "rebooting":
      case "returning":
        return await reboot(work);
      case "confirming":
        return await confirm(work);
      case "committing":
        return await commit(work);
      case "undoing":
        return await undo(work);
      case "finished":
        return DONE;
      default:
        return record.stage satisfies never;
    }
  } catch (error) {
    deps.signal.throwIfAborted();
    // What fails here are the machine's own programs and files, not the new version's.
    return { kind: "bad", reason: `unexpectedly: ${describeError(error)}`, exitCode: null, cause: "elsewhere" };
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
  if (stage === "undoing" || stage === "returning" || stage === "finished") return null;
  if (stage === "activating" && (await isLate(record, bootClock)))
    return refuse("the activation did not come to its end in time");
  const isLive = stage === "confirming" || (stage === "committing" && mode !== "boot");
  // Somebody else's hand; or a way back that could not be recorded, before its supervisor was killed.
  if (isLive && !(await driver.runsNew())) return refuse("the new version does not run any more", "elsewhere");
  return (await isCancelRequested(stateDirectory, deploymentId)) ? { kind: "cancelled" } : null;
}

/** Ends with us, if all goes well. */
async function reboot({ deps, journal, record, isTrial }: Work): Promise<StageEnd> {
  const { clock, signal } = deps;
  if (!isTrial) await awaitReported(deps, journal, record);
  const exit = await runLogged(REBOOT, createDriverDeps(deps, record, journal));
  const fault = { kind: "bad", exitCode: null, cause: "elsewhere" } as const;
  if (!isSuccess(exit)) return { ...fault, reason: `rebooting ${describeExit(exit)}` };
  await clock.sleep(REBOOT_MAX_MS, signal);
  return { ...fault, reason: `the machine did not reboot within ${REBOOT_MAX_MS / 60_000} min` };
}

/** So that whoever follows sees why the machine falls silent. An agent that cannot report does not hold it up. */
async function awaitReported(deps: SuperviseDeps, { durable }: StageJournal, record: ActivationRecord): Promise<void> {
  const { stateDirectory, clock, signal } = deps;
  for (let leftMs = REPORT_MAX_MS; leftMs > 0; leftMs -= REPORT_LOOK_MS) {
    if ((await readReported(stateDirectory, record.deploymentId)) >= durable.n) return;
    await clock.sleep(REPORT_LOOK_MS, signal);
  }
}

async function arm({ deps, journal, record, driver }: Work): Promise<StageEnd> {
  const end = await driver.arm?.();
  if (end === undefined) return { kind: "bad", reason: "nothing of it is booted", exitCode: null };
  return end.kind === "good" ? await makeDurable(end, createDriverDeps(deps, record, journal)) : end;
}

/** Where the next boot tries it, that is on record; whatever waited for that boot before is forgotten. */
async function commit({ deps, journal, record, driver, isTrial }: Work): Promise<StageEnd> {
  const { stateDirectory } = deps;
  const done = await driver.commit();
  const end = done.kind === "good" ? await makeDurable(done, createDriverDeps(deps, record, journal)) : done;
  if (end.kind !== "good") return end;
  if (end.waitsForReboot === true) await writeBootTrial(stateDirectory, createBootTrial(record));
  else if (!isTrial) await removeBootTrial(stateDirectory);
  return end;
}

async function confirm({ deps, journal, record }: Work): Promise<StageEnd> {
  // At every try: an agent that began before the switch proves nothing (see `activations.ts`).
  const unit = agentUnitOf(record);
  const trouble = unit === null ? null : await restartAgent(deps, journal, unit);
  return await awaitProof({
    ...deps,
    record,
    trouble,
    driverDeps: createDriverDeps(deps, record, journal),
    loginAsSupervisor: (signal) => deps.loginAsSupervisor(record, signal),
  });
}

/** The unit that is to run the new version's agent; null where none does. */
function agentUnitOf({ prover }: ActivationRecord): string | null {
  return prover.kind === "supervisor" ? null : prover.unit;
}

/** It may still come up by itself. @returns why it did not, or null */
async function restartAgent(deps: SuperviseDeps, journal: StageJournal, unit: string): Promise<string | null> {
  try {
    await deps.restartUnit(unit);
    return null;
  } catch (error) {
    const trouble = `${unit} did not start: ${describeError(error)}`;
    await journal.log("agent", trouble);
    return trouble;
  }
}

async function undo({ deps, journal, record, driver, isTrial }: Work): Promise<StageEnd> {
  const end = await putBack(deps, record, driver);
  if (end.kind !== "good") return end;
  await makeDurable(end, createDriverDeps(deps, record, journal));
  if (!isTrial) await restoreTrialIfTaken({ deps, record, journal });
  if (record.cause !== "unconfirmed") return end;
  const reachesCoordinator = await canLogin({
    ...deps,
    login: (signal) => deps.loginAsSupervisor(record, signal),
    maxMs: record.policy.confirmWindowMs,
  });
  return { ...end, reachesCoordinator };
}

async function putBack(deps: SuperviseDeps, record: ActivationRecord, driver: Driver): Promise<StageEnd> {
  const end = await driver.undo();
  const unit = agentUnitOf(record) ?? record.removedAgentUnit;
  if (end.kind !== "good" || unit === undefined) return end;
  try {
    await deps.restartUnit(unit);
  } catch (error) {
    const previous = record.previous.current ?? record.previous.profile;
    // An agent that somebody started by hand: there is nothing to go back to.
    const hadUnit = previous !== null && (await deps.hasUnit(previous, unit));
    if (hadUnit && record.prover.kind !== "none")
      return { kind: "bad", reason: `${unit} did not start: ${describeError(error)}`, exitCode: null };
  }
  return end;
}

/** A disk that takes nothing is no reason to say that the machine is not back: what is left there is given up when due. */
async function restoreTrialIfTaken({ deps, record, journal }: Pick<Work, "deps" | "record" | "journal">) {
  try {
    await restoreTrial(deps, record);
  } catch (error) {
    if (!takesNothing(error)) throw error;
    await journal.log("agent", `what waited for a reboot before cannot be put back: ${describeError(error)}`);
  }
}

/** One of our own is gone; one that waited before waits again, for the next boot unless this boot is the one. */
async function restoreTrial(deps: SuperviseDeps, { commitBegun, replacedTrial }: ActivationRecord): Promise<void> {
  const { stateDirectory } = deps;
  if (!commitBegun) return;
  if (replacedTrial === undefined) return await removeBootTrial(stateDirectory);
  const isBooted = (await deps.boot.readBootedSystem()) === replacedTrial.storePath;
  const { bootId } = isBooted ? replacedTrial : await deps.bootClock.read();
  await writeBootTrial(stateDirectory, { ...replacedTrial, bootId });
}

async function isLate({ deadlineUptimeMs }: ActivationRecord, bootClock: BootClock): Promise<boolean> {
  return deadlineUptimeMs !== null && (await bootClock.read()).uptimeMs >= deadlineUptimeMs;
}

/** Of this record, whose log is this journal. */
export function createDriverDeps(deps: SuperviseDeps, record: ActivationRecord, journal: StageJournal): DriverDeps {
  return {
    ...deps,
    record,
    readProfilePath: () => deps.readProfilePath(record.profilePath),
    log: (stream, text) => journal.log(stream, text),
  };
}

export function createDriver(deps: DriverDeps): Driver {
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
