/**
 * Whether what is to be deployed is there: in any of the workspace's own caches. A cache has a path only with all that it
 * refers to (`cache/publish.ts`), so one that has the path has its closure, and agents fetch it from there.
 */
import { type StorePath, storePathHash } from "../../nix/store-path.ts";
import { type CacheRow, listWorkspaceCaches } from "../database/caches.ts";
import { findMissingPaths, loadClosure } from "../database/paths.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

type InWorkspace = { readonly workspaceId: string; readonly paths: ReadonlySet<StorePath | null> };

/** @returns a fault for each path that no cache of the workspace has */
export async function describeAbsentPaths(
  database: CoordinatorDatabase,
  { workspaceId, paths }: InWorkspace,
): Promise<readonly string[]> {
  const caches = await listWorkspaceCaches(database, workspaceId);
  const located = await locatePaths(database, { caches, paths });
  const names = caches.map(({ name }) => name).join(", ");
  const where = caches.length === 1 ? `not in the cache ${names}` : `in none of the caches ${names}`;
  return [...paths]
    .filter((path) => path !== null && !located.has(path))
    .map((path) => `${path} is ${where}: push it first`);
}

/** Uncompressed bytes of each path's closure; a path that is nowhere is left out. */
export async function loadClosureSizes(
  database: CoordinatorDatabase,
  { workspaceId, paths }: InWorkspace,
): Promise<ReadonlyMap<StorePath, number>> {
  const caches = await listWorkspaceCaches(database, workspaceId);
  const sizes = new Map<StorePath, number>();
  for (const [path, cacheId] of await locatePaths(database, { caches, paths })) {
    const closure = await loadClosure(database, { cacheId, hashPart: storePathHash(path) });
    sizes.set(
      path,
      closure.reduce((sum, row) => sum + row.nar_size_bytes, 0),
    );
  }
  return sizes;
}

/** The same of one path; 0 when it is nowhere. */
export async function loadClosureSize(
  database: CoordinatorDatabase,
  { workspaceId, storePath }: { readonly workspaceId: string; readonly storePath: StorePath },
): Promise<number> {
  return (await loadClosureSizes(database, { workspaceId, paths: new Set([storePath]) })).get(storePath) ?? 0;
}

/** The first cache that has each path, by the cache's id. */
async function locatePaths(
  database: CoordinatorDatabase,
  of: { readonly caches: readonly CacheRow[]; readonly paths: ReadonlySet<StorePath | null> },
): Promise<ReadonlyMap<StorePath, string>> {
  const located = new Map<StorePath, string>();
  let open = [...of.paths].filter((path) => path !== null);
  for (const { id: cacheId } of of.caches) {
    const missing = new Set(await findMissingPaths(database, { cacheId, hashParts: open.map(storePathHash) }));
    for (const path of open) if (!missing.has(storePathHash(path))) located.set(path, cacheId);
    open = open.filter((path) => missing.has(storePathHash(path)));
  }
  return located;
}
