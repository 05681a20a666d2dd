/**
 * NixOS: `test` first, and only after the proof the profile and the boot loader.
 *
 *   check     the new script's `check`, where it knows it; free space for kernel and initrd
 *   activate  switch-to-configuration test
 *   commit    nix-env --set, switch-to-configuration boot
 *   undo      if anything was committed: the previous profile and its `boot`; then the previous system's `test`
 *
 * Where the machine runs a specialisation, `check` and `test` are those of the new system's variant of that name, and
 * everything permanent is of the system itself (`specialisation.ts`).
 *
 * What the exit codes of `test` mean is decided in `judge.ts`.
 */
import type { StorePath } from "../../nix/store-path.ts";
import type { ProgramExit } from "../process.ts";
import { describeBootSpace } from "./boot-space.ts";
import {
  codeOf,
  type Driver,
  type DriverDeps,
  describeExit,
  isSuccess,
  removeProfile,
  runLogged,
  type StageEnd,
  setProfile,
  timeForUndo,
} from "./driver.ts";
import { EXIT_LOCK_HELD, judgeTest, judgeUndo } from "./judge.ts";
import { describeUnprovedKernel } from "./kernel.ts";
import { findObstacle } from "./obstacles.ts";
import type { ActivationRecord } from "./record.ts";
import { specialisationDirectory } from "./specialisation.ts";

type Action = "check" | "dry-activate" | "test" | "boot";

const CHECK_MAX_MS = 2 * 60_000;
/** Between tries while another activation, or one that an earlier supervisor started, holds the lock. */
const LOCK_RETRY_MS = 1_000;
/** An old script says this, with code 1, to an action it does not know. */
const USAGE = /\busage\b/i;

export function createNixosDriver(deps: DriverDeps): Driver {
  const { record } = deps;
  const { storePath, previous } = record;

  const check = async (): Promise<StageEnd> => {
    const obstacle = await findObstacle(record);
    if (obstacle !== null) return { kind: "refused", reason: obstacle, exitCode: null };
    const tooFull = await describeBootSpace(storePath, previous.current);
    if (tooFull !== null) return { kind: "refused", reason: tooFull, exitCode: null };
    if (record.mode === "dry-activate") return await dryActivate(deps);
    return await runCheck(deps);
  };
  const commit = async (): Promise<StageEnd> => {
    const set = await setProfile(storePath, deps);
    if (set.kind !== "good") return set;
    return await install(storePath, deps);
  };
  const undo = async (): Promise<StageEnd> => {
    if (record.commitBegun) {
      const restored = await restorePermanent(deps);
      if (restored.kind !== "good") return restored;
    }
    return await restoreRunning(deps);
  };
  return {
    check,
    activate: () => runTest(deps),
    commit,
    undo,
    // After a reboot in the middle of a commit it is the system itself, whose boot entry was the default.
    runsNew: async () => {
      const running = await deps.readCurrentSystem();
      return running === liveSystemOf(record) || running === storePath;
    },
  };
}

/** What is to be /run/current-system. */
function liveSystemOf({ storePath, specialisation }: ActivationRecord): StorePath {
  return specialisation?.path ?? storePath;
}

/** Where its switch-to-configuration is found. */
function liveDirectoryOf({ storePath, specialisation }: ActivationRecord): string {
  return specialisation === undefined ? storePath : specialisationDirectory(storePath, specialisation.name);
}

async function runCheck(deps: DriverDeps): Promise<StageEnd> {
  let isUnknown = false;
  const exit = await runAction(liveDirectoryOf(deps.record), "check", deps, (line) => {
    isUnknown ||= USAGE.test(line);
  });
  if (isSuccess(exit) || (isUnknown && exit.kind === "exited")) return { kind: "good", exitCode: null };
  if (codeOf(exit) === EXIT_LOCK_HELD) {
    const reason = "another activation is running on this machine (its check ended with code 11)";
    return { kind: "refused", reason, exitCode: EXIT_LOCK_HELD };
  }
  const what = exit.kind === "not-started" ? "bin/switch-to-configuration" : "own check";
  return { kind: "refused", reason: `the new system's ${what} ${describeExit(exit)}`, exitCode: codeOf(exit) };
}

async function dryActivate(deps: DriverDeps): Promise<StageEnd> {
  const exit = await runAction(liveDirectoryOf(deps.record), "dry-activate", deps);
  if (isSuccess(exit)) return { kind: "good", exitCode: 0 };
  return {
    kind: "refused",
    reason: `switch-to-configuration dry-activate ${describeExit(exit)}`,
    exitCode: codeOf(exit),
  };
}

async function runTest(deps: DriverDeps): Promise<StageEnd> {
  const { record } = deps;
  const exit = await runAction(liveDirectoryOf(record), "test", deps);
  const failedNow = isSuccess(exit) ? null : await deps.readFailedUnits();
  const end = judgeTest({ exit, policy: record.policy, failedBefore: record.previous.failedUnits, failedNow });
  if (end.kind !== "good") return end;
  const notes = [end.note, await describeUnprovedKernel(liveSystemOf(record))].filter(
    (note) => typeof note === "string",
  );
  return notes.length === 0 ? end : { ...end, note: notes.join("; ") };
}

/** The boot loader's default becomes this system, which the profile names already. */
async function install(system: StorePath, deps: DriverDeps): Promise<StageEnd> {
  const exit = await runAction(system, "boot", deps);
  if (isSuccess(exit)) return { kind: "good", exitCode: null };
  const reason = `installing the boot loader entry of ${system} ${describeExit(exit)}`;
  return { kind: "bad", reason, exitCode: codeOf(exit) };
}

async function restorePermanent(deps: DriverDeps): Promise<StageEnd> {
  const { profile, current } = deps.record.previous;
  const restored = profile === null ? await removeProfile(deps) : await setProfile(profile, deps);
  const booted = profile ?? current;
  return restored.kind === "good" && booted !== null ? await install(booted, deps) : restored;
}

async function restoreRunning(deps: DriverDeps): Promise<StageEnd> {
  const { current, failedUnits } = deps.record.previous;
  if (current === null) {
    return { kind: "bad", reason: "there is no earlier system to go back to", exitCode: null };
  }
  const exit = await runAction(current, "test", deps);
  const running = await deps.readCurrentSystem();
  if (running !== current) {
    return { kind: "bad", reason: `its script ${describeExit(exit)}, and ${running} runs`, exitCode: codeOf(exit) };
  }
  const failedNow = isSuccess(exit) ? null : await readFailedOfOld(current, deps);
  return judgeUndo({ exit, failedBefore: failedUnits, failedNow });
}

/** Without those that only the new system has: they are gone, and systemd merely remembers them. */
async function readFailedOfOld(old: StorePath, deps: DriverDeps): Promise<readonly string[] | null> {
  const failed = await deps.readFailedUnits();
  if (failed === null) return null;
  const ofOld: string[] = [];
  for (const unit of failed) {
    const isOfNewOnly = (await deps.hasUnit(liveSystemOf(deps.record), unit)) && !(await deps.hasUnit(old, unit));
    if (!isOfNewOnly) ofOld.push(unit);
  }
  return ofOld;
}

/** While another activation holds the lock, waits for it, as long as an activation may take. */
async function runAction(
  system: string,
  action: Action,
  deps: DriverDeps,
  onLine?: (text: string) => void,
): Promise<ProgramExit> {
  const { clock, record } = deps;
  const deadlineMs = timeFor(action, record);
  const giveUpAtMs = clock.monotonicMs() + deadlineMs;
  for (;;) {
    const program = { command: `${system}/bin/switch-to-configuration`, args: [action], deadlineMs };
    const exit = await runLogged(program, deps, onLine);
    // A first try finds somebody else's lock, which is refused; a later one finds what an earlier one of ours left.
    const isLeftover = exit.kind === "exited" && exit.code === EXIT_LOCK_HELD && isOurs(deps);
    if (!isLeftover || clock.monotonicMs() >= giveUpAtMs) return exit;
    await clock.sleep(LOCK_RETRY_MS, new AbortController().signal);
  }
}

function timeFor(action: Action, record: ActivationRecord): number {
  const { stage, policy } = record;
  if (stage === "undoing") return timeForUndo(record);
  return action === "check" ? Math.min(CHECK_MAX_MS, policy.activationTimeoutMs) : policy.activationTimeoutMs;
}

function isOurs({ record }: DriverDeps): boolean {
  return record.tries > 1 || record.stage === "undoing";
}
