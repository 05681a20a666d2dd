/**
 * Webhooks and the log of their deliveries. The queue of what is to be sent is the log of events itself: a webhook has a
 * cursor in it, and what lies before the cursor is in a delivery, at most one of which is under way.
 */
import type { Insertable, Selectable, Updateable } from "kysely";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type WebhookRow = Selectable<Schema["webhooks"]>;
export type DeliveryRow = Selectable<Schema["webhook_deliveries"]>;
export type NewDelivery = Insertable<Schema["webhook_deliveries"]>;

/** Deliveries of a workspace that are remembered. */
export const DELIVERIES_KEPT = 200;
const LIST_MAX = 1_000;

export async function findWebhook(database: CoordinatorDatabase, workspaceId: string): Promise<WebhookRow | null> {
  const row = await database
    .selectFrom("webhooks")
    .selectAll()
    .where("workspace_id", "=", workspaceId)
    .executeTakeFirst();
  return row ?? null;
}

/** Those of workspaces that are there. */
export async function listWebhooks(database: CoordinatorDatabase): Promise<readonly WebhookRow[]> {
  return await database
    .selectFrom("webhooks")
    .innerJoin("workspaces", "workspaces.id", "webhooks.workspace_id")
    .selectAll("webhooks")
    .where("workspaces.deleted_ms", "is", null)
    .orderBy("webhooks.workspace_id")
    .limit(LIST_MAX)
    .execute();
}

/** Puts it in the place of the one before, if there was one. */
export async function saveWebhook(database: CoordinatorDatabase, row: WebhookRow): Promise<void> {
  const { workspace_id: _, ...rest } = row;
  await database
    .insertInto("webhooks")
    .values(row)
    .onConflict((conflict) => conflict.column("workspace_id").doUpdateSet(rest))
    .execute();
}

export async function updateWebhook(
  database: CoordinatorDatabase,
  workspaceId: string,
  change: Updateable<Schema["webhooks"]>,
): Promise<void> {
  await database.updateTable("webhooks").set(change).where("workspace_id", "=", workspaceId).execute();
}

/** With the log of its deliveries. @returns false when there was none */
export async function deleteWebhook(transaction: CoordinatorDatabase, workspaceId: string): Promise<boolean> {
  await transaction.deleteFrom("webhook_deliveries").where("workspace_id", "=", workspaceId).execute();
  const deleted = await transaction
    .deleteFrom("webhooks")
    .where("workspace_id", "=", workspaceId)
    .executeTakeFirstOrThrow();
  return deleted.numDeletedRows > 0n;
}

/** How many webhooks get nothing through. */
export async function countFailingWebhooks(
  database: CoordinatorDatabase,
  workspaceIds: readonly string[],
): Promise<number> {
  if (workspaceIds.length === 0) return 0;
  const row = await database
    .selectFrom("webhooks")
    .select(({ fn }) => fn.countAll<number>().as("count"))
    .where("failing_since_ms", "is not", null)
    .where("workspace_id", "in", workspaceIds)
    .executeTakeFirstOrThrow();
  return row.count;
}

/** Forgets older ones than are kept, but never one that is under way. */
export async function insertDelivery(database: CoordinatorDatabase, row: NewDelivery): Promise<void> {
  await database.insertInto("webhook_deliveries").values(row).execute();
  const oldestKept = database
    .selectFrom("webhook_deliveries")
    .select("number")
    .where("workspace_id", "=", row.workspace_id)
    .orderBy("number", "desc")
    .offset(DELIVERIES_KEPT - 1)
    .limit(1);
  await database
    .deleteFrom("webhook_deliveries")
    .where("workspace_id", "=", row.workspace_id)
    .where("number", "<", oldestKept)
    .where("state", "!=", "pending")
    .execute();
}

/** The one that is under way, if any. */
export async function findPendingDelivery(
  database: CoordinatorDatabase,
  workspaceId: string,
): Promise<DeliveryRow | null> {
  const row = await database
    .selectFrom("webhook_deliveries")
    .selectAll()
    .where("workspace_id", "=", workspaceId)
    .where("state", "=", "pending")
    .executeTakeFirst();
  return row ?? null;
}

export async function findDelivery(
  database: CoordinatorDatabase,
  which: { readonly workspaceId: string; readonly id: string },
): Promise<DeliveryRow | null> {
  const row = await database
    .selectFrom("webhook_deliveries")
    .selectAll()
    .where("workspace_id", "=", which.workspaceId)
    .where("id", "=", which.id)
    .executeTakeFirst();
  return row ?? null;
}

export async function updateDelivery(
  database: CoordinatorDatabase,
  id: string,
  change: Updateable<Schema["webhook_deliveries"]>,
): Promise<void> {
  await database.updateTable("webhook_deliveries").set(change).where("id", "=", id).execute();
}

/** Newest first. @param beforeNumber older than that one; null: from the newest */
export async function listDeliveries(
  database: CoordinatorDatabase,
  query: { readonly workspaceId: string; readonly beforeNumber: number | null; readonly limit: number },
): Promise<readonly DeliveryRow[]> {
  let rows = database.selectFrom("webhook_deliveries").selectAll().where("workspace_id", "=", query.workspaceId);
  if (query.beforeNumber !== null) rows = rows.where("number", "<", query.beforeNumber);
  return await rows.orderBy("number", "desc").limit(query.limit).execute();
}
