/**
 * Lets several loops wait until something changed, without polling and without queues: whoever changes shared state
 * says so, whoever waits looks again. Versions make sure that no change is missed between looking and waiting.
 */

export type ChangeSignal = {
  /** Grows with every change. Read it before you look at the state. */
  readonly version: number;
  /** Wakes everybody who waits. */
  changed(): void;
  /** Returns at once when there was a change after `version`, else with the next one. @throws the signal's reason */
  waitAfter(version: number, signal: AbortSignal): Promise<void>;
};

export function createChangeSignal(): ChangeSignal {
  const waiting = new Set<() => void>();
  let current = 0;
  return {
    get version() {
      return current;
    },
    changed() {
      current += 1;
      for (const wake of [...waiting]) wake();
    },
    waitAfter: (version, signal) =>
      new Promise((resolve, reject) => {
        const settle = (finish: () => void) => {
          waiting.delete(wake);
          signal.removeEventListener("abort", onAbort);
          finish();
        };
        const wake = () => settle(resolve);
        const onAbort = () => settle(() => reject(signal.reason));
        waiting.add(wake);
        signal.addEventListener("abort", onAbort, { once: true });
        if (signal.aborted) onAbort();
        else if (current !== version) wake();
      }),
  };
}
