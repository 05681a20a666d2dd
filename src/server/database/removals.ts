/**
 * Removing workspaces and caches: marking one, after which nobody finds it any more, and then taking away what belonged
 * to it in steps of bounded size, so that a database with gigabytes of logs stands still for nobody. When which step is
 * made is decided in `workspaces/removals.ts`.
 *
 * Every table that refers to a workspace or a cache, directly or through others, has its step here (a test compares this
 * with the database's own foreign keys).
 */
import { type RawBuilder, sql } from "kysely";
import type { FileHash } from "../../nix/hash.ts";
import type { CoordinatorDatabase } from "./schema.ts";

const ROWS_PER_STEP = 500;
/** A chunk of a log may have a megabyte. */
const LOG_CHUNKS_PER_STEP = 100;

/** Inside a transaction. Its tokens end, its agents' keys are unknown again, and its name and its caches' are free. */
export async function markWorkspaceDeleted(
  transaction: CoordinatorDatabase,
  workspace: { readonly id: string; readonly atMs: number },
): Promise<void> {
  const { id, atMs } = workspace;
  await transaction.updateTable("workspaces").set({ deleted_ms: atMs }).where("id", "=", id).execute();
  await transaction
    .updateTable("caches")
    .set({ deleted_ms: atMs, is_default: 0 })
    .where("workspace_id", "=", id)
    .where("deleted_ms", "is", null)
    .execute();
  await transaction
    .updateTable("tokens")
    .set({ revoked_ms: atMs })
    .where("workspace_id", "=", id)
    .where("revoked_ms", "is", null)
    .execute();
  // No key is as short as an id, and no two agents have the same: the device may be admitted elsewhere at once.
  await sql`update agents set public_key = cast(id as blob) where workspace_id = ${id}`.execute(transaction);
}

export async function markCacheDeleted(
  transaction: CoordinatorDatabase,
  cache: { readonly id: string; readonly atMs: number },
): Promise<void> {
  await transaction
    .updateTable("caches")
    .set({ deleted_ms: cache.atMs, is_default: 0 })
    .where("id", "=", cache.id)
    .execute();
}

/** The cache that was deleted first; null when there is none to be removed. */
export async function findDeletedCache(database: CoordinatorDatabase): Promise<string | null> {
  const row = await database
    .selectFrom("caches")
    .select("id")
    .where("deleted_ms", "is not", null)
    .orderBy("deleted_ms")
    .limit(1)
    .executeTakeFirst();
  return row?.id ?? null;
}

export async function findDeletedWorkspace(database: CoordinatorDatabase): Promise<string | null> {
  const row = await database
    .selectFrom("workspaces")
    .select("id")
    .where("deleted_ms", "is not", null)
    .orderBy("deleted_ms")
    .limit(1)
    .executeTakeFirst();
  return row?.id ?? null;
}

const ofRollouts = (id: string) => sql`rollout_id in (select id from rollouts where workspace_id = ${id})`;
const ofWorkspace = (id: string) => sql`workspace_id = ${id}`;

type Step = {
  readonly table: string;
  readonly where: (workspaceId: string) => RawBuilder<unknown>;
  readonly rows?: number;
};

/** Each before what it refers to. Its caches are gone by then. */
const WORKSPACE_STEPS: readonly Step[] = [
  { table: "log_chunks", where: ofRollouts, rows: LOG_CHUNKS_PER_STEP },
  { table: "events", where: ofWorkspace },
  { table: "deployments", where: ofWorkspace },
  { table: "rollouts", where: ofWorkspace },
  {
    table: "retired_keys",
    where: (id) => sql`agent_id in (select id from agents where workspace_id = ${id})`,
  },
  { table: "enrolment_requests", where: ofWorkspace },
  { table: "agents", where: ofWorkspace },
  { table: "tokens", where: ofWorkspace },
  { table: "foreign_caches", where: ofWorkspace },
  { table: "key_vouchers", where: ofWorkspace },
  { table: "webhook_deliveries", where: ofWorkspace },
  { table: "webhooks", where: ofWorkspace },
  { table: "agent_peaks", where: ofWorkspace },
  { table: "workspaces", where: (id) => sql`id = ${id}` },
];

/** Every table that has a step. */
export const REMOVED_TABLES: readonly string[] = [
  ...WORKSPACE_STEPS.map(({ table }) => table),
  "paths",
  "nars",
  "cache_keys",
  "caches",
];

/** One step. @returns false when nothing was left */
export async function removeSomeOfWorkspace(database: CoordinatorDatabase, workspaceId: string): Promise<boolean> {
  for (const { table, where, rows = ROWS_PER_STEP } of WORKSPACE_STEPS) {
    // Newest first: a deployment may refer to an older one that it tries again.
    const chosen = sql`select rowid from ${sql.table(table)} where ${where(workspaceId)} order by rowid desc limit ${rows}`;
    const { numAffectedRows = 0n } = await sql`delete from ${sql.table(table)} where rowid in (${chosen})`.execute(
      database,
    );
    if (numAffectedRows > 0n) return true;
  }
  return false;
}

/** The paths of a cache go before the files. @returns false when no path was left */
export async function removeSomePaths(database: CoordinatorDatabase, cacheId: string): Promise<boolean> {
  const chosen = sql`select rowid from paths where cache_id = ${cacheId} limit ${ROWS_PER_STEP}`;
  const { numAffectedRows = 0n } = await sql`delete from paths where rowid in (${chosen})`.execute(database);
  return numAffectedRows > 0n;
}

/** Some NAR files that a cache has; [] when none is left. */
export async function listSomeNars(database: CoordinatorDatabase, cacheId: string): Promise<readonly FileHash[]> {
  const rows = await database
    .selectFrom("nars")
    .select("file_hash")
    .where("cache_id", "=", cacheId)
    .limit(ROWS_PER_STEP)
    .execute();
  return rows.map((row) => row.file_hash);
}

/** Whether any other cache has this file. */
export async function hasOtherNar(
  database: CoordinatorDatabase,
  nar: { readonly cacheId: string; readonly fileHash: FileHash },
): Promise<boolean> {
  const row = await database
    .selectFrom("nars")
    .select("cache_id")
    .where("file_hash", "=", nar.fileHash)
    .where("cache_id", "!=", nar.cacheId)
    .limit(1)
    .executeTakeFirst();
  return row !== undefined;
}

export async function removeNars(
  database: CoordinatorDatabase,
  nars: { readonly cacheId: string; readonly fileHashes: readonly FileHash[] },
): Promise<void> {
  await database
    .deleteFrom("nars")
    .where("cache_id", "=", nars.cacheId)
    .where("file_hash", "in", nars.fileHashes)
    .execute();
}

export async function removeCacheRow(database: CoordinatorDatabase, cacheId: string): Promise<void> {
  await database.deleteFrom("cache_keys").where("cache_id", "=", cacheId).execute();
  await database.deleteFrom("caches").where("id", "=", cacheId).execute();
}
