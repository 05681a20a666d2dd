/**
 * Whether what is to be deployed is there: in the workspace's own caches, of which each is whole by itself
 * (`cache/publish.ts`), or for what they lack in its foreign caches. Those are asked at once, each path under the keys
 * that the cache was added with; whether a device trusts those is its own business, which its agent says.
 */
import { type StorePath, storePathHash } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import type { KeyedLock } from "../cache/keyed-lock.ts";
import { type CacheRow, listForeignCaches, listWorkspaceCaches } from "../database/caches.ts";
import { findMissingPaths, loadClosure } from "../database/paths.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { ForeignNarInfos } from "./foreign-narinfos.ts";
import { describeFaults, splitClosure, type Walked } from "./judge.ts";
import { walkClosures } from "./walk.ts";

export type CompletenessDeps = {
  readonly database: CoordinatorDatabase;
  readonly foreignNarInfos: ForeignNarInfos;
  /** By workspace: one check with foreign caches at a time, so that the next one profits from what this one learns. */
  readonly foreignLock: KeyedLock;
  readonly clock: Clock;
};

type InWorkspace = { readonly workspaceId: string; readonly paths: ReadonlySet<StorePath | null> };

export type CheckedClosures = {
  /** Nothing is missing when there is none. */
  readonly faults: readonly string[];
  /** Uncompressed bytes of each path's closure; a path that is nowhere is left out. */
  readonly sizes: ReadonlyMap<StorePath, number>;
};

/** Below the time after which our own clients take a coordinator that says nothing for dead. */
const FOREIGN_DEADLINE_MS = 20_000;

export async function checkClosures(deps: CompletenessDeps, asked: InWorkspace): Promise<CheckedClosures> {
  const { database } = deps;
  const paths = [...asked.paths].filter((path) => path !== null);
  const walked = await locate(deps, { workspaceId: asked.workspaceId, paths });
  const sizes = new Map<StorePath, number>();
  for (const path of paths) {
    const kind = walked.known.get(path)?.kind;
    if (kind === "own" || kind === "foreign") sizes.set(path, await measure(database, path, walked.known));
  }
  return { faults: describeFaults(paths, walked), sizes };
}

/** Of one path, when one of the workspace's own caches has it; else 0. */
export async function loadClosureSize(
  database: CoordinatorDatabase,
  { workspaceId, storePath }: { readonly workspaceId: string; readonly storePath: StorePath },
): Promise<number> {
  const caches = await listWorkspaceCaches(database, workspaceId);
  const cacheId = (await locateOwn(database, { caches, paths: [storePath] })).get(storePath);
  if (cacheId === undefined) return 0;
  return await measure(database, storePath, new Map([[storePath, { kind: "own", cacheId }]]));
}

async function locate(
  deps: CompletenessDeps,
  asked: { readonly workspaceId: string; readonly paths: readonly StorePath[] },
): Promise<Walked> {
  const { database, foreignNarInfos } = deps;
  const caches = await listWorkspaceCaches(database, asked.workspaceId);
  const foreign = (await listForeignCaches(database, asked.workspaceId)).map((row) => ({
    name: row.name,
    ask: foreignNarInfos.of(row),
  }));
  const findOwn = (paths: readonly StorePath[]) => locateOwn(database, { caches, paths });
  const isAllOwn = foreign.length === 0 || (await findOwn(asked.paths)).size === new Set(asked.paths).size;
  using deadline = startDeadline(deps.clock);
  using _turn = isAllOwn ? null : await deps.foreignLock.take(asked.workspaceId);
  const known = await walkClosures({ paths: asked.paths, findOwn, foreign, deadline: deadline.signal });
  return { known, own: caches.map(({ name }) => name), foreign: foreign.map(({ name }) => name) };
}

function startDeadline(clock: Clock): Disposable & { readonly signal: AbortSignal } {
  const late = new AbortController();
  const over = new AbortController();
  const seconds = FOREIGN_DEADLINE_MS / 1000;
  clock.sleep(FOREIGN_DEADLINE_MS, over.signal).then(
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

async function measure(database: CoordinatorDatabase, storePath: StorePath, known: Walked["known"]): Promise<number> {
  const { foreignBytes, ownPaths } = splitClosure(storePath, known);
  const bytes = new Map<StorePath, number>();
  for (const cacheId of new Set(ownPaths.values())) {
    const hashParts = [...ownPaths].filter(([, of]) => of === cacheId).map(([path]) => storePathHash(path));
    for (const row of await loadClosure(database, { cacheId, hashParts }))
      bytes.set(row.store_path, row.nar_size_bytes);
  }
  return [...bytes.values()].reduce((sum, size) => sum + size, foreignBytes);
}
