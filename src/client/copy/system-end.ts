/**
 * What became of a system on another machine: the words of the agents' outcomes, and what the exit codes of
 * `switch-to-configuration` mean where it is run without our engine. Pure.
 *
 *   0      live
 *   4      live, but units failed: gone back, or kept and degraded (`--on-unit-failure keep`)
 *   11     another activation holds the lock: untouched
 *   other  touched, whatever the code says: gone back
 *
 * The same policy as the engine's (`agent/activation/types/judge.ts`), which can also tell which units failed before.
 */
import type { Outcome } from "../../deployment.ts";

export const SYSTEM_METHODS = ["switch", "boot", "test", "dry-activate", "reboot"] as const;
export type SystemMethod = (typeof SYSTEM_METHODS)[number];

export type SystemEnd = {
  readonly outcome: Outcome;
  /** A clause. */
  readonly reason: string;
  /** Who did it. */
  readonly by: "nixdeploy" | "switch-to-configuration";
};

export type SwitchFacts = {
  /** Of the new system's `test`; null: it was not heard of. */
  readonly code: number | null;
  /** Of the old system's `test` on the way back; null when there was none. */
  readonly back: number | null;
  /** Somebody came back in over a new connection. */
  readonly isConfirmed: boolean;
  readonly onUnitFailure: "rollback" | "keep";
  readonly windowSeconds: number;
};

const LIVE = 0;
const UNITS_FAILED = 4;
const LOCK_HELD = 11;
const TIMED_OUT = 124;

export function judgeSwitch(facts: SwitchFacts): SystemEnd {
  const { code, back, isConfirmed, onUnitFailure } = facts;
  const by = "switch-to-configuration";
  if (code === LOCK_HELD) return { by, outcome: "failed", reason: "another activation is running there (code 11)" };
  if (isConfirmed && code === LIVE) return { by, outcome: "succeeded", reason: "it is live" };
  if (isConfirmed && code === UNITS_FAILED && onUnitFailure === "keep") {
    return { by, outcome: "degraded", reason: "it is live, and some of its units failed (code 4)" };
  }
  const why = describeFault(facts);
  if (back === LIVE) return { by, outcome: "rolled-back", reason: why };
  if (back === UNITS_FAILED) {
    return { by, outcome: "rolled-back", reason: `${why}; some units of the old system fail now (code 4)` };
  }
  const end = back === null ? "was not heard of" : `ended with code ${back}`;
  return { by, outcome: "degraded", reason: `${why}; the way back ${end}` };
}

function describeFault({ code, windowSeconds }: SwitchFacts): string {
  const program = "switch-to-configuration test";
  if (code === null) return `${program} was not heard of any more`;
  if (code === LIVE) return `no new connection by ssh was possible within ${windowSeconds} s`;
  if (code === UNITS_FAILED) return `some of its units failed (${program} ended with code 4)`;
  if (code === TIMED_OUT) return `${program} took too long`;
  if (code === 100) return `it needs a reboot to take over (${program} ended with code 100)`;
  return `${program} ended with code ${code}`;
}
