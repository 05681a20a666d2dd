/**
 * How long a download goes on without getting anywhere: waits with full jitter between tries, starts over with each
 * sign of progress, and says when the patience is used up. The one place that knows the numbers.
 */
import { fullJitterMs } from "../../../backoff.ts";
import type { Clock, Random } from "../../../runtime.ts";

/** A coordinator that is being upgraded or restored comes back within this; a transfer is not given up before. */
export const NO_PROGRESS_MAX_MS = 15 * 60_000;
/** How long a refused credential is tried again: the next contact with the coordinator brings a fresh one. */
export const DENIED_MAX_MS = 2 * 60_000;
/** How long a foreign cache is waited for, which others may stand in for. */
export const FOREIGN_AWAY_MAX_MS = 60_000;

const PAUSE = { baseMs: 500, maxMs: 15_000 } as const;

export type Patience = {
  /** Something arrived: everything starts over. */
  progressed(): void;
  /**
   * Waits before the next try.
   * @returns false, at once, when there was no progress for `maxMs` since the first wait
   * @throws the signal's reason
   */
  pause(): Promise<boolean>;
};

export type PatienceOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly maxMs?: number;
};

export function createPatience(options: PatienceOptions): Patience {
  const { clock, random, signal, maxMs = NO_PROGRESS_MAX_MS } = options;
  let stuckSinceMs: number | null = null;
  let attempt = 0;
  return {
    progressed() {
      stuckSinceMs = null;
      attempt = 0;
    },
    async pause() {
      const nowMs = clock.monotonicMs();
      stuckSinceMs ??= nowMs;
      if (nowMs - stuckSinceMs >= maxMs) return false;
      await clock.sleep(fullJitterMs(attempt, random.fraction(), PAUSE), signal);
      attempt += 1;
      return true;
    },
  };
}
