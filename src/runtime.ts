/**
 * Time and chance, as parameters: the only file that reads the clock, sets timers or draws random numbers.
 * Everything that depends on either takes a `Clock` or a `Random`, so that tests decide what they say.
 */
export type Clock = {
  /** Wall clock, milliseconds since the epoch, UTC. For what is stored and shown. */
  nowMs(): number;
  /** Monotonic milliseconds. For durations and deadlines. */
  monotonicMs(): number;
  /**
   * Resolves after `durationMs`.
   * @throws the signal's reason as soon as it is aborted
   */
  sleep(durationMs: number, signal: AbortSignal): Promise<void>;
};

export type Random = {
  /** `length` bytes fit for keys. */
  bytes(length: number): Uint8Array;
  /** Uniform in [0, 1). */
  fraction(): number;
};

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(durationMs, signal) {
    const untilMs = performance.now() + durationMs;
    for (let leftMs = durationMs; ; leftMs = untilMs - performance.now()) {
      await sleepOnce(Math.min(leftMs, TIMER_MAX_MS), signal);
      if (leftMs <= TIMER_MAX_MS) return;
    }
  },
};

/** A timer that is set for longer fires at once. */
const TIMER_MAX_MS = 2 ** 31 - 1;

function sleepOnce(durationMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, durationMs);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

export const systemRandom: Random = {
  // Not node:crypto's, which takes 50 times as long for a few bytes.
  bytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
  fraction: () => Math.random(),
};
