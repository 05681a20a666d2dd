/** The calls for a workspace's webhook: they also work on the coordinator's own host without a token. */
import { z } from "zod";
import {
  type SavedWebhook,
  savedWebhookSchema,
  type saveWebhookSchema,
  type WebhookDeliveryDto,
  type WebhookDto,
  webhookDeliveryListSchema,
  webhookDeliverySchema,
  webhookSchema,
} from "../../api/webhooks.ts";
import type { WorkspaceName } from "../../names.ts";
import type { CallApi } from "./api-call.ts";

/** Undefined: the token's own, else `default`. */
type Owner = WorkspaceName | undefined;

/** Every call @throws NixdeployError as {@link CallApi} does. */
export type WebhookClient = {
  saveWebhook(owner: Owner, request: z.input<typeof saveWebhookSchema>, signal: AbortSignal): Promise<SavedWebhook>;
  loadWebhook(owner: Owner, signal: AbortSignal): Promise<WebhookDto>;
  removeWebhook(owner: Owner, signal: AbortSignal): Promise<void>;
  testWebhook(owner: Owner, signal: AbortSignal): Promise<WebhookDeliveryDto>;
  /** Newest first. */
  listWebhookDeliveries(
    filter: { readonly workspace: Owner; readonly limit: number },
    signal: AbortSignal,
  ): Promise<readonly WebhookDeliveryDto[]>;
  redeliverWebhook(
    what: { readonly workspace: Owner; readonly id: string },
    signal: AbortSignal,
  ): Promise<WebhookDeliveryDto>;
};

export function createWebhookClient(call: CallApi): WebhookClient {
  const path = "/webhook";
  const schema = webhookDeliverySchema;
  return {
    saveWebhook: (workspace, body, signal) =>
      call({ method: "PUT", path, query: { workspace }, body, schema: savedWebhookSchema, signal }),
    loadWebhook: (workspace, signal) =>
      call({ method: "GET", path, query: { workspace }, schema: webhookSchema, signal }),
    async removeWebhook(workspace, signal) {
      await call({ method: "DELETE", path, query: { workspace }, schema: z.null(), signal });
    },
    testWebhook: (workspace, signal) =>
      call({ method: "POST", path: "/webhook-tests", query: { workspace }, schema, signal }),
    async listWebhookDeliveries(query, signal) {
      const listSchema = webhookDeliveryListSchema;
      return (await call({ method: "GET", path: "/webhook-deliveries", query, schema: listSchema, signal })).deliveries;
    },
    redeliverWebhook: ({ workspace, id }, signal) =>
      call({ method: "POST", path: `/webhook-deliveries/${id}/redelivery`, query: { workspace }, schema, signal }),
  };
}
