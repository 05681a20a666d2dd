/**
 * A workspace's webhook in the REST API, and what it sends.
 *
 * Headers and signature of a delivery are those of Standard Webhooks (standardwebhooks.com): `webhook-id`,
 * `webhook-timestamp` and `webhook-signature`; see `server/webhooks/signature.ts`.
 */
import { z } from "zod";
import { changeEventSchema } from "./events.ts";
import { count, cursor, time, workspaceName } from "./fields.ts";

/** Kinds of changes (`ChangeEvent`); `outcome` stands for deployments that have ended, and nothing else of them. */
export const WEBHOOK_EVENTS = ["rollout", "deployment", "outcome", "progress", "agent"] as const;
export type WebhookEvent = (typeof WEBHOOK_EVENTS)[number];
export const WEBHOOK_URL_LENGTH_MAX = 2_000;
/** Events in one delivery. */
export const WEBHOOK_BATCH_MAX = 100;

const DAY_MS = 24 * 3_600_000;
/** How long the secret before signs, too, where nobody says otherwise. */
export const OLD_SECRET_DEFAULT_MS = DAY_MS;
export const OLD_SECRET_MAX_MS = 30 * DAY_MS;

const events = z.array(z.enum(WEBHOOK_EVENTS)).min(1).max(WEBHOOK_EVENTS.length);

/** PUT /api/v1/webhook[?workspace=NAME]. What changed before there was one is not sent. */
export const saveWebhookSchema = z
  .object({
    /** http or https, without user name, password or fragment. */
    url: z.string().max(WEBHOOK_URL_LENGTH_MAX),
    /** Null: all, those that later versions add included. Absent: the ones there are, else all. */
    events: events.nullable().optional(),
    /** `whsec_` and 24 to 64 bytes in base64. Absent: the one there is, else a new one. */
    secret: z.string().max(200).optional(),
    /** Make another secret although there is one. */
    newSecret: z.boolean().optional(),
    /**
     * For how long deliveries are signed by the secret before as well, milliseconds; 0: not any more. Absent: 24 h after it
     * was given another one. Of several it is the last one.
     */
    oldSecretForMs: z.number().int().min(0).max(OLD_SECRET_MAX_MS).optional(),
  })
  .refine((request) => request.secret === undefined || request.newSecret !== true, "either a secret or newSecret")
  .meta({ id: "SaveWebhook" });

/** GET /api/v1/webhook[?workspace=NAME] */
export const webhookSchema = z
  .object({
    workspace: workspaceName,
    url: z.string(),
    /** Null: all. */
    events: events.nullable(),
    createdAt: time,
    /** Until when deliveries are signed by the secret before, too; null: by one alone. */
    oldSecretUntil: time.nullable().default(null),
    /** Since when no delivery has got through; null: the last one has, or there was none yet. */
    failingSince: time.nullable(),
    /** When the next try is due, while it is failing. */
    nextAttemptAt: time.nullable(),
  })
  .meta({ id: "Webhook" });
export type WebhookDto = z.output<typeof webhookSchema>;

/** Answer of PUT. */
export const savedWebhookSchema = webhookSchema
  .extend({
    /** Shown this once; null unless it was made here. */
    secret: z.string().nullable(),
  })
  .meta({ id: "SavedWebhook" });
export type SavedWebhook = z.output<typeof savedWebhookSchema>;

export const DELIVERY_STATES = ["pending", "delivered", "given-up"] as const;

export const webhookDeliverySchema = z
  .object({
    /** The header `webhook-id`, the same in every try: whoever has seen it has got this delivery already. */
    id: z.string(),
    workspace: workspaceName,
    kind: z.enum(["events", "test"]),
    state: z.enum(DELIVERY_STATES),
    /** Ids of the changes in it. */
    events: z.array(count).max(WEBHOOK_BATCH_MAX),
    createdAt: time,
    finishedAt: time.nullable(),
    attempts: count,
    /** Of the last try: when it began, what was answered (null: nothing), how long it took, and why it was no success. */
    lastAttemptAt: time.nullable(),
    status: count.nullable(),
    durationMs: count.nullable(),
    error: z.string().nullable(),
  })
  .meta({ id: "WebhookDelivery" });
export type WebhookDeliveryDto = z.output<typeof webhookDeliverySchema>;

/** GET /api/v1/webhook-deliveries[?workspace=NAME], newest first. The latest 200 of a workspace are kept. */
export const webhookDeliveryListSchema = z.object({ deliveries: z.array(webhookDeliverySchema), next: cursor });

/** The body of a delivery. Receivers ignore types and fields that they do not know. */
export const webhookPayloadSchema = z
  .object({
    type: z.enum(["nixdeploy.events", "nixdeploy.test"]),
    /** When the delivery was made up; each change has its own time. */
    timestamp: time,
    data: z.object({
      workspace: workspaceName,
      /** In the order in which they happened; none in a test. */
      events: z.array(changeEventSchema),
    }),
  })
  .meta({ id: "WebhookPayload" });
export type WebhookPayload = z.output<typeof webhookPayloadSchema>;
