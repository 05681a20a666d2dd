/**
 * Workspaces, and the coordinator's own settings. A workspace that is being removed (`removals.ts`) is found by nothing
 * in here.
 */
import type { Insertable, Selectable } from "kysely";
import type { WorkspaceName } from "../../names.ts";
import { compileOnce } from "./compiled.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type WorkspaceRow = Selectable<Schema["workspaces"]>;

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

export async function insertWorkspace(
  database: CoordinatorDatabase,
  row: Insertable<Schema["workspaces"]>,
): Promise<void> {
  await database.insertInto("workspaces").values(row).execute();
}

export async function findWorkspace(database: CoordinatorDatabase, name: WorkspaceName): Promise<WorkspaceRow | null> {
  const row = await database
    .selectFrom("workspaces")
    .selectAll()
    .where("name", "=", name)
    .where("deleted_ms", "is", null)
    .executeTakeFirst();
  return row ?? null;
}

const selectById = compileOnce((database, { id }: { readonly id: string }) =>
  database.selectFrom("workspaces").selectAll().where("id", "=", id).where("deleted_ms", "is", null),
);

export async function findWorkspaceById(database: CoordinatorDatabase, id: string): Promise<WorkspaceRow | null> {
  return (await selectById(database, { id }))[0] ?? null;
}

/** All workspaces by name. */
export async function listWorkspaces(database: CoordinatorDatabase): Promise<readonly WorkspaceRow[]> {
  return await database
    .selectFrom("workspaces")
    .selectAll()
    .where("deleted_ms", "is", null)
    .orderBy("name")
    .limit(LIST_MAX)
    .execute();
}

/** Whether there is any, those that are being removed included. */
export async function hasWorkspace(database: CoordinatorDatabase): Promise<boolean> {
  return (await database.selectFrom("workspaces").select("id").limit(1).executeTakeFirst()) !== undefined;
}

export async function saveWorkspace(
  database: CoordinatorDatabase,
  id: string,
  change: Partial<Pick<WorkspaceRow, "name" | "settings">>,
): Promise<void> {
  await database.updateTable("workspaces").set(change).where("id", "=", id).execute();
}

export async function countWorkspaceAgents(database: CoordinatorDatabase, workspaceId: string): Promise<number> {
  return await countOf(database, "agents", workspaceId);
}

export async function countWorkspaceDeployments(database: CoordinatorDatabase, workspaceId: string): Promise<number> {
  return await countOf(database, "deployments", workspaceId);
}

async function countOf(
  database: CoordinatorDatabase,
  table: "agents" | "deployments",
  workspaceId: string,
): Promise<number> {
  const row = await database
    .selectFrom(table)
    .select((expression) => expression.fn.countAll<number>().as("count"))
    .where("workspace_id", "=", workspaceId)
    .executeTakeFirstOrThrow();
  return row.count;
}
