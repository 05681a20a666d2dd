/**
 * Where each path of a closure comes from, when there are several caches. The first that has the path itself says all at
 * once (the plan call), and a cache of ours that has a path has its closure. What only a foreign cache has is followed
 * from narinfo to narinfo, as vanilla Nix does, and each path is asked of the caches in their order.
 *
 * A narinfo counts when a key of the cache that served it has signed it: keys of one cache say nothing about another's.
 * Nothing is downloaded here.
 */
import { NixdeployError } from "../../../errors.ts";
import type { NarInfo } from "../../narinfo.ts";
import type { StorePath } from "../../store-path.ts";
import type { ClosureSource } from "./nar-source.ts";
import { sorted, verifyClosure, verifyPath } from "./verify-closure.ts";

export type FoundPath = NarInfo & { readonly source: ClosureSource };

export type FindClosureOptions = {
  readonly storePath: StorePath;
  /** In the order in which they are asked. */
  readonly sources: readonly ClosureSource[];
  readonly signal: AbortSignal;
};

/** Narinfos asked for at once. */
const LOOKUPS_AT_ONCE = 16;
/** More than the largest system has; a cache that goes on for ever is stopped. */
const CLOSURE_PATHS_MAX = 250_000;

/**
 * The closure, each path after its references.
 * @throws NixdeployError("remote") when no cache has a path with a signature that counts, naming it and the first cause ·
 *   "unreachable" when one that may have it was away for too long · the signal's reason
 */
export async function findClosure(options: FindClosureOptions): Promise<readonly FoundPath[]> {
  const { storePath, sources, signal } = options;
  const troubles = createTroubles(signal);
  for (const source of sources) {
    const found = await troubles.orNull(source, () => planAt(source, storePath, signal));
    if (found !== null) return found;
  }
  if (sources.every(({ reader }) => reader.plan !== null))
    throw troubles.first ?? nowhere(options, { path: storePath, referrer: null });
  return await walk(options, troubles);
}

async function planAt(
  source: ClosureSource,
  storePath: StorePath,
  signal: AbortSignal,
): Promise<readonly FoundPath[] | null> {
  const narInfos = (await source.reader.plan?.(storePath, signal)) ?? null;
  if (narInfos === null) return null;
  const closure = verifyClosure({ ...verification(source), storePath, narInfos });
  return closure.map((info) => ({ ...info, source }));
}

/** In waves: what one wave refers to and is not known yet is the next. */
async function walk(options: FindClosureOptions, troubles: Troubles): Promise<readonly FoundPath[]> {
  const { storePath, sources, signal } = options;
  const found = new Map<StorePath, FoundPath>();
  const lookUp = async (wanted: Wanted) => {
    const { path } = wanted;
    for (const source of sources) {
      const info = await troubles.orNull(source, () => findAt(source, path, signal));
      if (info !== null) return found.set(path, info);
    }
    throw troubles.first ?? nowhere(options, wanted);
  };
  for (let wave: readonly Wanted[] = [{ path: storePath, referrer: null }]; wave.length > 0; ) {
    if (found.size + wave.length > CLOSURE_PATHS_MAX) {
      throw new NixdeployError("remote", `cannot fetch ${storePath}: it needs more than ${CLOSURE_PATHS_MAX} paths`);
    }
    await forEachBounded(wave, lookUp);
    const next = new Map<StorePath, Wanted>();
    for (const { path: referrer } of wave) {
      for (const path of found.get(referrer)?.references ?? []) {
        if (!found.has(path)) next.set(path, { path, referrer });
      }
    }
    wave = [...next.values()];
  }
  return sorted([...found.values()]);
}

type Wanted = { readonly path: StorePath; readonly referrer: StorePath | null };

function nowhere({ storePath, sources }: FindClosureOptions, { path, referrer }: Wanted): NixdeployError {
  const names = sources.map(({ reader }) => reader.name).join(", ");
  const lacks = sources.length === 1 ? `the cache ${names} does not have` : `none of the caches ${names} has`;
  const what = referrer === null ? "it" : `${path}, which ${referrer} needs`;
  return new NixdeployError("remote", `cannot fetch ${storePath}: ${lacks} ${what}`, {
    hint: "Push the path again: nixdeploy push PATH uploads the whole closure.",
  });
}

async function findAt(source: ClosureSource, storePath: StorePath, signal: AbortSignal): Promise<FoundPath | null> {
  const info = await source.reader.findNarInfo(storePath, signal);
  if (info === null) return null;
  verifyPath(info, { ...verification(source), storePath });
  return { ...info, source };
}

function verification({ reader, verifier, trustedKeys }: ClosureSource) {
  return { verifier, trustedKeyNames: trustedKeys.map((key) => key.name), cacheUrl: reader.url };
}

type Troubles = {
  /** What went wrong first, for the case that nobody has a path: it may have been there. */
  readonly first: NixdeployError | null;
  /** Null when it fails, or has failed for good before: the next cache may have the path. */
  orNull<Value>(source: ClosureSource, ask: () => Promise<Value | null>): Promise<Value | null>;
};

function createTroubles(signal: AbortSignal): Troubles {
  let first: NixdeployError | null = null;
  /** Asked no more: each question would take as long again. */
  const away = new Set<ClosureSource>();
  return {
    get first() {
      return first;
    },
    async orNull(source, ask) {
      if (away.has(source)) return null;
      try {
        return await ask();
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof NixdeployError)) throw error;
        first ??= error;
        if (error.kind === "unreachable" || error.kind === "denied") away.add(source);
        return null;
      }
    },
  };
}

async function forEachBounded<Item>(items: readonly Item[], work: (item: Item) => Promise<unknown>): Promise<void> {
  const queue = items.values();
  const failed = new AbortController();
  const workers = Array.from({ length: Math.min(LOOKUPS_AT_ONCE, items.length) }, async () => {
    for (const item of queue) {
      if (failed.signal.aborted) return;
      await work(item);
    }
  });
  const results = await Promise.allSettled(
    workers.map((worker) =>
      worker.catch((error: unknown) => {
        failed.abort();
        throw error;
      }),
    ),
  );
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
