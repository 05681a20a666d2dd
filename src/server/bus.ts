/**
 * Live fan-out: says that something about a topic changed, not what. Whoever listens reads the database again, so a
 * missed or doubled signal costs a query and never a fact. In-process now.
 */

export type Bus = {
  publish(topic: string): void;
  /** One subscription may listen to several topics; it does not say which of them changed. */
  subscribe(...topics: readonly string[]): Subscription;
};

export type Subscription = Disposable & {
  /**
   * Resolves at the first signal since the previous call; at once when one came in between.
   * @throws the signal's reason when it is aborted
   */
  changed(signal: AbortSignal): Promise<void>;
};

type Listener = { pending: boolean; wake: (() => void) | null };

/** Listens to everything: woken at whatever is published. */
export const ANY_TOPIC = "*";

export function createBus(): Bus {
  const listeners = new Map<string, Set<Listener>>();
  return {
    publish(topic) {
      for (const name of [topic, ANY_TOPIC]) {
        for (const listener of listeners.get(name) ?? []) {
          listener.pending = true;
          listener.wake?.();
        }
      }
    },
    subscribe(...topics) {
      const listener: Listener = { pending: false, wake: null };
      for (const topic of topics) listeners.set(topic, (listeners.get(topic) ?? new Set<Listener>()).add(listener));
      return {
        changed: (signal) => nextSignal(listener, signal),
        [Symbol.dispose]() {
          for (const topic of topics) {
            const set = listeners.get(topic);
            set?.delete(listener);
            if (set?.size === 0) listeners.delete(topic);
          }
        },
      };
    },
  };
}

async function nextSignal(listener: Listener, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (!listener.pending) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = () => reject(signal.reason);
    listener.wake = resolve;
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await promise;
    } finally {
      listener.wake = null;
      signal.removeEventListener("abort", onAbort);
    }
  }
  listener.pending = false;
}
