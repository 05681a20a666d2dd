/**
 * What the end of `switch-to-configuration` means. Pure: every exit code has a stated policy.
 *
 *   test, of the new system
 *     0      live
 *     4      live, but units failed: undone, or kept and degraded (`--on-unit-failure`); good when all that fail now
 *            failed before too
 *     11     another activation holds the lock: refused, untouched
 *     100    the init interface changed, and it cannot take over without a reboot: that, where it is allowed (`--inhibitors
 *            reboot`); else undone
 *     other  touched, whatever the code says: units may have been stopped before it gave up
 *     hang   stopped at the deadline, touched
 *
 *   test, of the previous system, in an undo: the running system has moved back, and
 *     0      back
 *     4      back, when the units that fail now failed before too, or nobody can tell
 *     other  not back: tried again
 *
 * Source: nixpkgs `pkgs/by-name/sw/switch-to-configuration-ng`.
 */
import type { ProgramExit } from "../../machine/process.ts";
import { describeExit } from "../../machine/program-exit.ts";
import type { StageEnd } from "./driver.ts";

export const EXIT_LOCK_HELD = 11;
const EXIT_UNITS_FAILED = 4;
const EXIT_REBOOT_NEEDED = 100;

const ACTION = "switch-to-configuration test";

/** Names of units; null where no service manager tells. */
type FailedUnits = {
  readonly failedBefore: readonly string[] | null;
  readonly failedNow: readonly string[] | null;
};

/** Units that fail now and did not fail before. */
export function listFreshFailures({ failedBefore, failedNow }: FailedUnits): readonly string[] {
  return (failedNow ?? []).filter((unit) => !(failedBefore ?? []).includes(unit));
}

export function judgeTest(
  end: FailedUnits & {
    readonly exit: ProgramExit;
    readonly policy: {
      readonly onUnitFailure: "rollback" | "keep";
      /** Where a reboot is needed, it may be made. */
      readonly mayReboot: boolean;
    };
  },
): StageEnd {
  const { exit } = end;
  if (exit.kind !== "exited") return { kind: "bad", reason: `${ACTION} ${describeExit(exit)}`, exitCode: null };
  const { code } = exit;
  switch (code) {
    case 0:
      return { kind: "good", exitCode: 0 };
    case EXIT_UNITS_FAILED:
      return judgeFailedUnits(end);
    case EXIT_LOCK_HELD:
      return {
        kind: "refused",
        reason: `another activation is running on this machine (${ACTION} ended with code 11)`,
        exitCode: code,
      };
    case EXIT_REBOOT_NEEDED:
      if (end.policy.mayReboot) return { kind: "good", exitCode: code, byReboot: true };
      return {
        kind: "bad",
        reason: `the new system needs a reboot to take over (${ACTION} ended with code 100)`,
        exitCode: code,
      };
    default:
      return { kind: "bad", reason: `${ACTION} ${describeExit(exit)}`, exitCode: code };
  }
}

function judgeFailedUnits({ policy, failedBefore, failedNow }: Parameters<typeof judgeTest>[0]): StageEnd {
  const fresh = listFreshFailures({ failedBefore, failedNow });
  // None at all: it failed and was started again, or nobody can tell.
  const failsAsBefore = failedNow !== null && failedNow.length > 0 && fresh.length === 0;
  if (failsAsBefore) {
    return { kind: "good", exitCode: EXIT_UNITS_FAILED, note: `as before, these units fail: ${failedNow.join(", ")}` };
  }
  if (policy.onUnitFailure === "keep") return { kind: "good", exitCode: EXIT_UNITS_FAILED, unitsFailed: true };
  const which = fresh.length === 0 ? "" : `: ${fresh.join(", ")}`;
  const reason = `some units of the new system failed (${ACTION} ended with code 4)${which}`;
  return { kind: "bad", reason, exitCode: EXIT_UNITS_FAILED };
}

export function judgeUndo(end: FailedUnits & { readonly exit: ProgramExit }): StageEnd {
  const { exit, failedBefore, failedNow } = end;
  if (exit.kind === "exited" && exit.code === 0) return { kind: "good", exitCode: null };
  if (exit.kind === "exited" && exit.code === EXIT_UNITS_FAILED) {
    const fresh = listFreshFailures({ failedBefore, failedNow });
    if (fresh.length === 0) return { kind: "good", exitCode: null };
    return { kind: "bad", reason: `units that worked before fail now: ${fresh.join(", ")}`, exitCode: exit.code };
  }
  const exitCode = exit.kind === "exited" ? exit.code : null;
  return { kind: "bad", reason: `the previous system's ${ACTION} ${describeExit(exit)}`, exitCode };
}
