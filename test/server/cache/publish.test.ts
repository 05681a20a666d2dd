/** POST …/paths, and what the cache then says of its paths: narinfos, missing, plan. */
import { describe, expect, test } from "bun:test";
import { cacheSchema, missingAnswerSchema, planAnswerSchema } from "../../../src/api/caches.ts";
import { problemSchema } from "../../../src/api/problem.ts";
import { drawId, parseCacheName } from "../../../src/names.ts";
import { parseNarInfo } from "../../../src/nix/narinfo.ts";
import { createSignatureVerifier, signPathInfo } from "../../../src/nix/signature.ts";
import { formatSecretKey, parsePublicKey, publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { type StorePath, storePathHash } from "../../../src/nix/store-path.ts";
import { systemRandom } from "../../../src/runtime.ts";
import { insertCache } from "../../../src/server/database/caches.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createTinyPath, fileHashOf, storePathFor, type TinyPath } from "../../support/tiny-path.ts";

type Published = TinyPath["published"];

const LEAF = createTinyPath("leaf");
const TOP = createTinyPath("top", { references: [LEAF.storePath] });
const FOREIGN = secretKeyFromSeed("builder-1", new Uint8Array(32).fill(7));

async function publish(server: TestCoordinator, ...paths: readonly Published[]): Promise<Response> {
  return await server.fetch("caches/default/paths", { json: { paths } });
}

async function faultsOf(answer: Response): Promise<readonly string[]> {
  expect(answer.status).toBe(422);
  return problemSchema.parse(await answer.json()).errors ?? [];
}

async function plan(server: TestCoordinator, storePath: StorePath) {
  const answer = await server.fetch("caches/default/plan", { json: { storePath } });
  if (!answer.ok) return answer.status;
  return planAnswerSchema.parse(await answer.json()).narInfos.map(parseNarInfo);
}

async function missing(server: TestCoordinator, ...paths: readonly TinyPath[]) {
  const hashParts = paths.map(({ storePath }) => storePathHash(storePath));
  const answer = await server.fetch("caches/default/missing", { json: { hashParts } });
  return missingAnswerSchema.parse(await answer.json()).missing.map(String);
}

async function upload(server: TestCoordinator, ...paths: readonly TinyPath[]): Promise<void> {
  for (const path of paths) expect((await server.upload(path)).status).toBe(200);
}

describe("publishing", () => {
  test("a closure at once, in any order", async () => {
    await using server = await createTestCoordinator();
    await upload(server, TOP, LEAF);
    const answer = await publish(server, TOP.published, LEAF.published);
    expect(answer.status).toBe(201);
    expect(await answer.json()).toEqual({ published: 2 });
    const infos = await plan(server, TOP.storePath);
    expect(infos).toMatchObject([
      { storePath: LEAF.storePath },
      { storePath: TOP.storePath, references: [LEAF.storePath] },
    ]);
  });

  test("a path that refers to itself", async () => {
    await using server = await createTestCoordinator();
    const own = { ...LEAF.published, references: [LEAF.storePath] };
    await upload(server, LEAF);
    expect((await publish(server, own)).status).toBe(201);
    expect(await plan(server, LEAF.storePath)).toMatchObject([{ references: [LEAF.storePath] }]);
  });

  test("what is there already is left as it is, and counts as nothing", async () => {
    await using server = await createTestCoordinator();
    await server.push(LEAF);
    const before = await plan(server, LEAF.storePath);
    const changed = { ...LEAF.published, deriver: storePathFor("other.drv"), contentAddress: "text:sha256:x" };
    expect(await (await publish(server, changed)).json()).toEqual({ published: 0 });
    expect(await plan(server, LEAF.storePath)).toEqual(before);
  });

  test("the same path twice in one call", async () => {
    await using server = await createTestCoordinator();
    await upload(server, LEAF);
    expect((await publish(server, LEAF.published, LEAF.published)).status).toBe(201);
    expect(await plan(server, LEAF.storePath)).toHaveLength(1);
  });

  test("two calls at once", async () => {
    await using server = await createTestCoordinator();
    await upload(server, LEAF, TOP);
    const calls = [1, 2, 3].map(() => publish(server, LEAF.published, TOP.published));
    expect((await Promise.all(calls)).map(({ status }) => status)).toEqual([201, 201, 201]);
    expect(await plan(server, TOP.storePath)).toHaveLength(2);
  });

  test("more paths than one signing turn, in a chain", async () => {
    await using server = await createTestCoordinator();
    const chain: TinyPath[] = [];
    for (let n = 0; n < 100; n += 1) {
      const references = chain.slice(-1).map(({ storePath }) => storePath);
      chain.push(createTinyPath(`link-${n}`, { references }));
    }
    await server.push(...chain.toReversed());
    const infos = await plan(server, chain.at(-1)?.storePath ?? LEAF.storePath);
    expect(infos).toMatchObject(chain.map(({ storePath }) => ({ storePath })));
  });
});

describe("refused, and nothing of the call is published", () => {
  const other = createTinyPath("other");
  const cases: readonly (readonly [what: string, paths: readonly Published[], fault: string])[] = [
    [
      "a reference that is not there",
      [LEAF.published, { ...other.published, references: [TOP.storePath] }],
      "refers to",
    ],
    ["a NAR that was not uploaded", [LEAF.published, TOP.published], "has not been uploaded"],
    ["another NarHash than the NAR's", [{ ...LEAF.published, narHash: other.narHash }], "another NarHash or NarSize"],
    ["another NarSize than the NAR's", [{ ...LEAF.published, narSizeBytes: 5 }], "another NarHash or NarSize"],
    ["an unknown file", [{ ...LEAF.published, fileHash: fileHashOf(new Uint8Array(1)) }], "has not been uploaded"],
    ["a signature with a line break", [{ ...LEAF.published, signatures: ["a:b\nURL: evil"] }], "Sig"],
    ["an empty signature", [{ ...LEAF.published, signatures: [""] }], "Sig"],
    ["a content address with a line break", [{ ...LEAF.published, contentAddress: "a\nURL: evil" }], "CA"],
    ["a content address of two words", [{ ...LEAF.published, contentAddress: "a b" }], "CA"],
  ];
  for (const [what, paths, fault] of cases) {
    test(what, async () => {
      await using server = await createTestCoordinator();
      await upload(server, LEAF, other);
      expect((await faultsOf(await publish(server, ...paths))).join("\n")).toContain(fault);
      expect(await missing(server, LEAF, other)).toHaveLength(2);
    });
  }

  test("all faults are named at once", async () => {
    await using server = await createTestCoordinator();
    const faults = await faultsOf(
      await publish(server, TOP.published, { ...LEAF.published, references: [other.storePath] }),
    );
    expect(faults).toHaveLength(3);
    expect(faults.join("\n")).toContain(other.storePath);
  });

  test("no paths, a path that is none, a negative size", async () => {
    await using server = await createTestCoordinator();
    expect((await publish(server)).status).toBe(400);
    expect((await publish(server, { ...LEAF.published, storePath: "/etc/passwd" })).status).toBe(400);
    expect((await publish(server, { ...LEAF.published, narSizeBytes: -1 })).status).toBe(400);
  });

  test("a NAR that was uploaded to another cache only", async () => {
    await using server = await createTestCoordinator();
    const { database } = server.coordinator.services;
    const { workspace_id } = await database.selectFrom("caches").select("workspace_id").executeTakeFirstOrThrow();
    await insertCache(database, {
      id: drawId(systemRandom),
      workspace_id,
      name: parseCacheName("second"),
      is_public: 0,
      secret_key: formatSecretKey(FOREIGN),
      created_ms: 1_767_225_600_001,
    });
    expect((await server.upload(LEAF, { cache: "second" })).status).toBe(200);
    expect((await faultsOf(await publish(server, LEAF.published))).join()).toContain("has not been uploaded");
    const second = await server.fetch("caches/second/paths", { json: { paths: [LEAF.published] } });
    expect(second.status).toBe(201);
    expect(await missing(server, LEAF)).toHaveLength(1);
  });
});

describe("signatures", () => {
  async function verifierOf(server: TestCoordinator) {
    const { publicKeys } = cacheSchema.parse(await (await server.fetch("caches/default")).json());
    return createSignatureVerifier(publicKeys.map(parsePublicKey));
  }

  test("every path is signed by the cache's key", async () => {
    await using server = await createTestCoordinator();
    await server.push(LEAF, TOP);
    const verifier = await verifierOf(server);
    const infos = await plan(server, TOP.storePath);
    if (typeof infos === "number") throw new Error("no plan");
    expect(infos.map((info) => verifier.verify(info))).toEqual(
      Array(2).fill(expect.stringMatching(/^default-\w{6}-1$/)),
    );
  });

  test("those of others are kept, a forged one of ours is not", async () => {
    await using server = await createTestCoordinator();
    const { publicKeys } = cacheSchema.parse(await (await server.fetch("caches/default")).json());
    const ours = publicKeys[0]?.split(":")[0] ?? "";
    const info = { ...LEAF.published, ...LEAF, narSizeBytes: LEAF.nar.length, deriver: null, signatures: [] };
    const foreign = signPathInfo({ ...info, contentAddress: null }, FOREIGN);
    await upload(server, LEAF);
    const forged = `${ours}:${foreign.split(":")[1]}`;
    await publish(server, { ...LEAF.published, signatures: [foreign, forged] });
    const infos = await plan(server, LEAF.storePath);
    if (typeof infos === "number") throw new Error("no plan");
    const [published] = infos;
    expect(published?.signatures).toHaveLength(2);
    expect(published?.signatures).toContain(foreign);
    if (published === undefined) return;
    expect(createSignatureVerifier([publicKeyOf(FOREIGN)]).verify(published)).toBe("builder-1");
    expect((await verifierOf(server)).verify({ ...published, signatures: published.signatures.slice(1) })).toBe(ours);
  });

  test("survive a restart, key and all", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await server.push(LEAF);
    const before = await plan(server, LEAF.storePath);
    const verifier = await verifierOf(server);
    await server.restart();
    const after = await plan(server, LEAF.storePath);
    expect(after).toEqual(before);
    if (typeof after !== "number") for (const info of after) expect(verifier.verify(info)).not.toBeNull();
  });
});

describe("asking", () => {
  test("missing: in the order asked, doubles too", async () => {
    await using server = await createTestCoordinator();
    await server.push(LEAF);
    const hash = (path: TinyPath) => String(storePathHash(path.storePath));
    const other = createTinyPath("other");
    expect(await missing(server, TOP, LEAF, other, TOP)).toEqual([hash(TOP), hash(other), hash(TOP)]);
    expect(await missing(server)).toEqual([]);
  });

  test("missing: many at once", async () => {
    await using server = await createTestCoordinator();
    await server.push(LEAF);
    const hashParts = Array.from({ length: 4_999 }, (_, n) => storePathHash(storePathFor(`p-${n}`)));
    const answer = await server.fetch("caches/default/missing", {
      json: { hashParts: [storePathHash(LEAF.storePath), ...hashParts] },
    });
    expect(missingAnswerSchema.parse(await answer.json()).missing).toEqual(hashParts);
  });

  const bad: readonly (readonly [what: string, hashParts: unknown])[] = [
    ["what is no hash part", ["x"]],
    ["too many", Array.from({ length: 5_001 }, () => storePathHash(LEAF.storePath))],
    ["no list", "x"],
  ];
  for (const [what, hashParts] of bad) {
    test(`missing: ${what}`, async () => {
      await using server = await createTestCoordinator();
      expect((await server.fetch("caches/default/missing", { json: { hashParts } })).status).toBe(400);
    });
  }

  test("a plan of a path that is not there", async () => {
    await using server = await createTestCoordinator();
    await server.push(LEAF);
    expect(await plan(server, TOP.storePath)).toBe(404);
  });

  test("a plan of a path with the hash of another name", async () => {
    await using server = await createTestCoordinator();
    await server.push(LEAF);
    const renamed = LEAF.storePath.replace("-leaf", "-loaf");
    expect((await server.fetch("caches/default/plan", { json: { storePath: renamed } })).status).toBe(404);
  });

  test("a diamond comes once", async () => {
    await using server = await createTestCoordinator();
    const left = createTinyPath("left", { references: [LEAF.storePath] });
    const right = createTinyPath("right", { references: [LEAF.storePath] });
    const tip = createTinyPath("tip", { references: [left.storePath, right.storePath] });
    await server.push(LEAF, left, right, tip);
    const infos = await plan(server, tip.storePath);
    if (typeof infos === "number") throw new Error("no plan");
    expect(infos).toHaveLength(4);
    expect(infos.at(0)?.storePath).toBe(LEAF.storePath);
    expect(infos.at(-1)?.storePath).toBe(tip.storePath);
  });

  test("settings: public and back", async () => {
    await using server = await createTestCoordinator();
    for (const isPublic of [true, false]) {
      const answer = await server.fetch("caches/default", { method: "PATCH", json: { public: isPublic } });
      expect(cacheSchema.parse(await answer.json()).public).toBe(isPublic);
      expect(cacheSchema.parse(await (await server.fetch("caches/default")).json())).toMatchObject({
        name: "default",
        url: "http://coordinator.test/cache/default",
        public: isPublic,
      });
    }
  });
});
