/**
 * Whether what is to be deployed is there: in the workspace's own caches, of which each is whole by itself
 * (`cache/publish.ts`), or for what they lack in its foreign caches. Those are asked at once, each path under the keys
 * that the cache was added with; whether a device trusts those is its own business, which its agent says.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { type StorePath, storePathBaseName, storePathHash } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import type { KeyedLock } from "../cache/keyed-lock.ts";
import { type CacheRow, listForeignCaches, listWorkspaceCaches } from "../database/caches.ts";
import { createPathGraph } from "../database/path-graph.ts";
import { findMissingPaths } from "../database/paths.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { ForeignNarInfos, ForeignPath } from "./foreign-narinfos.ts";
import { describeFaults, type Walked } from "./judge.ts";
import { walkClosures } from "./walk.ts";

export type CompletenessDeps = {
  readonly database: CoordinatorDatabase;
  readonly foreignNarInfos: ForeignNarInfos;
  /** By workspace: one check with foreign caches at a time, so that the next one profits from what this one learns. */
  readonly foreignLock: KeyedLock;
  readonly clock: Clock;
};

export type Located = Walked & {
  readonly cacheIds: readonly string[];
  /** What foreign caches have of it, by base names. */
  readonly foreignPaths: ReadonlyMap<string, ForeignPath>;
};

export type CheckedClosures = {
  /** Nothing is missing when there is none. */
  readonly faults: readonly string[];
  /** Uncompressed bytes of each path's closure; a path that is nowhere is left out. */
  readonly sizes: ReadonlyMap<StorePath, number>;
  readonly located: Located;
};

/** Below the time after which our own clients take a coordinator that says nothing for dead. */
const FOREIGN_DEADLINE_MS = 20_000;
/** Store paths that are remembered from one closure to the next. */
const MEASURED_MAX = 200_000;

export async function checkClosures(
  deps: CompletenessDeps,
  asked: { readonly workspaceId: string; readonly paths: ReadonlySet<StorePath | null> },
): Promise<CheckedClosures> {
  const { database, foreignLock } = deps;
  const { workspaceId } = asked;
  const paths = [...asked.paths].filter((path) => path !== null);
  const turn = () => foreignLock.take(workspaceId);
  const located = await locateClosures(deps, { workspaceId, paths, maxMs: FOREIGN_DEADLINE_MS, turn });
  return { faults: describeFaults(paths, located), sizes: await measureAll(database, paths, located), located };
}

/** Where these closures are, as far as it is found out in that time. @param asked.turn waited for before others are asked */
export async function locateClosures(
  { database, foreignNarInfos, clock }: Pick<CompletenessDeps, "database" | "foreignNarInfos" | "clock">,
  asked: {
    readonly workspaceId: string;
    readonly paths: readonly StorePath[];
    readonly maxMs: number;
    readonly turn?: () => Promise<Disposable>;
  },
): Promise<Located> {
  const caches = await listWorkspaceCaches(database, asked.workspaceId);
  const foreign = (await listForeignCaches(database, asked.workspaceId)).map((row) => ({
    name: row.name,
    ask: foreignNarInfos.of(row),
  }));
  const findOwn = (paths: readonly StorePath[]) => locateOwn(database, { caches, paths });
  const isAllOwn = foreign.length === 0 || (await findOwn(asked.paths)).size === new Set(asked.paths).size;
  using deadline = startDeadline(clock, asked.maxMs);
  using _turn = isAllOwn ? null : ((await asked.turn?.()) ?? null);
  const known = await walkClosures({ paths: asked.paths, findOwn, foreign, deadline: deadline.signal });
  const foreignPaths = new Map<string, ForeignPath>();
  for (const [path, found] of known)
    if (found.kind === "foreign") foreignPaths.set(storePathBaseName(path), found.path);
  const names = { own: caches.map(({ name }) => name), foreign: foreign.map(({ name }) => name) };
  return { known, ...names, cacheIds: caches.map(({ id }) => id), foreignPaths };
}

function startDeadline(clock: Clock, maxMs: number): Disposable & { readonly signal: AbortSignal } {
  const late = new AbortController();
  const over = new AbortController();
  const seconds = Math.round(maxMs / 1000);
  clock.sleep(maxMs, over.signal).then(
    () => late.abort(new Error(`${seconds} s were not enough to ask for everything; what was found is remembered`)),
    () => {
      // It was over in time.
    },
  );
  return { signal: late.signal, [Symbol.dispose]: () => over.abort() };
}

/** The first cache that has each path, by the cache's id. */
async function locateOwn(
  database: CoordinatorDatabase,
  of: { readonly caches: readonly CacheRow[]; readonly paths: readonly StorePath[] },
): Promise<ReadonlyMap<StorePath, string>> {
  const located = new Map<StorePath, string>();
  let open = of.paths;
  for (const { id: cacheId } of of.caches) {
    if (open.length === 0) break;
    const missing = new Set(await findMissingPaths(database, { cacheId, hashParts: open.map(storePathHash) }));
    for (const path of open) if (!missing.has(storePathHash(path))) located.set(path, cacheId);
    open = open.filter((path) => missing.has(storePathHash(path)));
  }
  return located;
}

/** What two of them share is read once. */
async function measureAll(
  database: CoordinatorDatabase,
  paths: readonly StorePath[],
  { cacheIds, foreignPaths: foreign }: Located,
): Promise<ReadonlyMap<StorePath, number>> {
  const sizes = new Map<StorePath, number>();
  const open = () => createPathGraph(database, { cacheIds, foreign });
  let graph = open();
  for (const path of new Set(paths)) {
    if (!(await graph.load([path], MEASURED_MAX))) {
      graph = open();
      await graph.load([path], Number.POSITIVE_INFINITY);
    }
    const closure = graph.closureOf(path);
    if (closure !== null)
      sizes.set(
        path,
        closure.reduce((sum, { narSizeBytes }) => sum + narSizeBytes, 0),
      );
    await nextTurn();
  }
  return sizes;
}
