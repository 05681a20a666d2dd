/**
 * How long to wait before the next try: full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").
 * Pure; who waits brings chance and clock.
 */

export type BackoffLimits = {
  /** Upper bound of the first wait; it doubles with each try. */
  readonly baseMs: number;
  /** No wait is longer. */
  readonly maxMs: number;
};

/**
 * @param attempt 0 for the first wait
 * @param fraction uniform in [0, 1)
 * @returns milliseconds in [0, min(maxMs, baseMs · 2^attempt))
 */
export function fullJitterMs(attempt: number, fraction: number, limits: BackoffLimits): number {
  return fraction * Math.min(limits.maxMs, limits.baseMs * 2 ** Math.min(attempt, 30));
}
