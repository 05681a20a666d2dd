/** A cache that gets other keys: what it is signed with, before and after, and what agents are told. */
import { expect, test } from "bun:test";
import { cacheSchema, planAnswerSchema } from "../../../src/api/caches.ts";
import { followKeyStatements } from "../../../src/key-statement.ts";
import { parseNarInfo } from "../../../src/nix/narinfo.ts";
import { createSignatureVerifier } from "../../../src/nix/signature.ts";
import { parsePublicKey } from "../../../src/nix/signing-key.ts";
import { nextKeyName } from "../../../src/server/cache/rotate-cache-key.ts";
import { listCacheKeys } from "../../../src/server/database/cache-keys.ts";
import { loadWorkspaceCache } from "../../../src/server/database/caches.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createTinyPath, type TinyPath } from "../../support/tiny-path.ts";

const BEFORE = createTinyPath("before");
const BETWEEN = createTinyPath("between");
const AFTER = createTinyPath("after");

async function rotate(server: TestCoordinator) {
  const answer = await server.fetch("caches/default/key-rotations", { method: "POST" });
  expect(answer.status).toBe(201);
  return cacheSchema.parse(await answer.json());
}

async function keyOf(server: TestCoordinator): Promise<string> {
  const { publicKeys } = cacheSchema.parse(await (await server.fetch("caches/default")).json());
  expect(publicKeys).toHaveLength(1);
  return publicKeys[0] ?? "";
}

/** Whether a reader who trusts only this key takes the path, by plan; checked to be the same by the narinfo that Nix reads. */
async function takes(server: TestCoordinator, key: string, { storePath }: TinyPath): Promise<boolean> {
  const answer = await server.fetch("caches/default/plan", { json: { storePath } });
  const [text] = planAnswerSchema.parse(await answer.json()).narInfos;
  const verifier = createSignatureVerifier([parsePublicKey(key)]);
  return verifier.verify(parseNarInfo(text ?? "")) !== null;
}

test("what was published before, between and after is signed by the present key, and what is new by the one before too", async () => {
  await using server = await createTestCoordinator({ database: "file" });
  const first = await keyOf(server);
  await server.push(BEFORE);
  expect(await takes(server, first, BEFORE)).toBeTrue();
  const second = (await rotate(server)).publicKeys[0] ?? "";
  await server.push(BETWEEN);
  const third = (await rotate(server)).publicKeys[0] ?? "";
  await server.push(AFTER);
  for (let start = 0; start < 2; start += 1) {
    const table = [];
    for (const path of [BEFORE, BETWEEN, AFTER]) {
      table.push([
        await takes(server, first, path),
        await takes(server, second, path),
        await takes(server, third, path),
      ]);
    }
    expect(table).toEqual([
      [true, false, true],
      [true, true, true],
      [false, true, true],
    ]);
    await server.restart();
  }
});

test("agents are told the whole chain, and one that was away for it follows it to the present key", async () => {
  await using server = await createTestCoordinator({ database: "file" });
  const agent = await server.connectAgent("nuc");
  const pinned = agent.framesOf("welcome")[0]?.cache.publicKeys ?? [];
  expect(agent.framesOf("welcome")[0]?.cache.keyStatements).toBeUndefined();
  await agent.disconnect();
  for (let n = 0; n < 3; n += 1) await rotate(server);
  await server.restart();
  const again = await server.connectAgent(agent.identity);
  const [welcome] = again.framesOf("welcome");
  const statements = welcome?.cache.keyStatements ?? [];
  expect(statements.map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
  const followed = followKeyStatements({ cache: "default", pinned, statements });
  expect(followed.pinned).toEqual([await keyOf(server)]);
  expect(followed.refused).toEqual([]);
});

test("old secrets are forgotten, but for the last one", async () => {
  await using server = await createTestCoordinator();
  for (let n = 0; n < 3; n += 1) await rotate(server);
  const { database } = server.coordinator.services;
  const { workspace_id } = (await database.selectFrom("caches").select("workspace_id").executeTakeFirst()) ?? {
    workspace_id: "",
  };
  const cache = await loadWorkspaceCache(database, workspace_id);
  const rows = await listCacheKeys(database, cache.id);
  expect(rows.map(({ old_secret }) => old_secret !== null)).toEqual([false, false, true]);
  const text = await (await server.fetch("caches/default")).text();
  for (const secret of [cache.secret_key, rows[2]?.old_secret ?? ""]) expect(text).not.toContain(secret);
});

test("no more rotations than agents follow", async () => {
  await using server = await createTestCoordinator();
  for (let n = 0; n < 64; n += 1) await rotate(server);
  expect((await server.fetch("caches/default/key-rotations", { method: "POST" })).status).toBe(422);
  expect((await server.connectAgent("nuc")).framesOf("welcome")[0]?.cache.keyStatements).toHaveLength(64);
});

test.each([
  ["default-x7k2p1-1", "default-x7k2p1-2"],
  ["default-x7k2p1-9", "default-x7k2p1-10"],
  ["builder", "builder-2"],
])("the key after %s is %s", (name, next) => {
  expect(nextKeyName(name)).toBe(next);
});
