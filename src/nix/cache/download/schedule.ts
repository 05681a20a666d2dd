/**
 * Which path is imported next: a path may be imported once its references are valid, and of those that may, the one
 * with the most work behind it goes first, so that no long chain is left for the end. Pure: no I/O, no clock.
 *
 * The work behind a path is its own NAR size plus that of the heaviest chain of paths that wait for it.
 */
import type { StorePath } from "../../store-path.ts";

export type ScheduledPath = {
  readonly storePath: StorePath;
  readonly narSizeBytes: number;
  readonly references: readonly StorePath[];
};

export type ImportSchedule<T extends ScheduledPath> = {
  /** The next path to begin with; null when all that is left waits for paths that are being imported, or nothing is. */
  next(): T | null;
  /** Reports a path that `next` gave as valid. */
  done(path: StorePath): void;
  /** Paths not yet done, begun ones included. */
  readonly left: number;
};

/** @param missing what has to be imported, each path after its references; references to others count as valid */
export function createImportSchedule<T extends ScheduledPath>(missing: readonly T[]): ImportSchedule<T> {
  const listed = new Set(missing.map((item) => item.storePath));
  const waitingFor = new Map<StorePath, number>();
  const referrers = new Map<StorePath, T[]>();
  for (const item of missing) {
    const open = item.references.filter((path) => path !== item.storePath && listed.has(path));
    waitingFor.set(item.storePath, open.length);
    for (const path of open) referrers.set(path, [...(referrers.get(path) ?? []), item]);
  }
  const weights = weigh(missing, referrers);
  const weightOf = (item: T) => weights.get(item.storePath) ?? 0;
  // Lightest first: the next one is taken from the end.
  const ready = missing.filter((item) => waitingFor.get(item.storePath) === 0);
  ready.sort((a, b) => weightOf(a) - weightOf(b));
  let left = missing.length;
  return {
    next: () => ready.pop() ?? null,
    done(path) {
      left -= 1;
      for (const referrer of referrers.get(path) ?? []) {
        const open = (waitingFor.get(referrer.storePath) ?? 1) - 1;
        waitingFor.set(referrer.storePath, open);
        if (open === 0) insertByWeight(ready, referrer, weightOf);
      }
    },
    get left() {
      return left;
    },
  };
}

function weigh<T extends ScheduledPath>(
  missing: readonly T[],
  referrers: ReadonlyMap<StorePath, readonly T[]>,
): ReadonlyMap<StorePath, number> {
  const weights = new Map<StorePath, number>();
  // References first, so backwards every referrer has its weight before what it refers to.
  for (const item of missing.toReversed()) {
    let behind = 0;
    for (const referrer of referrers.get(item.storePath) ?? []) {
      behind = Math.max(behind, weights.get(referrer.storePath) ?? 0);
    }
    weights.set(item.storePath, item.narSizeBytes + behind);
  }
  return weights;
}

function insertByWeight<T>(sorted: T[], item: T, weightOf: (item: T) => number): void {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const other = sorted[middle];
    if (other !== undefined && weightOf(other) < weightOf(item)) low = middle + 1;
    else high = middle;
  }
  sorted.splice(low, 0, item);
}
