/**
 * A limit to silence: gives up what nothing was heard of for so long. Progress, however slow, starts the count over, so
 * that a line of a few bytes a second is slow and a peer that vanished is an error. Does not limit the whole.
 */
import type { Clock } from "../runtime.ts";

export type SilenceLimit = Disposable & {
  /** Aborted at the end of a silence that was too long, or with the signal that was given. */
  readonly signal: AbortSignal;
  /** Something moved. */
  progressed(): void;
  /** The same, but not a moment longer than the signal lasts. @throws its reason */
  waitFor<T>(work: Promise<T>): Promise<T>;
  /** The same chunks; only waiting for one counts, not what their reader does in between. @throws the reason */
  watch(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array>;
};

export type SilenceLimitOptions = {
  readonly clock: Clock;
  readonly silenceMaxMs: number;
  readonly reason: () => Error;
  /** Ends the waiting early. */
  readonly signal: AbortSignal;
};

/** Counts from now on. */
export function createSilenceLimit(options: SilenceLimitOptions): SilenceLimit {
  const { clock, silenceMaxMs, reason } = options;
  const silent = new AbortController();
  const over = new AbortController();
  let movedAtMs = clock.monotonicMs();
  /** While a reader is busy with what it got, nothing is waited for. */
  let isPaused = false;
  const progressed = () => {
    movedAtMs = clock.monotonicMs();
  };
  const signal = AbortSignal.any([options.signal, silent.signal]);
  const waitFor = <T>(work: Promise<T>) => unlessAborted(work, signal);
  const count = async () => {
    for (;;) {
      const leftMs = isPaused ? silenceMaxMs : movedAtMs + silenceMaxMs - clock.monotonicMs();
      if (leftMs <= 0) return silent.abort(reason());
      await clock.sleep(leftMs, over.signal);
    }
  };
  count().catch(() => {
    // It ends early only because nobody waits any more.
  });
  async function* watch(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const chunks = body[Symbol.asyncIterator]();
    try {
      for (;;) {
        isPaused = false;
        progressed();
        const next = await waitFor(chunks.next());
        isPaused = true;
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      // Not awaited: a read that was given up may never settle, and closing would wait for it.
      chunks.return?.().catch(() => {});
    }
  }
  return { signal, progressed, waitFor, watch, [Symbol.dispose]: () => over.abort() };
}

/** Without leaving anything behind on a signal that outlives many waits. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
