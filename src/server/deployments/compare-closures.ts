/**
 * Compares what agents run with what they are to run, for as many agents as there may be: the same pair once, and within
 * limits of time and memory, because everybody else waits while this thread works. What is beyond them is said.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { ClosureDiffDto } from "../../api/rollout-plans.ts";
import { type ClosureDiff, diffClosures } from "../../nix/closure-diff.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import { createPathGraph, type KnownPath, type PathGraph } from "../database/path-graph.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

export type Pair = { readonly from: StorePath; readonly to: StorePath };

/** Where the closures are. */
export type Located = {
  readonly cacheIds: readonly string[];
  /** By base names. */
  readonly foreignPaths: ReadonlyMap<string, KnownPath>;
  /** What runs somewhere and is not whole in any cache, and why it is not compared: the end of a sentence. */
  readonly gaps: ReadonlyMap<StorePath, string>;
};

/** By what {@link keyOf} says of the pair; a text says why it was not compared, the end of a sentence. */
export type Comparisons = ReadonlyMap<string, ClosureDiffDto | string>;

export type ComparisonLimits = {
  readonly durationMs: number;
  /** Store paths of all closures together. */
  readonly paths: number;
  /** Lines of one comparison, and of all. */
  readonly changesOfOne: number;
  readonly changes: number;
};

export const COMPARISON_LIMITS: ComparisonLimits = {
  durationMs: 5_000,
  paths: 200_000,
  changesOfOne: 1_000,
  changes: 20_000,
};

/** Pairs whose closures are read together. */
const PAIRS_AT_ONCE = 50;
const TOO_MANY = "there is too much to compare at once";

export function keyOf({ from, to }: Pair): string {
  return `${from} ${to}`;
}

export async function compareClosures(
  deps: { readonly database: CoordinatorDatabase; readonly clock: Pick<Clock, "monotonicMs"> },
  what: Located & { readonly pairs: readonly Pair[]; readonly limits?: ComparisonLimits },
): Promise<Comparisons> {
  const { database, clock } = deps;
  const limits = what.limits ?? COMPARISON_LIMITS;
  const untilMs = clock.monotonicMs() + limits.durationMs;
  const isLate = () => clock.monotonicMs() > untilMs;
  const graph = createPathGraph(database, { cacheIds: what.cacheIds, foreign: what.foreignPaths, isLate });
  const open = [...new Map(what.pairs.map((pair) => [keyOf(pair), pair])).values()];
  const comparisons = new Map<string, ClosureDiffDto | string>();
  let changesLeft = limits.changes;
  let isFull = false;
  for (let start = 0; start < open.length; start += PAIRS_AT_ONCE) {
    const batch = open.slice(start, start + PAIRS_AT_ONCE);
    const roots = batch.flatMap(({ from, to }) => [from, to]);
    isFull ||= isLate() || !(await graph.load(roots, limits.paths));
    for (const pair of batch) {
      const diff = isFull || isLate() ? TOO_MANY : compareOne(graph, pair, what.gaps);
      if (typeof diff === "string") {
        comparisons.set(keyOf(pair), diff);
        continue;
      }
      const dto = toDto(pair, diff, Math.min(limits.changesOfOne, changesLeft));
      changesLeft -= dto.changes.length;
      comparisons.set(keyOf(pair), dto);
      await nextTurn();
    }
  }
  return comparisons;
}

function compareOne(graph: PathGraph, { from, to }: Pair, gaps: Located["gaps"]): ClosureDiff | string {
  const gap = gaps.get(from);
  if (gap !== undefined) return gap;
  const [before, after] = [graph.closureOf(from), graph.closureOf(to)];
  if (before === null || after === null) return `it is in no cache any more: ${before === null ? from : to}`;
  return diffClosures(before, after);
}

function toDto(pair: Pair, diff: ClosureDiff, changesMax: number): ClosureDiffDto {
  const changes = diff.changes.slice(0, changesMax);
  return {
    ...pair,
    ...diff,
    changes: changes.map((change) => ({ ...change, before: [...change.before], after: [...change.after] })),
    changesOmitted: diff.changes.length - changes.length,
  };
}
