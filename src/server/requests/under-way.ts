/** How many requests are being answered, for whoever wants to stop when none is. */
export type UnderWay = {
  /** @returns what to call when it is over */
  begin(): () => void;
  /** Resolves when none is under way. */
  idle(): Promise<void>;
};

export function createUnderWay(): UnderWay {
  let count = 0;
  const waiting = new Set<() => void>();
  return {
    begin() {
      count += 1;
      return () => {
        count -= 1;
        if (count > 0) return;
        for (const wake of waiting) wake();
        waiting.clear();
      };
    },
    async idle() {
      if (count > 0) await new Promise<void>((resolve) => waiting.add(resolve));
    },
  };
}
