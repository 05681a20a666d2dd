/**
 * When a webhook tries again, and when it gives up. Pure.
 *
 * A failure is the receiver's, not one delivery's: there is one wait for the whole webhook, so that a receiver that is away
 * is asked once in a while, however much waits for it. What has waited for 24 h, counted from when it happened or from when
 * the receiver began to fail, whichever is later, is given up at the next failure.
 */
import { type BackoffLimits, fullJitterMs } from "../../backoff.ts";

export const WEBHOOK_BACKOFF: BackoffLimits = { baseMs: 5_000, maxMs: 3_600_000 };
/** Full jitter may draw no wait at all. */
const WAIT_MIN_MS = 1_000;
export const GIVE_UP_AFTER_MS = 24 * 3_600_000;

/** What is remembered between tries. */
export type Trouble = {
  /** Failed tries since the last that got through. */
  readonly failures: number;
  readonly failing_since_ms: number | null;
  readonly next_attempt_ms: number;
};

export const NO_TROUBLE: Trouble = { failures: 0, failing_since_ms: null, next_attempt_ms: 0 };

/** After one more failure. @param fraction uniform in [0, 1) */
export function planNextAttempt(trouble: Trouble, at: { readonly nowMs: number; readonly fraction: number }): Trouble {
  const waitMs = Math.max(WAIT_MIN_MS, fullJitterMs(trouble.failures, at.fraction, WEBHOOK_BACKOFF));
  return {
    failures: trouble.failures + 1,
    failing_since_ms: trouble.failing_since_ms ?? at.nowMs,
    next_attempt_ms: Math.ceil(at.nowMs + waitMs),
  };
}

/** @param newestMs when the newest of the changes in a delivery happened */
export function isTooLate(
  { failing_since_ms }: Pick<Trouble, "failing_since_ms">,
  { newestMs, nowMs }: { readonly newestMs: number; readonly nowMs: number },
): boolean {
  return failing_since_ms !== null && Math.max(newestMs, failing_since_ms) + GIVE_UP_AFTER_MS <= nowMs;
}
