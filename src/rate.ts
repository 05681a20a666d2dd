/** How fast something goes, and how long it will still take, by what came of it lately. Pure but for the clock it is given. */
import type { Clock } from "./runtime.ts";

export type Rate = {
  /** More of it is done; negative when some must be done again. */
  add(amount: number): void;
  /** In a second, over the last while; null until there is something to go by. */
  perSecond(): number | null;
  /** Null as long as it cannot be told. */
  remainingMs(left: number): number | null;
};

/** Longer: a stall shows late. Shorter: the figure jumps. */
const WINDOW_MS = 10_000;
const SLOT_MS = 500;
/** By less than this nobody can tell. */
const SEEN_MIN_MS = 1_000;

export function createRate(clock: Clock): Rate {
  const startedMs = clock.monotonicMs();
  let slots: { readonly atMs: number; amount: number }[] = [];
  const perSecond = () => {
    const nowMs = clock.monotonicMs();
    slots = slots.filter(({ atMs }) => nowMs - atMs < WINDOW_MS);
    const seenMs = Math.min(WINDOW_MS, nowMs - startedMs);
    if (seenMs < SEEN_MIN_MS) return null;
    const amount = slots.reduce((total, slot) => total + slot.amount, 0);
    return Math.max(0, (amount * 1_000) / seenMs);
  };
  return {
    add(amount) {
      const nowMs = clock.monotonicMs();
      const last = slots.at(-1);
      if (last !== undefined && nowMs - last.atMs < SLOT_MS) last.amount += amount;
      else slots.push({ atMs: nowMs, amount });
    },
    perSecond,
    remainingMs(left) {
      const rate = perSecond();
      return rate === null || rate === 0 ? null : (left * 1_000) / rate;
    },
  };
}

/** `8 s`, `3 min`, `2 h 5 min`: no more exact than it is worth. */
export function formatRemaining(ms: number): string {
  const seconds = Math.ceil(ms / 1_000);
  if (seconds < 100) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
