/**
 * Work that is due at times which stand in the database: one timer for the next of them, however many there are. It is
 * done once at the start (what fell due while the coordinator was away), whenever a topic of the bus says that the next
 * time may be another, and then at that time. A wall clock that is set forward or back is noticed within six hours.
 */
import { describeError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Clock } from "../runtime.ts";
import type { Bus, Subscription } from "./bus.ts";

export type RecurringDeps = { readonly clock: Clock; readonly bus: Bus; readonly log: Logger };

export type RecurringWork = {
  /** For the log: "cannot <what>". */
  readonly what: string;
  /** Doing it once more than needed is harmless. */
  readonly topics: readonly string[];
  /** Does what is due. @returns when there is more, epoch milliseconds; null: not before a topic speaks */
  readonly run: (signal: AbortSignal) => Promise<number | null>;
};

const SLEEP_MAX_MS = 6 * 3_600_000;
/** Before what failed is tried again. */
const RETRY_MS = 60_000;

/** Begins at once; disposing waits for what is being done. */
export function startRecurring(deps: RecurringDeps, work: RecurringWork): AsyncDisposable {
  const stop = new AbortController();
  const subscription = deps.bus.subscribe(...work.topics);
  const running = loop(deps, { work, subscription, signal: stop.signal });
  return {
    async [Symbol.asyncDispose]() {
      stop.abort(new Error("the coordinator stops"));
      await running;
      subscription[Symbol.dispose]();
    },
  };
}

type Running = {
  readonly work: RecurringWork;
  readonly subscription: Subscription;
  readonly signal: AbortSignal;
};

async function loop(deps: RecurringDeps, { work, subscription, signal }: Running): Promise<void> {
  while (!signal.aborted) {
    const dueMs = await work.run(signal).catch((error: unknown) => {
      if (!signal.aborted) deps.log.error(`cannot ${work.what}`, { reason: describeError(error) });
      return deps.clock.nowMs() + RETRY_MS;
    });
    await waitUntil(deps.clock, { dueMs, subscription, signal });
  }
}

/** Never rejects: whoever waits looks at the signal next. */
async function waitUntil(
  clock: Clock,
  wait: { readonly dueMs: number | null; readonly subscription: Subscription; readonly signal: AbortSignal },
): Promise<void> {
  const { dueMs, subscription } = wait;
  const over = new AbortController();
  const signal = AbortSignal.any([wait.signal, over.signal]);
  const sleepMs = dueMs === null ? null : Math.min(SLEEP_MAX_MS, Math.max(0, dueMs - clock.nowMs()));
  const waits = [subscription.changed(signal), ...(sleepMs === null ? [] : [clock.sleep(sleepMs, signal)])];
  // The one that is not first is aborted, and its complaint of that is nobody's.
  const ended = waits.map((waiting) => waiting.catch(() => {}));
  await Promise.race(ended);
  over.abort(new Error("the wait is over"));
  await Promise.all(ended);
}
