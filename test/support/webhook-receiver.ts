/**
 * Somebody's own web server that a webhook sends to, on a port of loopback. It verifies each delivery as docs/operating.md
 * tells receivers to, by code of its own, and answers as the test says.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { type WebhookPayload, webhookPayloadSchema } from "../../src/api/webhooks.ts";

export type Received = {
  readonly id: string;
  readonly path: string;
  readonly timestamp: number;
  readonly isGenuine: boolean;
  readonly contentType: string;
  readonly userAgent: string;
  readonly authorization: string | null;
  readonly payload: WebhookPayload;
};

export type WebhookReceiver = AsyncDisposable & {
  readonly url: string;
  readonly received: Received[];
  /** What the next ones are answered. Default: 204. */
  answer: (request: Received) => Response | Promise<Response>;
  /** Ids of the changes, in the order in which they came, those of refused deliveries too. */
  eventIds(): readonly number[];
};

/** @param secret of the webhook, asked for each time */
export function openWebhookReceiver(secret: () => string, port = 0): WebhookReceiver {
  const received: Received[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port,
    async fetch(request) {
      const body = await request.text();
      const one: Received = {
        id: request.headers.get("webhook-id") ?? "",
        path: new URL(request.url).pathname + new URL(request.url).search,
        timestamp: Number(request.headers.get("webhook-timestamp")),
        isGenuine: isGenuine(secret(), request.headers, body),
        contentType: request.headers.get("content-type") ?? "",
        userAgent: request.headers.get("user-agent") ?? "",
        authorization: request.headers.get("authorization"),
        payload: webhookPayloadSchema.parse(JSON.parse(body)),
      };
      received.push(one);
      return await receiver.answer(one);
    },
  });
  const receiver: WebhookReceiver = {
    url: `http://127.0.0.1:${server.port}/hook`,
    received,
    answer: () => new Response(null, { status: 204 }),
    eventIds: () => received.flatMap(({ payload }) => payload.data.events.map(({ id }) => id)),
    [Symbol.asyncDispose]: async () => await server.stop(true),
  };
  return receiver;
}

function isGenuine(secret: string, headers: Headers, body: string): boolean {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const signed = `${headers.get("webhook-id")}.${headers.get("webhook-timestamp")}.${body}`;
  const expected = createHmac("sha256", key).update(signed).digest();
  return (headers.get("webhook-signature") ?? "").split(" ").some((entry) => {
    const given = Buffer.from(entry.replace(/^v1,/, ""), "base64");
    return entry.startsWith("v1,") && given.length === expected.length && timingSafeEqual(given, expected);
  });
}
