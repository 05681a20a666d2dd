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

const BY = "switch-to-configuration";
const LIVE = 0;
const UNITS_FAILED = 4;
const LOCK_HELD = 11;
const TIMED_OUT = 124;

export type JudgedSwitch = {
  readonly end: SystemEnd;
  /** It may become the default. */
  readonly isLive: boolean;
};

/** What became of making it live. */
export function judgeSwitch(facts: SwitchFacts): JudgedSwitch {
  const { code, back, isConfirmed, onUnitFailure } = facts;
  if (code === LOCK_HELD) {
    return {
      isLive: false,
      end: { by: BY, outcome: "failed", reason: "another activation is running there (code 11)" },
    };
  }
  if (isConfirmed && code === LIVE) {
    return { isLive: true, end: { by: BY, outcome: "succeeded", reason: "it is live" } };
  }
  if (isConfirmed && code === UNITS_FAILED && onUnitFailure === "keep") {
    const reason = "it is live, and some of its units failed (code 4)";
    return { isLive: true, end: { by: BY, outcome: "degraded", reason } };
  }
  return { isLive: false, end: judgeWayBack(describeFault(facts), back) };
}

export type CommitFacts = {
  /** Of setting the profile and the new system's `boot`; null: it was not heard of. */
  readonly code: number | null;
  /** Of putting both back, and of the old system's `test` where the new one was live; null when there was none. */
  readonly back: number | null;
  readonly isLive: boolean;
};

/** What became of making it the default. */
export function judgeCommit({ code, back, isLive }: CommitFacts): SystemEnd {
  if (code === 0) {
    return { by: BY, outcome: "succeeded", reason: isLive ? "it is live" : "it takes effect at the next reboot" };
  }
  const what = code === null ? "was not heard of any more" : `ended with code ${code}`;
  return judgeWayBack(`making it the default ${what}`, back);
}

/** What became of it all. */
export type PlainFacts = Pick<SwitchFacts, "code" | "back" | "isConfirmed"> & {
  /** Of making it the default; null when it did not come to that. */
  readonly commit: number | null;
  /** What runs, where the machine was booted anew before the end was heard; null: it was not. */
  readonly rebootedInto: string | null;
};

export function judgePlain(
  facts: PlainFacts,
  wish: Pick<SwitchFacts, "onUnitFailure" | "windowSeconds"> & {
    readonly method: "switch" | "test" | "boot";
    readonly storePath: string;
  },
): SystemEnd {
  const { code, back, commit, isConfirmed, rebootedInto } = facts;
  if (rebootedInto !== null) {
    const outcome = rebootedInto === wish.storePath || wish.method === "boot" ? "degraded" : "rolled-back";
    return { by: BY, outcome, reason: `the machine was booted anew meanwhile; it runs ${rebootedInto}` };
  }
  if (wish.method === "boot") return judgeCommit({ code: commit, back, isLive: false });
  const { end, isLive } = judgeSwitch({ code, back, isConfirmed, ...wish });
  if (!isLive || wish.method === "test") return end;
  const committed = judgeCommit({ code: commit, back, isLive: true });
  return committed.outcome === "succeeded" ? end : committed;
}

function judgeWayBack(why: string, back: number | null): SystemEnd {
  if (back === LIVE) return { by: BY, outcome: "rolled-back", reason: why };
  if (back === UNITS_FAILED) {
    return { by: BY, outcome: "rolled-back", reason: `${why}; some units of the old system fail now (code 4)` };
  }
  const end = back === null ? "was not heard of" : `ended with code ${back}`;
  return { by: BY, outcome: "degraded", reason: `${why}; the way back ${end}` };
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
