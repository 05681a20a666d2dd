/** Workspaces, their caches, and the coordinator's own settings. */
import type { Selectable } from "kysely";
import type { CacheName, WorkspaceName } from "../../names.ts";
import { compileOnce } from "./compiled.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type WorkspaceRow = Selectable<Schema["workspaces"]>;
export type CacheRow = Selectable<Schema["caches"]>;

const LIST_MAX = 1_000;

export async function loadSetting(database: CoordinatorDatabase, name: string): Promise<string | null> {
  const row = await database.selectFrom("settings").select("value").where("name", "=", name).executeTakeFirst();
  return row?.value ?? null;
}

/** Writes a setting unless it has a value already. */
export async function saveSettingOnce(database: CoordinatorDatabase, setting: Schema["settings"]): Promise<void> {
  await database
    .insertInto("settings")
    .values(setting)
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}

export async function saveSetting(database: CoordinatorDatabase, setting: Schema["settings"]): Promise<void> {
  await database
    .insertInto("settings")
    .values(setting)
    .onConflict((conflict) => conflict.column("name").doUpdateSet({ value: setting.value }))
    .execute();
}

export async function insertWorkspace(database: CoordinatorDatabase, row: WorkspaceRow): Promise<void> {
  await database.insertInto("workspaces").values(row).execute();
}

export async function findWorkspace(database: CoordinatorDatabase, name: WorkspaceName): Promise<WorkspaceRow | null> {
  const row = await database.selectFrom("workspaces").selectAll().where("name", "=", name).executeTakeFirst();
  return row ?? null;
}

const selectById = compileOnce((database, { id }: { readonly id: string }) =>
  database.selectFrom("workspaces").selectAll().where("id", "=", id),
);

export async function findWorkspaceById(database: CoordinatorDatabase, id: string): Promise<WorkspaceRow | null> {
  return (await selectById(database, { id }))[0] ?? null;
}

/** All workspaces by name. */
export async function listWorkspaces(database: CoordinatorDatabase): Promise<readonly WorkspaceRow[]> {
  return await database.selectFrom("workspaces").selectAll().orderBy("name").limit(LIST_MAX).execute();
}

export async function insertCache(database: CoordinatorDatabase, row: CacheRow): Promise<void> {
  await database.insertInto("caches").values(row).execute();
}

export async function findCache(database: CoordinatorDatabase, name: CacheName): Promise<CacheRow | null> {
  const row = await database.selectFrom("caches").selectAll().where("name", "=", name).executeTakeFirst();
  return row ?? null;
}

/** @throws when there is none */
export async function loadCacheById(database: CoordinatorDatabase, id: string): Promise<CacheRow> {
  return await database.selectFrom("caches").selectAll().where("id", "=", id).executeTakeFirstOrThrow();
}

/** The cache that a workspace's agents read. */
export async function loadWorkspaceCache(database: CoordinatorDatabase, workspaceId: string): Promise<CacheRow> {
  return await database
    .selectFrom("caches")
    .selectAll()
    .where("workspace_id", "=", workspaceId)
    .orderBy("created_ms")
    .limit(1)
    .executeTakeFirstOrThrow();
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
