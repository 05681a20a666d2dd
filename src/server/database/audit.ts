/**
 * The audit log: every act, who, from where, with what effect. Written once, never changed; ended by age alone. A line
 * outlives what it speaks of, so it refers to nothing by a foreign key.
 */
import type { Insertable, Selectable } from "kysely";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type AuditRow = Selectable<Schema["audit_log"]>;
export type NewAuditRow = Insertable<Schema["audit_log"]>;

export async function insertAuditRow(database: CoordinatorDatabase, row: NewAuditRow): Promise<void> {
  await database.insertInto("audit_log").values(row).execute();
}

export type AuditQuery = {
  /** Null: all, those of no workspace included. */
  readonly workspaceIds: readonly string[] | null;
  readonly sinceMs: number | null;
  /** Older than that one. */
  readonly beforeId: number | null;
  readonly limit: number;
};

/** Newest first. */
export async function listAuditRows(database: CoordinatorDatabase, query: AuditQuery): Promise<readonly AuditRow[]> {
  let rows = database.selectFrom("audit_log").selectAll();
  if (query.workspaceIds !== null) rows = rows.where("workspace_id", "in", query.workspaceIds);
  if (query.sinceMs !== null) rows = rows.where("at_ms", ">=", query.sinceMs);
  if (query.beforeId !== null) rows = rows.where("id", "<", query.beforeId);
  return await rows.orderBy("id", "desc").limit(query.limit).execute();
}

/** The oldest first, some at a time. @returns how many there were */
export async function deleteAuditRows(
  database: CoordinatorDatabase,
  which: { readonly beforeMs: number; readonly limit: number },
): Promise<number> {
  const old = database
    .selectFrom("audit_log")
    .select("id")
    .where("at_ms", "<", which.beforeMs)
    .orderBy("id")
    .limit(which.limit);
  const { numDeletedRows } = await database.deleteFrom("audit_log").where("id", "in", old).executeTakeFirstOrThrow();
  return Number(numDeletedRows);
}
