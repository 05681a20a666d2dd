/**
 * The log of everything that changed in a workspace, in one order: deployments, rollouts, agents, tokens. Whoever follows
 * a rollout, the stream of all changes and the webhooks read the same rows, each from a cursor of its own.
 *
 * A line outlives what it speaks of, so it refers to nothing by a foreign key. Ids are never given out twice.
 */
import type { Insertable, Selectable } from "kysely";
import type { RolloutId } from "../../names.ts";
import { insertRows } from "./bulk.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type EventRow = Selectable<Schema["events"]>;
export type NewEvent = Insertable<Schema["events"]>;

/** In this order. */
export async function insertEvents(database: CoordinatorDatabase, rows: readonly NewEvent[]): Promise<void> {
  await insertRows(database, "events", rows);
}

/** Changes of a rollout and its deployments after a cursor, oldest first. */
export async function loadRolloutEvents(
  database: CoordinatorDatabase,
  query: { readonly rolloutId: RolloutId; readonly afterId: number; readonly limit: number },
): Promise<readonly Pick<EventRow, "id" | "at_ms" | "kind" | "deployment_id" | "data">[]> {
  return await database
    .selectFrom("events")
    .select(["id", "at_ms", "kind", "deployment_id", "data"])
    .where("rollout_id", "=", query.rolloutId)
    .where("id", ">", query.afterId)
    .orderBy("id")
    .limit(query.limit)
    .execute();
}

/** Changes in some workspaces after a cursor, oldest first. */
export async function loadWorkspaceEvents(
  database: CoordinatorDatabase,
  query: { readonly workspaceIds: readonly string[]; readonly afterId: number; readonly limit: number },
): Promise<readonly EventRow[]> {
  const after = database.selectFrom("events").selectAll().where("id", ">", query.afterId);
  return await after.where("workspace_id", "in", query.workspaceIds).orderBy("id").limit(query.limit).execute();
}

/** Those that are still there, oldest first. @param ids a few hundred at most */
export async function loadEvents(database: CoordinatorDatabase, ids: readonly number[]): Promise<readonly EventRow[]> {
  if (ids.length === 0) return [];
  return await database.selectFrom("events").selectAll().where("id", "in", ids).orderBy("id").execute();
}

/** The ids of the oldest and the newest that are there; 0 and 0 without any. */
export async function findEventRange(
  database: CoordinatorDatabase,
): Promise<{ readonly firstId: number; readonly lastId: number }> {
  const ids = database.selectFrom("events").select("id").limit(1);
  const first = await ids.orderBy("id").executeTakeFirst();
  const last = await ids.orderBy("id", "desc").executeTakeFirst();
  return { firstId: first?.id ?? 0, lastId: last?.id ?? 0 };
}

export async function findOldestEventMs(database: CoordinatorDatabase): Promise<number | null> {
  const oldest = database.selectFrom("events").select("at_ms").orderBy("id").limit(1);
  return (await oldest.executeTakeFirst())?.at_ms ?? null;
}

/** Of the oldest `limit` those that are from before a time, never the newest of all. @returns how many */
export async function deleteEvents(
  database: CoordinatorDatabase,
  what: { readonly beforeMs: number; readonly limit: number },
): Promise<number> {
  const { lastId } = await findEventRange(database);
  const oldest = database.selectFrom("events").select("id").where("id", "<", lastId).orderBy("id").limit(what.limit);
  const result = await database
    .deleteFrom("events")
    .where("id", "in", oldest)
    .where("at_ms", "<", what.beforeMs)
    .executeTakeFirstOrThrow();
  return Number(result.numDeletedRows);
}
