/**
 * NixOS: `test` first, and only after the proof the profile and the boot loader; or, by a reboot, a boot that is tried.
 *
 *   check     the new script's `check`, where it knows it; space for kernel and initrd; what must not change while running
 *   activate  switch-to-configuration test
 *   arm       profile and `boot`, with the old entry pinned and the new one for the next boot alone (`nixos-boot.ts`)
 *   commit    nix-env --set, switch-to-configuration boot; where that would make a kernel the default that has not been
 *             booted, arm instead, if the boot loader can: the next reboot tries it (`boot-trial.ts`).
 *             After a boot of it, what was pinned goes
 *   undo      if anything was committed: the previous profile and its `boot`; then, if the new system was booted, a
 *             reboot; else the previous system's `test`
 *
 * Where the machine runs a specialisation, `check` and `test` are those of the new system's variant of that name, and
 * everything permanent is of the system itself (`specialisation.ts`).
 *
 * What the exit codes of `test` mean is decided in `judge.ts`.
 */
import type { StorePath } from "../../../nix/store-path.ts";
import { isUnitChangeLine, parseUnitChanges } from "../../../unit-changes.ts";
import type { ProgramExit } from "../../machine/process.ts";
import { codeOf, describeExit, isSuccess } from "../../machine/program-exit.ts";
import { specialisationDirectory } from "../../machine/specialisation.ts";
import { describeBootSpace } from "../boot/boot-space.ts";
import { findObstacle } from "../obstacles.ts";
import type { ActivationRecord } from "../record.ts";
import { DONE, type Driver, type DriverDeps, makeDurable, runLogged, type StageEnd, timeForScript } from "./driver.ts";
import { EXIT_LOCK_HELD, judgeTest, judgeUndo } from "./judge.ts";
import { arm, type Install, makePermanent, planTrial, restore, settle } from "./nixos-boot.ts";

type Action = "check" | "dry-activate" | "test" | "boot";

const CHECK_MAX_MS = 2 * 60_000;
/** Between tries while another activation, or one that an earlier supervisor started, holds the lock. */
const LOCK_RETRY_MS = 1_000;
/** It says each thing once; a program that repeats itself must not fill our memory. */
const CHANGE_LINES_MAX = 1_000;
/** An old script says this, with code 1, to an action it does not know. */
const USAGE = /\busage\b/i;

export function createNixosDriver(deps: DriverDeps): Driver {
  const { record } = deps;
  const { storePath, previous } = record;

  // Before anything that was pinned against it is let go.
  const install = async (system: StorePath) => await makeDurable(await runBoot(system, deps), deps);
  const check = async (): Promise<StageEnd> => {
    const obstacle = await findObstacle(record);
    if (obstacle !== null) return { kind: "refused", reason: obstacle, exitCode: null };
    const tooFull = await describeBootSpace(storePath, previous.current);
    if (tooFull !== null) return { kind: "refused", reason: tooFull, exitCode: null };
    if (record.mode === "dry-activate") return await dryActivate(deps);
    const inhibitors = previous.current === null ? [] : await deps.boot.readInhibitors(previous.current, storePath);
    const way = await planWay(deps, inhibitors);
    // The system's own check would refuse what a reboot allows.
    if (way.kind !== "good" || inhibitors.length > 0) return way;
    const checked = await runCheck(deps);
    return checked.kind === "good" ? { ...way, ...checked } : checked;
  };
  const undo = async (): Promise<StageEnd> => {
    if (record.commitBegun) {
      const restored = await restore(deps, install);
      if (restored.kind !== "good") return restored;
      if (record.byReboot === true && (await deps.boot.readBootedSystem()) === storePath) return { kind: "reboot" };
    }
    return await restoreRunning(deps);
  };
  return {
    check,
    activate: () => runTest(deps),
    arm: () => arm(deps, install),
    commit: () => commit(deps, install),
    giveUpTrial: async () => {
      // Somebody else's choice, too.
      const durable = await makeDurable(DONE, deps);
      return durable.kind === "good" ? await settle(deps) : durable;
    },
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

/** Live or by a reboot, and what the boot loader can do about it. */
async function planWay(deps: DriverDeps, inhibitors: readonly string[]): Promise<StageEnd> {
  const { mode, policy } = deps.record;
  const byReboot =
    policy.reboot === true || (mode === "switch" && inhibitors.length > 0 && policy.inhibitors === "reboot");
  if (inhibitors.length > 0 && !byReboot && mode !== "boot") {
    const reason = `it changes what must not change while the system runs (${inhibitors.join(", ")}); \`--inhibitors reboot\` reboots into it`;
    return { kind: "refused", reason, exitCode: null };
  }
  if (mode === "test") return DONE;
  const trial = await planTrial(deps);
  if (byReboot && trial.kind === "none" && policy.allowUnprovenBoot !== true) {
    const reason = `nothing would fall back if it failed to boot: ${trial.why}; \`--allow-unproven-boot\` reboots all the same`;
    return { kind: "refused", reason, exitCode: null };
  }
  return { kind: "good", exitCode: null, trial, byReboot };
}

async function runCheck(deps: DriverDeps): Promise<StageEnd> {
  let isUnknown = false;
  const exit = await runAction(liveDirectoryOf(deps.record), "check", deps, (line) => {
    isUnknown ||= USAGE.test(line);
  });
  if (isSuccess(exit) || (isUnknown && exit.kind === "exited")) return DONE;
  if (codeOf(exit) === EXIT_LOCK_HELD) {
    const reason = "another activation is running on this machine (its check ended with code 11)";
    return { kind: "refused", reason, exitCode: EXIT_LOCK_HELD };
  }
  const what = exit.kind === "not-started" ? "bin/switch-to-configuration" : "own check";
  return { kind: "refused", reason: `the new system's ${what} ${describeExit(exit)}`, exitCode: codeOf(exit) };
}

async function dryActivate(deps: DriverDeps): Promise<StageEnd> {
  const lines: string[] = [];
  const exit = await runAction(liveDirectoryOf(deps.record), "dry-activate", deps, (line) => {
    if (isUnitChangeLine(line) && lines.length < CHANGE_LINES_MAX) lines.push(line);
  });
  if (isSuccess(exit)) return { kind: "good", exitCode: 0, unitChanges: parseUnitChanges(lines) };
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
  const { policy, previous } = record;
  const end = judgeTest({
    ...{ exit, failedNow, failedBefore: previous.failedUnits },
    policy: { onUnitFailure: policy.onUnitFailure, mayReboot: mayReboot(record) },
  });
  if (end.kind !== "good") return end;
  if (record.mode !== "test") return end;
  const unproved = await deps.boot.readUnproved(liveSystemOf(record));
  if (unproved.length === 0) return end;
  const note = `new ${unproved.join(", ")} not proved: that takes a reboot`;
  return { ...end, note: end.note === undefined ? note : `${end.note}; ${note}` };
}

/** The script says that only a reboot takes it into effect. */
function mayReboot({ mode, policy, trial }: ActivationRecord): boolean {
  const isSafe = trial?.kind === "one-shot" || policy.allowUnprovenBoot === true;
  return mode === "switch" && policy.inhibitors === "reboot" && isSafe;
}

/** The boot loader's default becomes this system, which the profile names already. */
async function runBoot(system: StorePath, deps: DriverDeps): Promise<StageEnd> {
  const exit = await runAction(system, "boot", deps);
  if (isSuccess(exit)) return DONE;
  const reason = `installing the boot loader entry of ${system} ${describeExit(exit)}`;
  return { kind: "bad", reason, exitCode: codeOf(exit) };
}

/** What did not prove itself after a boot is tried by the next one, where the boot loader can fall back. */
async function commit(deps: DriverDeps, install: Install): Promise<StageEnd> {
  const { storePath, mode, trial, byReboot } = deps.record;
  // It has booted, however far what prepared that had come.
  if (byReboot === true) return await commitForGood(deps, install);
  const unproved = await deps.boot.readUnproved(storePath);
  const running = await deps.readCurrentSystem();
  const isLive = running === storePath || running === liveSystemOf(deps.record);
  if (isLive && unproved.length === 0) return await commitForGood(deps, install);
  const what = isLive ? `new ${unproved.join(", ")} not proved` : null;
  if (trial?.kind === "one-shot") {
    const armed = await arm(deps, install);
    const note = "the next reboot tries it once, and the boot loader falls back by itself";
    return armed.kind === "good" ? { ...armed, waitsForReboot: true, note: joinClauses(what, note) } : armed;
  }
  const done = await commitForGood(deps, install);
  if (done.kind !== "good") return done;
  if (mode === "switch") return { ...done, note: `${what}: that takes a reboot` };
  return {
    ...done,
    waitsForReboot: true,
    note: `if that fails to boot, nothing falls back: ${trial?.why ?? "not looked at"}`,
  };
}

function joinClauses(first: string | null, second: string): string {
  return first === null ? second : `${first}; ${second}`;
}

async function commitForGood(deps: DriverDeps, install: Install): Promise<StageEnd> {
  const { byReboot, replacedTrial } = deps.record;
  const done = await makePermanent(deps, install);
  const isPinned = byReboot === true || replacedTrial !== undefined;
  return done.kind === "good" && isPinned ? await settle(deps) : done;
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
  const timeMs = timeForScript(record);
  return action === "check" ? Math.min(CHECK_MAX_MS, timeMs) : timeMs;
}

function isOurs({ record }: DriverDeps): boolean {
  return record.tries > 1 || record.stage === "undoing";
}
