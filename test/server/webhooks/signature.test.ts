/** Secrets and signatures of webhooks against a vector that another program made. */
import { describe, expect, test } from "bun:test";
import { makeWebhookSecret, parseWebhookSecret, signDelivery } from "../../../src/server/webhooks/signature.ts";
import { createSeededRandom } from "../../support/seeded-random.ts";

/**
 * By OpenSSL 3, as Standard Webhooks has it: printf 'ID.SECONDS.BODY' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07
 * (24 bytes) -binary | base64. (The reference libraries' own vector passes, too; it is left out, since its secret looks like one.)
 */
const VECTOR = {
  secret: `whsec_${Buffer.alloc(24, 7).toString("base64")}`,
  id: "msg_1",
  seconds: 1614265330,
  body: '{"test": 2432232314}',
  signature: "v1,7uBtESEWGtDKv2DcFOvwVnDWKwiIT+87mO9EJbkknYM=",
};

test("the known vector", () => {
  const { secret, id, seconds, body, signature } = VECTOR;
  expect(signDelivery({ secrets: [secret], id, atMs: seconds * 1000 + 999, body: Buffer.from(body) })).toEqual({
    "webhook-id": id,
    "webhook-timestamp": String(seconds),
    "webhook-signature": signature,
  });
});

test("what is made is taken, with and without its prefix", () => {
  const secret = makeWebhookSecret(createSeededRandom(1));
  expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
  expect(parseWebhookSecret(secret)).toBe(secret);
  expect(parseWebhookSecret(` ${secret.slice(6)}\n`)).toBe(secret);
  expect(makeWebhookSecret(createSeededRandom(2))).not.toBe(secret);
});

describe("a secret is refused, and not repeated", () => {
  test.each([
    ["nothing", ""],
    ["a word", "correct horse battery staple"],
    ["too short", Buffer.alloc(23, 7).toString("base64")],
    ["too long", Buffer.alloc(65, 7).toString("base64")],
    ["another alphabet", Buffer.alloc(32, 0xfb).toString("base64url")],
    ["a hash sign", `${Buffer.alloc(32, 7).toString("base64")}#`],
  ])("%s", (_what, text) => {
    expect(() => parseWebhookSecret(text)).toThrow("24 to 64 bytes in base64");
    if (text !== "") expect(() => parseWebhookSecret(text)).not.toThrow(text);
  });
});
