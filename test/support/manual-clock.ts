/**
 * A clock that stands still until a test moves it. Sleepers wake in the order of their deadlines, each at its own time.
 */
import type { Clock } from "../../src/runtime.ts";

export type ManualClock = Clock & {
  /** Moves the time forward, waking whoever is due on the way, and lets them work before it returns. */
  advance(durationMs: number): Promise<void>;
  /** How many sleep now. */
  readonly sleepers: number;
};

type Sleeper = { readonly dueMs: number; readonly wake: () => void };

export type ManualClockOptions = {
  readonly startMs?: number;
  /** Of the event loop, for whoever was woken: enough to go to sleep again. */
  readonly turns?: number;
};

export function createManualClock({
  startMs = Date.UTC(2026, 0, 1),
  turns = 10,
}: ManualClockOptions = {}): ManualClock {
  const sleepers = new Set<Sleeper>();
  let elapsedMs = 0;
  const nextDue = (untilMs: number) =>
    [...sleepers].filter(({ dueMs }) => dueMs <= untilMs).sort((a, b) => a.dueMs - b.dueMs)[0];
  return {
    nowMs: () => Math.floor(startMs + elapsedMs),
    monotonicMs: () => elapsedMs,
    get sleepers() {
      return sleepers.size;
    },
    sleep(durationMs, signal) {
      if (signal.aborted) return Promise.reject(signal.reason);
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const onAbort = () => reject(signal.reason);
      const sleeper: Sleeper = { dueMs: elapsedMs + durationMs, wake: resolve };
      sleepers.add(sleeper);
      signal.addEventListener("abort", onAbort, { once: true });
      return promise.finally(() => {
        sleepers.delete(sleeper);
        signal.removeEventListener("abort", onAbort);
      });
    },
    async advance(durationMs) {
      const untilMs = elapsedMs + durationMs;
      await letOthersWork(turns);
      for (let due = nextDue(untilMs); due !== undefined; due = nextDue(untilMs)) {
        elapsedMs = Math.max(elapsedMs, due.dueMs);
        sleepers.delete(due);
        due.wake();
        await letOthersWork(turns);
      }
      elapsedMs = untilMs;
    },
  };
}

async function letOthersWork(turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
}
