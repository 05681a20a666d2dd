/** What administrators do with a workspace's webhook: set it, remove it, try it out, send a delivery once more. */
import type { z } from "zod";
import type { saveWebhookSchema } from "../../api/webhooks.ts";
import { NixdeployError } from "../../errors.ts";
import { drawId } from "../../names.ts";
import { findLastEventId } from "../database/counts.ts";
import { loadEvents } from "../database/events.ts";
import {
  type DeliveryRow,
  deleteWebhook,
  findDelivery,
  findWebhook,
  insertDelivery,
  saveWebhook,
  updateDelivery,
  updateWebhook,
  type WebhookRow,
} from "../database/webhooks.ts";
import type { WorkspaceRow } from "../database/workspaces.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import type { Attempt } from "./attempt.ts";
import { attemptColumns, sendDelivery } from "./deliveries.ts";
import { formatWebhookEvents, parseEventIds } from "./payload.ts";
import { NO_TROUBLE } from "./schedule.ts";
import { planSecrets, secretsAt } from "./secrets.ts";
import { WEBHOOKS_TOPIC } from "./sender.ts";
import { makeWebhookSecret, parseWebhookSecret } from "./signature.ts";

const ALL = formatWebhookEvents(null);

type Wanted = z.output<typeof saveWebhookSchema>;

/**
 * Another address or other kinds go on where the one before was, so that nothing is missed while an address is corrected.
 * @returns `made`: a secret that nobody has seen yet
 * @throws NixdeployError `usage` for an address or a secret that is none
 */
export async function setWebhook(
  services: Services,
  { workspace, wanted }: { readonly workspace: WorkspaceRow; readonly wanted: Wanted },
): Promise<{ readonly webhook: WebhookRow; readonly made: string | null }> {
  const { database, clock, random, bus } = services;
  const url = parseReceiverUrl(wanted.url);
  const given = wanted.secret === undefined ? null : parseWebhookSecret(wanted.secret);
  const fresh = makeWebhookSecret(random);
  const oldForMs = wanted.oldSecretForMs ?? null;
  const nowMs = clock.nowMs();
  const saved = await database.transaction().execute(async (transaction) => {
    const before = await findWebhook(transaction, workspace.id);
    const known = given ?? (wanted.newSecret === true ? null : (before?.secret ?? null));
    const secret = known ?? fresh;
    const webhook: WebhookRow = {
      ...NO_TROUBLE,
      workspace_id: workspace.id,
      url,
      ...planSecrets(before, { secret, oldForMs, nowMs }),
      events: wanted.events === undefined ? (before?.events ?? ALL) : formatWebhookEvents(wanted.events),
      created_ms: before?.created_ms ?? nowMs,
      after_event_id: before?.after_event_id ?? (await findLastEventId(transaction)),
    };
    await saveWebhook(transaction, webhook);
    return { webhook, made: known === null ? fresh : null };
  });
  bus.publish(WEBHOOKS_TOPIC);
  return saved;
}

/** @throws NixdeployError `usage` for what is no plain address */
export function parseReceiverUrl(text: string): string {
  const url = URL.parse(text);
  const refuse = (why: string) =>
    new NixdeployError("usage", `cannot use the webhook's address: ${why}`, {
      hint: "It looks like https://hooks.example.org/nixdeploy.",
    });
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw refuse("it is no http or https URL");
  }
  if (url.username !== "" || url.password !== "") throw refuse("it has a user name or a password in it");
  if (url.hash !== "") throw refuse("it has a fragment, which nobody would be sent");
  return url.href;
}

/** As it is at this moment. @throws NixdeployError `not-found` */
export async function requireWebhook(
  { database, clock }: Pick<Services, "database" | "clock">,
  workspace: WorkspaceRow,
): Promise<WebhookRow> {
  const webhook = await findWebhook(database, workspace.id);
  if (webhook !== null) return { ...webhook, ...secretsAt(webhook, clock.nowMs()) };
  throw notFound(`the webhook of ${workspace.name}`, "nixdeploy webhook set URL makes one.");
}

/** With the log of its deliveries, at once; what is on its way may still arrive. @throws NixdeployError `not-found` */
export async function removeWebhook(services: Services, workspace: WorkspaceRow): Promise<void> {
  await requireWebhook(services, workspace);
  await services.database.transaction().execute((transaction) => deleteWebhook(transaction, workspace.id));
}

/** Sends a delivery without events, once, now. @returns it, as it is in the log of deliveries */
export async function testWebhook(services: Services, workspace: WorkspaceRow): Promise<DeliveryRow> {
  const webhook = await requireWebhook(services, workspace);
  const nowMs = services.clock.nowMs();
  const delivery = { id: drawId(services.random), kind: "test", event_ids: "[]", created_ms: nowMs } as const;
  const attempt = await tryNow(services, { webhook, delivery });
  await insertDelivery(services.database, {
    ...delivery,
    ...attemptColumns(attempt),
    ...{ workspace_id: workspace.id, state: attempt.error === null ? "delivered" : "given-up" },
    ...{ newest_ms: nowMs, finished_ms: services.clock.nowMs(), attempts: 1 },
  });
  return await requireDelivery(services, { workspace, id: delivery.id });
}

/**
 * Sends it again, once, now, under the same id. One that is still being tried is due now instead.
 * @throws NixdeployError `not-found` · `conflict` when its events are not kept any more
 */
export async function redeliver(
  services: Services,
  which: { readonly workspace: WorkspaceRow; readonly id: string },
): Promise<DeliveryRow> {
  const { database, clock, bus } = services;
  const webhook = await requireWebhook(services, which.workspace);
  const delivery = await requireDelivery(services, which);
  if (delivery.state === "pending") {
    await updateWebhook(database, webhook.workspace_id, { next_attempt_ms: clock.nowMs() });
    bus.publish(WEBHOOKS_TOPIC);
    return delivery;
  }
  await requireEvents(services, delivery);
  const attempt = await tryNow(services, { webhook, delivery });
  const isTaken = attempt.error === null && delivery.state !== "delivered";
  await updateDelivery(database, delivery.id, {
    ...attemptColumns(attempt),
    attempts: delivery.attempts + 1,
    ...(isTaken ? { state: "delivered", finished_ms: clock.nowMs() } : {}),
  });
  return await requireDelivery(services, which);
}

type Sent = Parameters<typeof sendDelivery>[1];

async function tryNow(services: Services, sent: Sent): Promise<Attempt> {
  const attempt = await sendDelivery(services, sent, services.stopping);
  if (attempt === null) throw notFound("its workspace");
  return attempt;
}

async function requireDelivery(
  { database }: Services,
  { workspace, id }: { readonly workspace: WorkspaceRow; readonly id: string },
): Promise<DeliveryRow> {
  const row = await findDelivery(database, { workspaceId: workspace.id, id });
  if (row === null) throw notFound(`the delivery ${id}`, "The latest 200 are kept: nixdeploy webhook deliveries.");
  return row;
}

async function requireEvents({ database }: Services, delivery: DeliveryRow): Promise<void> {
  const ids = parseEventIds(delivery);
  const kept = await loadEvents(database, ids);
  if (kept.length === ids.length) return;
  throw new NixdeployError("conflict", `cannot send ${delivery.id} again: its events are not kept any more`);
}
