/** /api/v1/webhook: the one webhook of a workspace, and the log of its deliveries. For admins: its address may be a secret. */
import { z } from "zod";
import {
  type SavedWebhook,
  savedWebhookSchema,
  saveWebhookSchema,
  webhookDeliveryListSchema,
  webhookDeliverySchema,
  webhookSchema,
} from "../../api/webhooks.ts";
import { parseWorkspaceName } from "../../names.ts";
import { webhookDeliveryToDto, webhookToDto } from "../convert.ts";
import { type DeliveryRow, listDeliveries } from "../database/webhooks.ts";
import type { WorkspaceRow } from "../database/workspaces.ts";
import type { Services } from "../services.ts";
import { redeliver, removeWebhook, requireWebhook, setWebhook, testWebhook } from "../webhooks/webhooks.ts";
import { findTargetWorkspace, noteAct, type RouteContext, readId } from "./context.ts";
import { pageParams, parseCursor, toPage } from "./pages.ts";
import { defineRoute, NOTHING, type Route } from "./route.ts";

const OF_WORKSPACE = { workspace: z.string().optional() };
const DELIVERIES_AT_ONCE_MAX = 200;

export function createWebhookRoutes(services: Services): readonly Route[] {
  return [show(services), put(services), remove(services), tryOut(services), list(services), sendAgain(services)];
}

function show(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/webhook", right: "administrate" },
    summary: "Show a workspace's webhook; its secret is never shown again",
    query: z.object(OF_WORKSPACE),
    answers: { 200: webhookSchema },
    async handle(context, { query }) {
      const workspace = await findOwner(services, context, query);
      return context.json(webhookToDto(await requireWebhook(services, workspace), workspace.name));
    },
  });
}

function put(services: Services): Route {
  return defineRoute({
    ...{ method: "PUT", path: "/webhook", right: "administrate" },
    summary: "Set where a workspace's changes are sent to; what waited for the address before goes to this one",
    query: z.object(OF_WORKSPACE),
    body: saveWebhookSchema,
    answers: { 200: savedWebhookSchema },
    async handle(context, { query, readBody }) {
      const workspace = await findOwner(services, context, query);
      const { webhook, made } = await setWebhook(services, { workspace, wanted: await readBody() });
      const dto = webhookToDto(webhook, workspace.name);
      const to = new URL(webhook.url).origin;
      const secret = made === null ? "" : ", with another secret";
      const old = dto.oldSecretUntil === null ? "" : `, the one before until ${dto.oldSecretUntil}`;
      noteAct(context, { effect: `sends ${dto.events?.join(", ") ?? "all changes"} to ${to}${secret}${old}` });
      services.log.info("webhook set", { workspace: workspace.name, to });
      const answer: SavedWebhook = { ...dto, secret: made };
      return context.json(answer);
    },
  });
}

function remove(services: Services): Route {
  return defineRoute({
    ...{ method: "DELETE", path: "/webhook", right: "administrate" },
    summary: "Remove a workspace's webhook and the log of its deliveries",
    query: z.object(OF_WORKSPACE),
    answers: { 204: NOTHING },
    async handle(context, { query }) {
      const workspace = await findOwner(services, context, query);
      await removeWebhook(services, workspace);
      noteAct(context, { effect: "removed" });
      services.log.info("webhook removed", { workspace: workspace.name });
      return context.body(null, 204);
    },
  });
}

function tryOut(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/webhook-tests", right: "administrate" },
    summary: "Send a delivery without events, once, and say what came of it",
    query: z.object(OF_WORKSPACE),
    answers: { 200: webhookDeliverySchema },
    async handle(context, { query }) {
      const workspace = await findOwner(services, context, query);
      const delivery = await testWebhook(services, workspace);
      noteAct(context, { effect: `test ${describe(delivery)}` });
      return context.json(webhookDeliveryToDto(delivery, workspace.name));
    },
  });
}

function list(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/webhook-deliveries", right: "administrate" },
    summary: "List the latest deliveries of a workspace's webhook, newest first",
    query: z.object({ ...OF_WORKSPACE, ...pageParams({ fallback: 50, max: DELIVERIES_AT_ONCE_MAX }) }),
    answers: { 200: webhookDeliveryListSchema },
    async handle(context, { query }) {
      const { limit } = query;
      const workspace = await findOwner(services, context, query);
      await requireWebhook(services, workspace);
      const rows = await listDeliveries(services.database, {
        workspaceId: workspace.id,
        beforeNumber: parseCursor(query.after, z.tuple([z.number().int()]))?.[0] ?? null,
        limit: limit + 1,
      });
      const { page, next } = toPage(rows, { limit, cursorOf: (row) => [row.number] });
      return context.json({ deliveries: page.map((row) => webhookDeliveryToDto(row, workspace.name)), next });
    },
  });
}

function sendAgain(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/webhook-deliveries/:delivery/redelivery", right: "administrate" },
    summary: "Send a delivery again, once, under the same id; one that is still being tried is due at once",
    query: z.object(OF_WORKSPACE),
    answers: { 200: webhookDeliverySchema },
    async handle(context, { query }) {
      const workspace = await findOwner(services, context, query);
      const delivery = await redeliver(services, { workspace, id: context.req.param("delivery") ?? "" });
      noteAct(context, { effect: `sent again: ${describe(delivery)}` });
      return context.json(webhookDeliveryToDto(delivery, workspace.name));
    },
  });
}

async function findOwner(
  services: Services,
  context: RouteContext,
  query: { readonly workspace?: string | undefined },
): Promise<WorkspaceRow> {
  const { workspace: text } = query;
  const name = text === undefined ? undefined : readId(() => parseWorkspaceName(text));
  const workspace = await findTargetWorkspace(services, context, { name, right: "administrate" });
  noteAct(context, { target: `webhook of ${workspace.name}` });
  return workspace;
}

function describe({ id, state, error }: DeliveryRow): string {
  return `${id} ${state}${error === null ? "" : `: ${error}`}`;
}
