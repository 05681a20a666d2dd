/**
 * Secrets and signatures of webhooks as Standard Webhooks has them (standardwebhooks.com, version 1): what is signed is
 * `ID.SECONDS.BODY`, by HMAC-SHA256 with the bytes that the secret is base64 of; of several signatures, separated by
 * spaces, any one will do. Pure.
 *
 * The secret is stored as it is: a hash of it could not sign.
 */
import { createHmac } from "node:crypto";
import { NixdeployError } from "../../errors.ts";
import type { Random } from "../../runtime.ts";

const PREFIX = "whsec_";
const SECRET_BYTES = 32;
const SECRET_BYTES_MIN = 24;
const SECRET_BYTES_MAX = 64;
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;

export function makeWebhookSecret(random: Random): string {
  return `${PREFIX}${Buffer.from(random.bytes(SECRET_BYTES)).toString("base64")}`;
}

/** In the one form in which it is stored. @throws NixdeployError `usage`; the text is never repeated */
export function parseWebhookSecret(text: string): string {
  const base64 = text.trim().replace(/^whsec_/, "");
  const bytes = BASE64.test(base64) ? Buffer.from(base64, "base64") : Buffer.alloc(0);
  if (bytes.length < SECRET_BYTES_MIN || bytes.length > SECRET_BYTES_MAX) {
    throw new NixdeployError(
      "usage",
      `cannot use the secret: it must be ${SECRET_BYTES_MIN} to ${SECRET_BYTES_MAX} bytes in base64, with or without ${PREFIX}`,
      { hint: "`openssl rand -base64 32` makes one; without any, the coordinator does." },
    );
  }
  return `${PREFIX}${bytes.toString("base64")}`;
}

/** The headers by which a receiver knows who sent it, and whether it has seen it before. */
export function signDelivery(delivery: {
  readonly secrets: readonly string[];
  readonly id: string;
  readonly atMs: number;
  readonly body: Uint8Array;
}): Readonly<Record<string, string>> {
  const { secrets, id, atMs, body } = delivery;
  const seconds = String(Math.floor(atMs / 1000));
  const signatures = secrets.map((secret) => {
    const key = Buffer.from(secret.slice(PREFIX.length), "base64");
    return `v1,${createHmac("sha256", key).update(`${id}.${seconds}.`).update(body).digest("base64")}`;
  });
  return { "webhook-id": id, "webhook-timestamp": seconds, "webhook-signature": signatures.join(" ") };
}
