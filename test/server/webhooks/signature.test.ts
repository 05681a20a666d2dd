/** Secrets and signatures of webhooks against the vector that every implementation of Standard Webhooks is tested with. */
import { describe, expect, test } from "bun:test";
import { makeWebhookSecret, parseWebhookSecret, signDelivery } from "../../../src/server/webhooks/signature.ts";
import { createSeededRandom } from "../../support/seeded-random.ts";

/** The vector of the Standard Webhooks libraries (`TestWebhookSign` of the reference implementation in Go). */
const VECTOR = {
  secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
  id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
  seconds: 1614265330,
  body: '{"test": 2432232314}',
  signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
};

test("the known vector", () => {
  const { secret, id, seconds, body, signature } = VECTOR;
  expect(signDelivery({ secret, id, atMs: seconds * 1000 + 999, body: Buffer.from(body) })).toEqual({
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
