/**
 * What of a closure has to go, and in which order. Pure.
 */
import type { NarHash } from "../../hash.ts";
import type { PathInfo } from "../../path-info.ts";
import { type StorePathHash, storePathHash } from "../../store-path.ts";

export type UploadPlan = {
  /** The whole closure, references first. */
  readonly closure: readonly PathInfo[];
  /** What the cache lacks of it, references first. */
  readonly missing: readonly PathInfo[];
};

export function planUpload(closure: readonly PathInfo[], missing: ReadonlySet<StorePathHash>): UploadPlan {
  return { closure, missing: closure.filter((info) => missing.has(storePathHash(info.storePath))) };
}

/**
 * One path for each NAR to send, the biggest first, so that no long one is left for the end.
 * Paths with the same contents share a NAR.
 */
export function planNars(missing: readonly PathInfo[]): PathInfo[] {
  const byNarHash = new Map<NarHash, PathInfo>();
  for (const info of missing) {
    if (!byNarHash.has(info.narHash)) byNarHash.set(info.narHash, info);
  }
  return [...byNarHash.values()].sort((left, right) => right.narSizeBytes - left.narSizeBytes);
}

/** `items` in their order, in slices of at most `sizeMax`. */
export function planBatches<T>(items: readonly T[], sizeMax: number): T[][] {
  const batches: T[][] = [];
  for (let start = 0; start < items.length; start += sizeMax) batches.push(items.slice(start, start + sizeMax));
  return batches;
}
