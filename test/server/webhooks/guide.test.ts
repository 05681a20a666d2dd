/** The code in docs/operating.md by which a receiver verifies a delivery does so. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { z } from "zod";
import { makeWebhookSecret, signDelivery } from "../../../src/server/webhooks/signature.ts";
import { createSeededRandom } from "../../support/seeded-random.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";

const GUIDE = join(import.meta.dir, "../../../docs/operating.md");
type Verify = (delivery: { secret: string; headers: Readonly<Record<string, string>>; body: Uint8Array }) => unknown;
const moduleSchema = z.object({ isGenuine: z.custom<Verify>((value) => typeof value === "function") });

test("the example takes what is genuine, and nothing else", async () => {
  await using directory = await createTemporaryDirectory("guide");
  const [, code = ""] = /```js\n([\s\S]*?)```/.exec(await Bun.file(GUIDE).text()) ?? [];
  await Bun.write(directory.join("verify.mjs"), code);
  const { isGenuine } = moduleSchema.parse(await import(directory.join("verify.mjs")));
  const secret = makeWebhookSecret(createSeededRandom(1));
  const body = Buffer.from('{"type":"nixdeploy.test"}');
  const signedAt = (atMs: number) => signDelivery({ secrets: [secret], id: "0123456789abcdfg", atMs, body });
  const headers = signedAt(Date.now());
  const signature = headers["webhook-signature"] ?? "";
  expect(isGenuine({ secret, headers, body })).toBe(true);
  expect(isGenuine({ secret, headers: { ...headers, "webhook-signature": `v1,AAAA ${signature}` }, body })).toBe(true);
  const others: readonly Parameters<Verify>[0][] = [
    { secret, headers, body: Buffer.from(`${body} `) },
    { secret: makeWebhookSecret(createSeededRandom(2)), headers, body },
    { secret, headers: { ...headers, "webhook-id": "another" }, body },
    { secret, headers: { ...headers, "webhook-signature": signature.replace("v1,", "v2,") }, body },
    { secret, headers: signedAt(Date.now() - 600_000), body },
    { secret, headers: signedAt(Date.now() + 600_000), body },
    { secret, headers: {}, body },
  ];
  expect(others.map(isGenuine)).toEqual(others.map(() => false));
});
