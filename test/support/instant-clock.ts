/**
 * A clock whose time passes only by sleeping: a sleep lasts one turn of the event loop, and as long as it says on the clock.
 */
import type { Clock } from "../../src/runtime.ts";

export type InstantClock = Clock & {
  /** Durations of all sleeps so far, in their order. */
  readonly sleepsMs: number[];
};

export function createInstantClock(): InstantClock {
  const sleepsMs: number[] = [];
  const startMs = Date.UTC(2026, 0, 1);
  let elapsedMs = 0;
  return {
    sleepsMs,
    nowMs: () => startMs + elapsedMs,
    monotonicMs: () => elapsedMs,
    async sleep(durationMs, signal) {
      signal.throwIfAborted();
      sleepsMs.push(durationMs);
      elapsedMs += durationMs;
      await new Promise<void>((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
    },
  };
}
