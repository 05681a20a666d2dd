/** What is wrong with the closures that were walked (`walk.ts`), in sentences. Pure. */
import type { StorePath } from "../../nix/store-path.ts";
import { formatCount } from "../../quantity.ts";
import { referencesOf, type Whereabouts } from "./walk.ts";

export type Walked = {
  readonly known: ReadonlyMap<StorePath, Whereabouts>;
  /** Names of the caches, for messages. */
  readonly own: readonly string[];
  readonly foreign: readonly string[];
};

/** One for each path that is not whole, and one for each cache that could not be asked about any of them. */
export function describeFaults(paths: Iterable<StorePath>, walked: Walked): readonly string[] {
  const faults: string[] = [];
  const unasked = new Map<string, { readonly why: string; readonly paths: StorePath[] }>();
  for (const storePath of new Set(paths)) {
    const gap = findGap(storePath, walked.known);
    if (gap === null) continue;
    const { found, ...where } = gap;
    if (found.kind !== "unknown") {
      faults.push(describeGap({ storePath, ...where }, found, walked));
      continue;
    }
    const { cache, why } = found;
    const others = unasked.get(cache)?.paths ?? [];
    unasked.set(cache, { why, paths: [...others, where.path] });
  }
  for (const [cache, { why, paths: missed }] of unasked) {
    const [first] = missed;
    const more =
      missed.length === 1 ? "" : `, one of ${formatCount(missed.length, "path")} that were not found before it`;
    faults.push(`the cache ${cache} could not be asked for ${first}${more}: ${why}`);
  }
  return faults;
}

/** Of what somebody runs: why its closure cannot be told, the end of a sentence; null when it can. */
export function describeUnknownClosure(storePath: StorePath, walked: Walked): string | null {
  const gap = findGap(storePath, walked.known);
  if (gap === null) return null;
  if (gap.referrer === null && gap.found.kind === "absent") {
    const isOne = walked.own.length + walked.foreign.length === 1;
    return `what runs there is ${isOne ? "not in the cache" : "in none of the caches"}: ${storePath}`;
  }
  return `what runs there is not known whole: ${describeFaults([storePath], walked)[0]}`;
}

type Gap = {
  readonly path: StorePath;
  /** What needs it; null when it is itself what is deployed. */
  readonly referrer: StorePath | null;
  readonly found: Exclude<Whereabouts, { kind: "own" | "foreign" }>;
};

/** The first path of a closure that is not there. */
function findGap(storePath: StorePath, known: Walked["known"]): Gap | null {
  const seen = new Map<StorePath, StorePath | null>([[storePath, null]]);
  // A map grows while it is walked, so this ends when nothing new is found.
  for (const [path, referrer] of seen) {
    const found = known.get(path) ?? { kind: "absent" };
    if (found.kind !== "own" && found.kind !== "foreign") return { path, referrer, found };
    for (const reference of referencesOf(found)) if (!seen.has(reference)) seen.set(reference, path);
  }
  return null;
}

function describeGap(
  { storePath, path, referrer }: { readonly storePath: StorePath } & Pick<Gap, "path" | "referrer">,
  found: Exclude<Gap["found"], { kind: "unknown" }>,
  { own, foreign }: Walked,
): string {
  const needs = referrer === null ? "" : `${storePath} is not whole: ${referrer} needs `;
  if (found.kind === "refused") {
    return `${needs}${path}${found.cache === "" ? "" : `, which the foreign cache ${found.cache} has`}: ${found.why}`;
  }
  const names = [...own, ...foreign].join(", ");
  const isOne = own.length + foreign.length === 1;
  if (referrer !== null) return `${needs}${path}, which is in none of the caches ${names}`;
  return `${path} is ${isOne ? "not in the cache" : "in none of the caches"} ${names}: push it first`;
}
