/**
 * Binary caches of workspaces, ours and foreign ones. A cache that is being removed (`removals.ts`) is found by nothing
 * in here.
 */
import type { Insertable, Selectable } from "kysely";
import type { CacheName } from "../../names.ts";
import { compileOnce } from "./compiled.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type CacheRow = Selectable<Schema["caches"]>;
export type ForeignCacheRow = Selectable<Schema["foreign_caches"]>;

const LIST_MAX = 1_000;

export async function insertCache(database: CoordinatorDatabase, row: Insertable<Schema["caches"]>): Promise<void> {
  await database.insertInto("caches").values(row).execute();
}

export async function findCache(database: CoordinatorDatabase, name: CacheName): Promise<CacheRow | null> {
  const row = await database
    .selectFrom("caches")
    .selectAll()
    .where("name", "=", name)
    .where("deleted_ms", "is", null)
    .executeTakeFirst();
  return row ?? null;
}

/** Also one that is being removed. @throws when there is none */
export async function loadCacheById(database: CoordinatorDatabase, id: string): Promise<CacheRow> {
  return await database.selectFrom("caches").selectAll().where("id", "=", id).executeTakeFirstOrThrow();
}

/** Whether it has not been deleted meanwhile. */
export async function isCacheLive(database: CoordinatorDatabase, id: string): Promise<boolean> {
  const row = await database
    .selectFrom("caches")
    .select("id")
    .where("id", "=", id)
    .where("deleted_ms", "is", null)
    .executeTakeFirst();
  return row !== undefined;
}

const selectWorkspaceCaches = compileOnce((database, { workspaceId }: { readonly workspaceId: string }) =>
  database
    .selectFrom("caches")
    .selectAll()
    .where("workspace_id", "=", workspaceId)
    .where("deleted_ms", "is", null)
    .orderBy("is_default", "desc")
    .orderBy("created_ms")
    .orderBy("name")
    .limit(LIST_MAX),
);

/** The workspace's own caches in the order in which they are asked: the default first, then the oldest. */
export async function listWorkspaceCaches(
  database: CoordinatorDatabase,
  workspaceId: string,
): Promise<readonly CacheRow[]> {
  return await selectWorkspaceCaches(database, { workspaceId });
}

/** The cache that a workspace's agents and `push` use first. */
export async function loadWorkspaceCache(database: CoordinatorDatabase, workspaceId: string): Promise<CacheRow> {
  const [first] = await listWorkspaceCaches(database, workspaceId);
  if (first === undefined) throw new Error(`the workspace ${workspaceId} has no cache`);
  return first;
}

export async function setCachePublic(
  database: CoordinatorDatabase,
  change: { readonly cacheId: string; readonly isPublic: boolean },
): Promise<void> {
  await database
    .updateTable("caches")
    .set({ is_public: change.isPublic ? 1 : 0 })
    .where("id", "=", change.cacheId)
    .execute();
}

/** Inside a transaction: for a moment no cache of the workspace is its default. */
export async function setDefaultCache(
  transaction: CoordinatorDatabase,
  cache: Pick<CacheRow, "id" | "workspace_id">,
): Promise<void> {
  await transaction
    .updateTable("caches")
    .set({ is_default: 0 })
    .where("workspace_id", "=", cache.workspace_id)
    .where("is_default", "=", 1)
    .execute();
  await transaction.updateTable("caches").set({ is_default: 1 }).where("id", "=", cache.id).execute();
}

export async function countPaths(database: CoordinatorDatabase, cacheId: string): Promise<number> {
  const row = await database
    .selectFrom("paths")
    .select((expression) => expression.fn.countAll<number>().as("count"))
    .where("cache_id", "=", cacheId)
    .executeTakeFirstOrThrow();
  return row.count;
}

const selectForeignCaches = compileOnce((database, { workspaceId }: { readonly workspaceId: string }) =>
  database
    .selectFrom("foreign_caches")
    .selectAll()
    .where("workspace_id", "=", workspaceId)
    .orderBy("created_ms")
    .orderBy("name")
    .limit(LIST_MAX),
);

/** In the order in which they are asked: the oldest first. */
export async function listForeignCaches(
  database: CoordinatorDatabase,
  workspaceId: string,
): Promise<readonly ForeignCacheRow[]> {
  return await selectForeignCaches(database, { workspaceId });
}

/** One of the same name is changed, and keeps its place. */
export async function saveForeignCache(database: CoordinatorDatabase, row: ForeignCacheRow): Promise<void> {
  const { url, public_keys, changed_ms } = row;
  await database
    .insertInto("foreign_caches")
    .values(row)
    .onConflict((conflict) => conflict.columns(["workspace_id", "name"]).doUpdateSet({ url, public_keys, changed_ms }))
    .execute();
}

/** @returns whether there was one */
export async function removeForeignCache(
  database: CoordinatorDatabase,
  cache: Pick<ForeignCacheRow, "workspace_id" | "name">,
): Promise<boolean> {
  const result = await database
    .deleteFrom("foreign_caches")
    .where("workspace_id", "=", cache.workspace_id)
    .where("name", "=", cache.name)
    .executeTakeFirst();
  return result.numDeletedRows > 0n;
}
