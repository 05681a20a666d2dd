/**
 * Deadlines of very many connections by one timer: thousands of sleepers, each with its promises and signals, would be the
 * larger part of what an idle agent costs. Kept in memory only.
 *
 * Nothing is sorted: when the timer goes off everything is looked at, which ten thousand deadlines bear, since they are
 * minutes and hours and most are cleared long before.
 */
import type { Clock } from "../../runtime.ts";

/** Told once, no earlier than it is due. One object is in one list of deadlines at a time. */
export type Deadline = {
  /** Monotonic milliseconds; set by {@link Deadlines.set}. */
  dueMs: number;
  onLate(): void;
};

export type Deadlines = AsyncDisposable & {
  /** Due that much later; a deadline that is set already is moved. */
  set(deadline: Deadline, afterMs: number): void;
  clear(deadline: Deadline): void;
};

export function createDeadlines(clock: Clock): Deadlines {
  const pending = new Set<Deadline>();
  let timer: { readonly dueMs: number; readonly stop: AbortController } | null = null;
  let watching: Promise<void> = Promise.resolve();

  const arm = (dueMs: number) => {
    timer?.stop.abort();
    const stop = new AbortController();
    timer = { dueMs, stop };
    // A sleep ends early only by being stopped.
    watching = clock.sleep(Math.max(0, dueMs - clock.monotonicMs()), stop.signal).then(look, () => {});
  };
  const look = () => {
    timer = null;
    const nowMs = clock.monotonicMs();
    const due = [...pending].filter(({ dueMs }) => dueMs <= nowMs);
    for (const deadline of due) pending.delete(deadline);
    for (const deadline of due) deadline.onLate();
    let next = Number.POSITIVE_INFINITY;
    for (const { dueMs } of pending) next = Math.min(next, dueMs);
    if (next < Number.POSITIVE_INFINITY) arm(next);
  };
  return {
    set(deadline, afterMs) {
      deadline.dueMs = clock.monotonicMs() + afterMs;
      pending.add(deadline);
      if (timer === null || deadline.dueMs < timer.dueMs) arm(deadline.dueMs);
    },
    clear(deadline) {
      pending.delete(deadline);
      if (pending.size > 0) return;
      timer?.stop.abort();
      timer = null;
    },
    async [Symbol.asyncDispose]() {
      pending.clear();
      timer?.stop.abort();
      await watching;
    },
  };
}
