/** One holder at a time for each key, first come first served. In this process only. */

export type KeyedLock = {
  /** Waits for its turn; disposing ends it. */
  take(key: string): Promise<Disposable>;
};

export function createKeyedLock(): KeyedLock {
  /** When the last one in the row is done. */
  const tails = new Map<string, Promise<void>>();
  return {
    async take(key) {
      const before = tails.get(key);
      const { promise, resolve } = Promise.withResolvers<void>();
      tails.set(key, promise);
      await before;
      return {
        [Symbol.dispose]() {
          if (tails.get(key) === promise) tails.delete(key);
          resolve();
        },
      };
    },
  };
}
