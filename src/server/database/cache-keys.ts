/** What a cache's keys have said of their successors, and the secret of the last one that was replaced. */
import type { Selectable } from "kysely";
import { KEY_STATEMENTS_MAX } from "../../key-statement.ts";
import { compileOnce } from "./compiled.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type CacheKeyRow = Selectable<Schema["cache_keys"]>;

const selectKeys = compileOnce((database, { cacheId }: { readonly cacheId: string }) =>
  database
    .selectFrom("cache_keys")
    .selectAll()
    .where("cache_id", "=", cacheId)
    .orderBy("sequence")
    .limit(KEY_STATEMENTS_MAX),
);

/** In order; the whole chain, because an agent may have been away for all of it. */
export async function listCacheKeys(database: CoordinatorDatabase, cacheId: string): Promise<readonly CacheKeyRow[]> {
  return await selectKeys(database, { cacheId });
}

/** The key that was replaced last; null when none was. */
export async function findPreviousSecret(database: CoordinatorDatabase, cacheId: string): Promise<string | null> {
  const query = database.selectFrom("cache_keys").select("old_secret").where("cache_id", "=", cacheId);
  const row = await query.where("old_secret", "is not", null).executeTakeFirst();
  return row?.old_secret ?? null;
}

/** Those before it lose their secrets: they have signed all that they ever will. */
export async function insertCacheKey(database: CoordinatorDatabase, row: CacheKeyRow): Promise<void> {
  await database.updateTable("cache_keys").set({ old_secret: null }).where("cache_id", "=", row.cache_id).execute();
  await database.insertInto("cache_keys").values(row).execute();
}

export async function saveCacheSecret(
  database: CoordinatorDatabase,
  cache: { readonly id: string; readonly secretKey: string },
): Promise<void> {
  await database.updateTable("caches").set({ secret_key: cache.secretKey }).where("id", "=", cache.id).execute();
}
