/**
 * Chance that repeats itself: the same seed gives the same draws (mulberry32). Whoever draws gets a stream of its own
 * (`fork`), so that one draw more in one place changes nothing elsewhere. Not fit for keys outside of tests.
 */
import type { Random } from "../../src/runtime.ts";

export type SeededRandom = Random & {
  /** An independent stream; the same name gives the same one. */
  fork(name: string): SeededRandom;
  /** Of [0, max). */
  below(max: number): number;
  /** True that often. */
  chance(probability: number): boolean;
  /** @throws Error when there is nothing to choose from */
  pick<Item>(items: readonly Item[]): Item;
  /** Milliseconds between the two, small ones more often. */
  durationMs(minMs: number, maxMs: number): number;
};

export function createSeededRandom(seed: number): SeededRandom {
  let state = seed >>> 0;
  const fraction = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (max: number) => Math.floor(fraction() * max);
  return {
    fraction,
    below,
    bytes: (length) => Uint8Array.from({ length }, () => below(256)),
    fork: (name) => createSeededRandom(Bun.hash.xxHash32(name, seed)),
    chance: (probability) => fraction() < probability,
    pick(items) {
      const item = items[below(items.length)];
      if (item === undefined) throw new Error("there is nothing to choose from");
      return item;
    },
    durationMs: (minMs, maxMs) => Math.round(minMs * (maxMs / minMs) ** fraction()),
  };
}
