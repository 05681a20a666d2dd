/**
 * A clock whose time passes only while somebody sleeps: the one who is due first wakes next, a few turns of the event
 * loop later, and it is then as late as he asked for. Whoever is awake takes no time.
 */
import type { Clock } from "../../src/runtime.ts";

export type VirtualClock = Clock & {
  /** Sets the wall clock forward or back; nobody wakes of it. */
  jump(byMs: number): void;
};

type Sleeper = { readonly dueMs: number; readonly wake: () => void };

export function createVirtualClock(): VirtualClock {
  const sleepers = new Set<Sleeper>();
  let wallMs = Date.UTC(2026, 0, 1);
  let elapsedMs = 0;
  let isPassing = false;

  const passTime = async () => {
    if (isPassing) return;
    isPassing = true;
    while (sleepers.size > 0) {
      for (let turn = 0; turn < 3; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
      const [next] = [...sleepers].sort((a, b) => a.dueMs - b.dueMs);
      if (next === undefined) break;
      elapsedMs = Math.max(elapsedMs, next.dueMs);
      sleepers.delete(next);
      next.wake();
    }
    isPassing = false;
  };

  return {
    nowMs: () => Math.floor(wallMs + elapsedMs),
    monotonicMs: () => elapsedMs,
    jump: (byMs) => {
      wallMs += byMs;
    },
    async sleep(durationMs, signal) {
      signal.throwIfAborted();
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const sleeper: Sleeper = { dueMs: elapsedMs + durationMs, wake: resolve };
      const onAbort = () => {
        sleepers.delete(sleeper);
        reject(signal.reason);
      };
      sleepers.add(sleeper);
      signal.addEventListener("abort", onAbort, { once: true });
      void passTime();
      try {
        await promise;
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
  };
}
