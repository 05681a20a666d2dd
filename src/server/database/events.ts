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
): Promise<readonly Pick<EventRow, "id" | "deployment_id">[]> {
  return await database
    .selectFrom("events")
    .select(["id", "deployment_id"])
    .where("rollout_id", "=", query.rolloutId)
    .where("id", ">", query.afterId)
    .orderBy("id")
    .limit(query.limit)
    .execute();
}
