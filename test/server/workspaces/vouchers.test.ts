/** What agents are told for keys that they may not have pinned, by whose word, and when. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { cacheSchema, keyVoucherListSchema } from "../../../src/api/caches.ts";
import { problemSchema } from "../../../src/api/problem.ts";
import { signKeyVoucher, whyNotVouched } from "../../../src/key-voucher.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import type { ScriptedAgent } from "../../support/scripted-agent.ts";

const [operator, first, second] = ["operator-1", "nixos-1", "nixos-2"].map((name, index) =>
  secretKeyFromSeed(name, new Uint8Array(32).fill(index + 1)),
);
if (!(operator && first && second)) throw new Error("there are three");
const [FIRST, SECOND] = [formatPublicKey(publicKeyOf(first)), formatPublicKey(publicKeyOf(second))];

let server: TestCoordinator;
let agent: ScriptedAgent;

beforeEach(async () => {
  server = await createTestCoordinator();
  agent = await server.connectAgent("nuc");
});
afterEach(async () => await server[Symbol.asyncDispose]());

const addForeign = async (publicKey: string) => {
  const json = { url: "https://cache.example", publicKeys: [publicKey] };
  await expectOk(await server.fetch("workspaces/default/foreign-caches/nixos", { method: "PUT", json }));
};
const defaultKey = () => agent.framesOf("welcome")[0]?.cache.publicKeys[0] ?? "";
const told = () => agent.framesOf("caches").at(-1);
const toldFor = (cache: string) => (told()?.keyVouchers ?? []).filter((voucher) => voucher.cache === cache);

describe("the coordinator's own word", () => {
  test("an agent that is connected is told at once, by the key that it has pinned", async () => {
    expect(agent.framesOf("welcome")[0]).not.toHaveProperty("keyVouchers");
    await addForeign(FIRST);
    expect(told()?.substituters).toMatchObject([{ name: "nixos", publicKeys: [FIRST] }]);
    const [voucher, ...others] = toldFor("nixos");
    expect([voucher, others]).toEqual([expect.objectContaining({ keys: [FIRST], by: defaultKey() }), []]);
    if (voucher !== undefined) expect(whyNotVouched(voucher)).toBeNull();
    const next = await server.connectAgent("tv");
    expect(next.framesOf("welcome")[0]?.keyVouchers).toEqual(told()?.keyVouchers);
  });

  test("other keys are a newer word, also within the same millisecond, and the same keys are the same word", async () => {
    await addForeign(FIRST);
    const [before] = toldFor("nixos");
    await addForeign(FIRST);
    expect(toldFor("nixos")).toEqual([before ?? expect.anything()]);
    await addForeign(SECOND);
    expect(toldFor("nixos")).toMatchObject([{ keys: [SECOND] }]);
    expect(toldFor("nixos")[0]?.atMs).toBeGreaterThan(before?.atMs ?? Number.POSITIVE_INFINITY);
  });

  test("the oldest cache vouches for the others of our own, whichever is the default, and with its present key", async () => {
    await server.clock.advance(1_000);
    await expectOk(await server.fetch("caches", { json: { name: "tools" } }));
    expect(toldFor("tools")).toMatchObject([{ by: defaultKey() }]);
    await expectOk(await server.fetch("caches/tools", { method: "PATCH", json: { default: true } }));
    expect(String(told()?.cache.name)).toBe("tools");
    const vouched = toldFor("tools")[0];
    await server.clock.advance(1_000);
    await expectOk(await server.fetch("caches/tools/key-rotations", { method: "POST" }));
    expect(toldFor("tools")[0]?.atMs).toBeGreaterThan(vouched?.atMs ?? Number.POSITIVE_INFINITY);
    expect(toldFor("tools")[0]?.keys).toEqual(told()?.cache.publicKeys);
    await expectOk(await server.fetch("caches/default/key-rotations", { method: "POST" }));
    expect(toldFor("tools")[0]?.by).not.toBe(defaultKey());
    expect(toldFor("default")).toEqual([]);
  });

  test("agents of other workspaces are told nothing", async () => {
    await expectOk(await server.fetch("workspaces", { json: { name: "other" } }));
    const json = { url: "https://cache.example", publicKeys: [FIRST] };
    await expectOk(await server.fetch("workspaces/other/foreign-caches/nixos", { method: "PUT", json }));
    expect(agent.framesOf("caches")).toEqual([]);
  });

  test("a cache that is taken away is not told any more", async () => {
    await addForeign(FIRST);
    await expectOk(await server.fetch("workspaces/default/foreign-caches/nixos", { method: "DELETE" }));
    expect([told()?.substituters, told()?.keyVouchers]).toEqual([undefined, undefined]);
  });
});

describe("the operator's word", () => {
  const sign = (changes: { keys?: string[]; atMs?: number; cache?: string } = {}) =>
    signKeyVoucher(operator, { cache: "nixos", keys: [FIRST], atMs: 5, ...changes });
  const put = async (voucher: object, cache = "nixos") => {
    const { cache: _name, ...json } = { cache, ...voucher };
    return await server.fetch(`workspaces/default/key-vouchers/${cache}`, { method: "PUT", json });
  };
  const listed = async () => keyVoucherListSchema.parse(await (await server.fetch("key-vouchers")).json()).keyVouchers;
  const problemOf = async (answer: Response) => [answer.status, problemSchema.parse(await answer.json()).title];

  test("is kept, told beside the coordinator's, and withdrawn", async () => {
    await addForeign(FIRST);
    await expectOk(await put(sign()));
    expect(toldFor("nixos").map(({ by }) => by)).toEqual([formatPublicKey(publicKeyOf(operator)), defaultKey()]);
    expect(toldFor("nixos")[0]).toEqual(sign());
    expect((await listed()).map(({ workspace, ...voucher }) => [String(workspace), voucher])).toEqual([
      ["default", sign()],
    ]);
    const withdraw = async () =>
      (await server.fetch("workspaces/default/key-vouchers/nixos", { method: "DELETE" })).status;
    expect([await withdraw(), await withdraw()]).toEqual([204, 404]);
    expect(toldFor("nixos").map(({ by }) => by)).toEqual([defaultKey()]);
  });

  test("goes with the foreign cache that it was about", async () => {
    await addForeign(FIRST);
    await expectOk(await put(sign()));
    await expectOk(await server.fetch("workspaces/default/foreign-caches/nixos", { method: "DELETE" }));
    expect(await listed()).toEqual([]);
  });

  test("goes with the cache of our own that it was about", async () => {
    await expectOk(await server.fetch("caches", { json: { name: "tools" } }));
    const { publicKeys } = cacheSchema.parse(await (await server.fetch("caches/tools")).json());
    await expectOk(await put(sign({ cache: "tools", keys: publicKeys }), "tools"));
    expect(await listed()).toHaveLength(1);
    await expectOk(await server.fetch("caches/tools", { method: "DELETE" }));
    expect(await listed()).toEqual([]);
  });

  test("is refused with a date in the future, after which no device would take another one", async () => {
    await addForeign(FIRST);
    const nowMs = server.clock.nowMs();
    const hour = await problemOf(await put(sign({ atMs: nowMs + 3_600_000 })));
    expect(hour).toEqual([422, expect.stringContaining("it is dated in the future (20")]);
    expect((await put(sign({ atMs: Number.MAX_SAFE_INTEGER }))).status).toBe(422);
    expect(await listed()).toEqual([]);
    await expectOk(await put(sign({ atMs: nowMs + 60_000 })));
  });

  test("is refused with a wrong signature, for other keys, for no cache, and when it is older", async () => {
    await addForeign(FIRST);
    expect(await problemOf(await put({ ...sign(), atMs: 6 }))).toEqual([
      422,
      expect.stringContaining("signature is wrong"),
    ]);
    const other = await problemOf(await put(sign({ keys: [SECOND] })));
    expect(other).toEqual([422, expect.stringContaining(`the cache does not sign with ${SECOND}`)]);
    expect((await put(sign({ cache: "none" }), "none")).status).toBe(404);
    await expectOk(await put(sign({ atMs: 9 })));
    expect(await problemOf(await put(sign()))).toEqual([409, expect.stringContaining("a newer one")]);
    expect((await listed()).map(({ atMs }) => atMs)).toEqual([9]);
  });
});
