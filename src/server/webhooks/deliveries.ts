/**
 * What is done with a delivery: made out of the events behind the webhook's cursor, sent, and what came of it written
 * down. A delivery is on record, and the cursor past it, before anything of it is sent; so whoever kills the coordinator at
 * any moment finds it again, under the id that its receiver may have seen.
 */
import type { HttpClient } from "../../http/client.ts";
import type { Logger } from "../../log.ts";
import { drawId } from "../../names.ts";
import type { Clock, Random } from "../../runtime.ts";
import { type EventRow, loadEvents, loadWorkspaceEvents } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import {
  type DeliveryRow,
  findDelivery,
  findPendingDelivery,
  findWebhook,
  insertDelivery,
  type NewDelivery,
  updateDelivery,
  updateWebhook,
  type WebhookRow,
} from "../database/webhooks.ts";
import { findWorkspaceById } from "../database/workspaces.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import { eventsToDtos } from "../events/change-event.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import { type Attempt, attemptDelivery } from "./attempt.ts";
import { formatPayload, parseEventIds, parseWebhookEvents, takeBatch } from "./payload.ts";
import { isTooLate, NO_TROUBLE, planNextAttempt } from "./schedule.ts";
import { secretsAt } from "./secrets.ts";

export type DeliveryDeps = {
  readonly database: CoordinatorDatabase;
  readonly writes: WriteQueue;
  readonly http: Pick<HttpClient, "postBody">;
  readonly meters: Meters;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
};

/** Events that are looked at for one delivery. */
const SCAN = 500;

export type Prepared =
  | { readonly kind: "send"; readonly webhook: WebhookRow; readonly delivery: DeliveryRow }
  /** Nothing to send, or not yet. */
  | { readonly kind: "rest" }
  /** Events were passed over or given up: there may be more behind them. */
  | { readonly kind: "again" };

/** The delivery that is under way, else the next one, which is on record then. */
export async function prepareDelivery(deps: DeliveryDeps, workspaceId: string): Promise<Prepared> {
  const id = drawId(deps.random);
  const nowMs = deps.clock.nowMs();
  const prepared = await deps.writes.write(
    async (transaction) => await prepare(transaction, { workspaceId, id, nowMs }),
  );
  if (prepared.givenUp !== null) sayGivenUp(deps, prepared.webhook, prepared.givenUp);
  return prepared.result;
}

type PreparedRow = {
  readonly result: Prepared;
  readonly webhook: WebhookRow | null;
  readonly givenUp: NewDelivery | null;
};

async function prepare(
  transaction: CoordinatorDatabase,
  made: { readonly workspaceId: string; readonly id: string; readonly nowMs: number },
): Promise<PreparedRow> {
  const { workspaceId, id, nowMs } = made;
  const webhook = await findWebhook(transaction, workspaceId);
  if (webhook !== null) await forgetOldSecret(transaction, webhook, nowMs);
  const rest: PreparedRow = { result: { kind: "rest" }, webhook, givenUp: null };
  if (webhook === null || webhook.next_attempt_ms > nowMs) return rest;
  const delivery = await findPendingDelivery(transaction, workspaceId);
  if (delivery !== null) return { ...rest, result: { kind: "send", webhook, delivery } };
  const afterId = webhook.after_event_id;
  const rows = await loadWorkspaceEvents(transaction, { workspaceIds: [workspaceId], afterId, limit: SCAN });
  if (rows.length === 0) return rest;
  const { batch, throughId } = takeBatch(rows, { wanted: parseWebhookEvents(webhook.events), afterId });
  await updateWebhook(transaction, workspaceId, { after_event_id: throughId });
  const newest = batch.at(-1);
  if (newest === undefined) return { ...rest, result: { kind: "again" } };
  const isLost = isTooLate(webhook, { newestMs: newest.at_ms, nowMs });
  const row = newDelivery({ workspaceId, id, nowMs, batch, newestMs: newest.at_ms });
  await insertDelivery(transaction, isLost ? { ...row, ...GIVEN_UP_UNTRIED, finished_ms: nowMs } : row);
  if (isLost) return { ...rest, result: { kind: "again" }, givenUp: row };
  const inserted = await findPendingDelivery(transaction, workspaceId);
  if (inserted === null) throw new Error("a delivery that was just made is not there");
  return { ...rest, result: { kind: "send", webhook, delivery: inserted } };
}

/** Once its time is over, so that it is in no backup any more. */
async function forgetOldSecret(transaction: CoordinatorDatabase, webhook: WebhookRow, nowMs: number): Promise<void> {
  const { old_secret, old_secret_until_ms } = secretsAt(webhook, nowMs);
  if (webhook.old_secret === old_secret) return;
  await updateWebhook(transaction, webhook.workspace_id, { old_secret, old_secret_until_ms });
}

const GIVEN_UP_UNTRIED = { state: "given-up", error: "the receiver had taken nothing for 24 h" } as const;

function newDelivery(made: {
  readonly workspaceId: string;
  readonly id: string;
  readonly nowMs: number;
  readonly batch: readonly EventRow[];
  readonly newestMs: number;
}): NewDelivery {
  return {
    id: made.id,
    workspace_id: made.workspaceId,
    kind: "events",
    state: "pending",
    event_ids: JSON.stringify(made.batch.map((row) => row.id)),
    newest_ms: made.newestMs,
    created_ms: made.nowMs,
    finished_ms: null,
    attempts: 0,
    attempted_ms: null,
    status: null,
    duration_ms: null,
    error: null,
  };
}

/**
 * One try. Names are those of now: a repeated try may differ in them, its id does not.
 * @returns null when the workspace is there no more
 */
export async function sendDelivery(
  deps: Pick<DeliveryDeps, "database" | "http" | "clock" | "meters">,
  sent: {
    readonly webhook: WebhookRow;
    readonly delivery: Pick<DeliveryRow, "id" | "kind" | "event_ids" | "created_ms">;
  },
  signal: AbortSignal,
): Promise<Attempt | null> {
  const { webhook, delivery } = sent;
  const workspace = (await findWorkspaceById(deps.database, webhook.workspace_id))?.name;
  if (workspace === undefined) return null;
  const rows = await loadEvents(deps.database, parseEventIds(delivery));
  const events = await eventsToDtos(deps.database, rows, new Map([[webhook.workspace_id, workspace]]));
  const body = formatPayload({ kind: delivery.kind, workspace, atMs: delivery.created_ms, events });
  const attempt = await attemptDelivery(deps, { ...webhook, id: delivery.id, body }, signal);
  deps.meters.webhookAttempt(attempt.error === null ? "delivered" : "failed");
  return attempt;
}

export const attemptColumns = (attempt: Attempt) => ({
  attempted_ms: attempt.atMs,
  status: attempt.status,
  duration_ms: attempt.durationMs,
  error: attempt.error,
});

/**
 * Of the delivery that was under way.
 * @param tried.url where it was sent to: of another address, that it has now, a failure there says nothing
 * @returns whether the next one may follow at once
 */
export async function recordAttempt(
  deps: DeliveryDeps,
  tried: { readonly url: string; readonly delivery: DeliveryRow; readonly attempt: Attempt },
): Promise<boolean> {
  const { url, delivery, attempt } = tried;
  const nowMs = deps.clock.nowMs();
  const fraction = deps.random.fraction();
  const { id, workspace_id: workspaceId } = delivery;
  const recorded = await deps.writes.write(async (transaction) => {
    const webhook = await findWebhook(transaction, workspaceId);
    const known = await findDelivery(transaction, { workspaceId, id });
    // Removed meanwhile, or sent again by hand with success.
    if (webhook === null || known?.state !== "pending") return null;
    const columns = { ...attemptColumns(attempt), attempts: known.attempts + 1 };
    if (attempt.error === null) {
      await updateDelivery(transaction, id, { ...columns, state: "delivered", finished_ms: nowMs });
      await updateWebhook(transaction, workspaceId, NO_TROUBLE);
      return { webhook, isGivenUp: false };
    }
    if (webhook.url !== url) {
      await updateDelivery(transaction, id, columns);
      return "moved";
    }
    const trouble = planNextAttempt(webhook, { nowMs, fraction });
    const isGivenUp = isTooLate(trouble, { newestMs: known.newest_ms, nowMs });
    const end = isGivenUp ? ({ state: "given-up", finished_ms: nowMs } as const) : {};
    await updateDelivery(transaction, id, { ...columns, ...end });
    await updateWebhook(transaction, workspaceId, trouble);
    return { webhook, isGivenUp };
  });
  if (recorded === "moved") return true;
  if (recorded === null) return false;
  if (recorded.isGivenUp) sayGivenUp(deps, recorded.webhook, delivery);
  sayChange(deps, recorded.webhook, attempt);
  return attempt.error === null;
}

/** In the log when it begins and when it is over, not at each try. The address may hold a secret: its origin will do. */
function sayChange({ log }: DeliveryDeps, webhook: WebhookRow, attempt: Attempt): void {
  const to = new URL(webhook.url).origin;
  if (attempt.error === null && webhook.failing_since_ms !== null) log.info("webhook gets through again", { to });
  if (attempt.error !== null && webhook.failing_since_ms === null) {
    log.warn("webhook does not get through", { to, reason: attempt.error });
  }
}

function sayGivenUp(
  { meters, log }: DeliveryDeps,
  webhook: WebhookRow | null,
  given: Pick<DeliveryRow, "id" | "event_ids">,
): void {
  const events = parseEventIds(given).length;
  meters.webhookGivenUp(events);
  const to = webhook === null ? "" : new URL(webhook.url).origin;
  log.warn("webhook delivery given up after 24 h", { to, delivery: given.id, events });
}
