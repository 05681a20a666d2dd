/**
 * What the end of `switch-to-configuration` means. Pure: every exit code has a stated policy.
 *
 *   0      succeeded
 *   4      units failed: the new system is live and stays, degraded
 *   100    the init interface changed: live, needs a reboot, degraded
 *   11     another activation holds the lock: nothing was touched, the profile goes back, failed
 *   other  the profile goes back; failed when the running system is the same as before, else degraded
 *   hang   stopped at the deadline: how far it came is unknown, the profile stays for a human to look, degraded
 *
 * Source: nixpkgs `pkgs/by-name/sw/switch-to-configuration-ng`.
 */
import type { Mode } from "../../deployment.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { ProgramExit } from "../process.ts";

export const EXIT_LOCK_HELD = 11;
const EXIT_UNITS_FAILED = 4;
const EXIT_REBOOT_NEEDED = 100;

export type SwitchVerdict =
  | { readonly kind: "good" }
  | {
      readonly kind: "bad";
      readonly outcome: "failed" | "degraded";
      /** One sentence without its full stop. */
      readonly reason: string;
      readonly putProfileBack: boolean;
    };

export type JudgeSwitchOptions = {
  readonly action: Mode;
  readonly exit: ProgramExit;
  readonly storePath: StorePath;
  /** What /run/current-system named before and names now. */
  readonly systemBefore: StorePath | null;
  readonly systemNow: StorePath | null;
};

export function judgeSwitch(options: JudgeSwitchOptions): SwitchVerdict {
  const { action, exit, systemBefore, systemNow } = options;
  const isLive = action === "switch" || action === "test";
  if (exit.kind === "exited") {
    if (exit.code === 0) return { kind: "good" };
    if (exit.code === EXIT_LOCK_HELD) {
      return bad(
        "failed",
        "another activation is running on this machine (switch-to-configuration ended with code 11)",
      );
    }
    if (isLive && exit.code === EXIT_UNITS_FAILED) {
      return keep("the new system is live, but some units failed (switch-to-configuration ended with code 4)");
    }
    if (isLive && exit.code === EXIT_REBOOT_NEEDED) {
      return keep(
        "the new system is live as far as possible, and needs a reboot (switch-to-configuration ended with code 100)",
      );
    }
  }
  const what = `switch-to-configuration ${action} ${describeExit(exit)}`;
  if (action === "dry-activate") return bad("failed", what);
  if (exit.kind === "timed-out") return keep(`${what}; how far it came is not known`);
  if (systemNow === systemBefore) return bad("failed", `${what}; the running system is the one from before`);
  return bad("degraded", `${what} after it had begun; the running system is now ${systemNow ?? "unknown"}`);
}

/** "ended with code 1" and the like. */
export function describeExit(exit: ProgramExit): string {
  switch (exit.kind) {
    case "exited":
      return `ended with code ${exit.code}`;
    case "killed":
      return `was ended by ${exit.signal}`;
    case "timed-out":
      return `did not end within ${Math.round(exit.afterMs / 60_000)} minutes and was stopped`;
    case "not-started":
      return `could not be started (${exit.reason})`;
    default:
      return exit satisfies never;
  }
}

function bad(outcome: "failed" | "degraded", reason: string): SwitchVerdict {
  return { kind: "bad", outcome, reason, putProfileBack: true };
}

function keep(reason: string): SwitchVerdict {
  return { kind: "bad", outcome: "degraded", reason, putProfileBack: false };
}
