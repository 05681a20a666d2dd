/** Workspaces and caches through the API: made, set, renamed, and deleted so that nothing is left, whenever it is killed. */
import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { sql } from "kysely";
import { cacheListSchema, cacheSchema, foreignCacheListSchema } from "../../../src/api/caches.ts";
import { problemSchema } from "../../../src/api/problem.ts";
import { createdTokenSchema } from "../../../src/api/tokens.ts";
import { deletedWorkspaceSchema, workspaceListSchema, workspaceSchema } from "../../../src/api/workspaces.ts";
import { parseWorkspaceName } from "../../../src/names.ts";
import { REMOVED_TABLES } from "../../../src/server/database/removals.ts";
import { findWorkspace } from "../../../src/server/database/workspaces.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import { createAgentIdentity, openScriptedAgent } from "../../support/scripted-agent.ts";
import { createTinyPath, type TinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";

const PATH = createTinyPath("one");
const OTHER = createTinyPath("two");
const KEY = "cache.nixos.example-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

const make = async (server: TestCoordinator, name: string) =>
  workspaceSchema.parse(await (await expectOk(await server.fetch("workspaces", { json: { name } }))).json());

async function tokenOf(server: TestCoordinator, kind: string, workspace: string): Promise<string> {
  const answer = await expectOk(await server.fetch("tokens", { json: { kind, workspace } }));
  return createdTokenSchema.parse(await answer.json()).token;
}

async function pushTo(server: TestCoordinator, cache: string, ...paths: readonly TinyPath[]): Promise<void> {
  for (const path of paths) await expectOk(await server.upload(path, { cache }));
  const published = paths.map((path) => path.published);
  await expectOk(await server.fetch(`caches/${cache}/paths`, { json: { paths: published } }));
}

async function connect(server: TestCoordinator, agent: { name: string; workspace: string }) {
  const scripted = openScriptedAgent(server.coordinator, createAgentIdentity(agent.name));
  await scripted.login({ enrolmentToken: await tokenOf(server, "agent", agent.workspace) });
  return scripted;
}

const problemOf = async (answer: Response) => problemSchema.parse(await answer.json());

describe("a workspace", () => {
  test("has a cache of its name, and what is in it is apart from others", async () => {
    await using server = await createTestCoordinator();
    expect(await make(server, "prod")).toMatchObject({ name: "prod", agents: 0, caches: ["prod"], foreignCaches: [] });
    const inProd = await connect(server, { name: "nuc", workspace: "prod" });
    const inDefault = await connect(server, { name: "nuc", workspace: "default" });
    const [prod, other] = [inProd, inDefault].map((agent) => agent.framesOf("welcome")[0]);
    expect([prod?.workspace, prod?.cache.path, other?.workspace, other?.cache.path].map(String)).toEqual([
      "prod",
      "/cache/prod",
      "default",
      "/cache/default",
    ]);
    expect(prod?.cache.publicKeys).not.toEqual(other?.cache.publicKeys);
    const readsProd = async (token = "") => (await server.fetch("caches/prod", { token })).status;
    expect(await readsProd(prod?.readCredential)).toBe(200);
    expect(await readsProd(other?.readCredential)).toBe(404);
  });

  test("its settings hold for rollouts that do not say otherwise", async () => {
    await using server = await createTestCoordinator();
    await server.push(PATH);
    const agent = await server.connectAgent("nuc");
    const patch = async (json: object) => await server.fetch("workspaces/default", { method: "PATCH", json });
    const settings = { confirmWindowMs: 120_000, activationTimeoutMs: 600_000 };
    await expectOk(await patch({ ...settings, expiresMs: 86_400_000, logRetentionMs: 86_400_000 }));
    await server.activate(PATH, "nuc");
    expect(agent.framesOf("offer").at(-1)?.policy).toEqual(settings);
    await expectOk(await patch({ activationTimeoutMs: null }));
    await server.fetch("cancellations", { json: { of: ["nuc"] } });
    const said = { agents: { nuc: PATH.storePath }, mode: "switch", policy: { confirmWindowMs: 5_000 } };
    await expectOk(await server.fetch("rollouts", { json: said }));
    const shown = workspaceSchema.parse(await (await server.fetch("workspaces/default")).json());
    expect(shown.settings).toEqual({
      ...{ confirmWindowMs: 120_000, activationTimeoutMs: null, expiresMs: 86_400_000, logRetentionMs: 86_400_000 },
      deploymentRetentionMs: null,
    });
    const { database } = server.coordinator.services;
    const last = await database.selectFrom("deployments").select("policy").orderBy("number", "desc").executeTakeFirst();
    expect(JSON.parse(last?.policy ?? "")).toEqual({ confirmWindowMs: 5_000 });
  });

  test.each([
    ["too short", { confirmWindowMs: 1 }],
    ["too long", { activationTimeoutMs: 1e12 }],
    ["nothing", {}],
  ])("settings that are %s are refused", async (_what, json) => {
    await using server = await createTestCoordinator();
    expect((await server.fetch("workspaces/default", { method: "PATCH", json })).status).toBe(400);
  });

  test("renamed, its agents, tokens and cache work as before", async () => {
    await using server = await createTestCoordinator();
    await make(server, "prod");
    await pushTo(server, "prod", PATH);
    const token = await tokenOf(server, "activate", "prod");
    const identity = createAgentIdentity("nuc");
    const first = openScriptedAgent(server.coordinator, identity);
    await first.login({ enrolmentToken: await tokenOf(server, "agent", "prod") });
    await expectOk(await server.fetch("workspaces/prod/rename", { json: { name: "production" } }));
    const again = openScriptedAgent(server.coordinator, identity);
    await again.login();
    expect(String(again.framesOf("welcome")[0]?.workspace)).toBe("production");
    expect(again.framesOf("welcome")[0]?.cache.path).toBe("/cache/prod");
    const rollout = { agents: { nuc: PATH.storePath }, mode: "switch" };
    await expectOk(await server.fetch("rollouts", { json: rollout, token }));
    expect((await server.fetch("workspaces/prod")).status).toBe(404);
    expect(await make(server, "other")).toMatchObject({ caches: ["other"] });
  });

  test("a name that is taken is refused, by a workspace or by a cache", async () => {
    await using server = await createTestCoordinator();
    await make(server, "prod");
    await expectOk(await server.fetch("caches", { json: { name: "extra", workspace: "prod" } }));
    for (const [path, name] of [
      ["workspaces", "prod"],
      ["workspaces", "extra"],
      ["caches", "prod"],
      ["workspaces/prod/rename", "default"],
    ]) {
      expect([path, (await server.fetch(path ?? "", { json: { name } })).status]).toEqual([path, 409]);
    }
  });

  test("the first one, renamed or deleted, does not come back at the next start", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await make(server, "prod");
    await expectOk(await server.fetch("workspaces/default", { method: "DELETE" }));
    await server.restart();
    const { workspaces } = workspaceListSchema.parse(await (await server.fetch("workspaces")).json());
    expect(workspaces.map(({ name }) => String(name))).toEqual(["prod"]);
  });
});

describe("several caches", () => {
  test("one is the default, for agents and for push, and an agent is told of the others", async () => {
    await using server = await createTestCoordinator();
    const extra = await expectOk(await server.fetch("caches", { json: { name: "extra", public: true } }));
    expect(cacheSchema.parse(await extra.json())).toMatchObject({ workspace: "default", default: false, public: true });
    await expectOk(
      await server.fetch("workspaces/default/foreign-caches/nixos", {
        ...{ method: "PUT", json: { url: "https://cache.nixos.example/", publicKeys: [KEY] } },
      }),
    );
    const before = (await server.connectAgent("nuc")).framesOf("welcome")[0];
    expect(before).toMatchObject({
      cache: { name: "default" },
      substituters: [
        { own: true, name: "extra", path: "/cache/extra" },
        { own: false, name: "nixos", url: "https://cache.nixos.example", publicKeys: [KEY] },
      ],
    });
    await expectOk(await server.fetch("caches/extra", { method: "PATCH", json: { default: true } }));
    const after = (await server.connectAgent("tv")).framesOf("welcome")[0];
    expect(after).toMatchObject({ cache: { name: "extra" }, substituters: [{ name: "default" }, { name: "nixos" }] });
    const { caches } = cacheListSchema.parse(await (await server.fetch("caches")).json());
    expect(caches.map((cache) => `${cache.name} ${cache.default}`)).toEqual(["extra true", "default false"]);
  });

  test("a rollout takes what any of them has, and says which were looked into", async () => {
    await using server = await createTestCoordinator();
    await server.fetch("caches", { json: { name: "extra" } });
    await pushTo(server, "extra", PATH);
    await server.connectAgent("nuc");
    const { deployments } = await server.activate(PATH, "nuc");
    expect(deployments[0]?.closureSizeBytes).toBe(PATH.nar.length);
    const json = { agents: { nuc: OTHER.storePath }, mode: "switch" };
    const { errors = [] } = await problemOf(await server.fetch("rollouts", { json }));
    expect(errors).toEqual([`${OTHER.storePath} is in none of the caches default, extra: push it first`]);
  });

  test.each([
    ["no URL", "nixos"],
    ["another scheme", "ftp://cache.example"],
    ["a password", "https://me:secret@cache.example"],
    ["a query", "https://cache.example/?token=1"],
  ])("a substituter with %s is refused", async (_what, url) => {
    await using server = await createTestCoordinator();
    const json = { url, publicKeys: [KEY] };
    const answer = await server.fetch("workspaces/default/foreign-caches/x", { method: "PUT", json });
    expect(answer.status).toBe(400);
    expect(await answer.text()).not.toContain("secret");
  });

  test("keys that are none are refused, and there are at most 16 foreign caches", async () => {
    await using server = await createTestCoordinator();
    const put = async (name: string, publicKeys: readonly string[]) =>
      (
        await server.fetch(`workspaces/default/foreign-caches/${name}`, {
          ...{ method: "PUT", json: { url: "https://cache.example", publicKeys } },
        })
      ).status;
    expect(await put("x", ["no key"])).toBe(400);
    expect(await put("x", [])).toBe(400);
    for (let index = 0; index < 16; index += 1) expect(await put(`c${index}`, [KEY])).toBe(200);
    expect(await put("c16", [KEY])).toBe(409);
    expect(await put("c15", [KEY, KEY])).toBe(200);
    const listed = await (await server.fetch("foreign-caches?workspace=default")).json();
    expect(foreignCacheListSchema.parse(listed).foreignCaches).toHaveLength(16);
  });

  test("the default is not deleted, one with paths only by force, and then its files go if nobody else has them", async () => {
    await using server = await createTestCoordinator();
    await server.fetch("caches", { json: { name: "extra" } });
    await pushTo(server, "default", PATH);
    await pushTo(server, "extra", PATH, OTHER);
    const deleteOne = async (query: string) => await server.fetch(`caches/${query}`, { method: "DELETE" });
    expect((await deleteOne("default?force=true")).status).toBe(409);
    expect((await deleteOne("extra")).status).toBe(409);
    expect(await (await deleteOne("extra?force=true")).json()).toEqual({ name: "extra", paths: 2 });
    expect((await server.fetch("caches/extra")).status).toBe(404);
    await server.coordinator.services.removals.settled();
    expect(await filesOf(server)).toHaveLength(1);
    expect((await server.fetch("caches/default/plan", { json: { storePath: PATH.storePath } })).status).toBe(200);
    await expectOk(await server.fetch("caches", { json: { name: "extra" } }));
    await pushTo(server, "extra", OTHER);
    expect(await filesOf(server)).toHaveLength(2);
  });

  test("an upload that ends in a deleted cache is refused", async () => {
    await using server = await createTestCoordinator();
    await server.fetch("caches", { json: { name: "extra" } });
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    const uploading = server.upload(PATH, { cache: "extra", body: readable });
    await writer.write(PATH.file);
    await expectOk(await server.fetch("caches/extra?force=true", { method: "DELETE" }));
    await writer.close();
    expect((await uploading).status).toBe(404);
  });
});

async function filesOf(server: TestCoordinator): Promise<string[]> {
  return (await readdir(`${server.directory}/nars`, { recursive: true })).filter((name) => name.endsWith(".nar.zst"));
}

/** A workspace with something in every table that belongs to it. */
async function fill(server: TestCoordinator, name: string) {
  await make(server, name);
  await pushTo(server, name, PATH);
  await expectOk(
    await server.fetch(`workspaces/${name}/foreign-caches/nixos`, {
      ...{ method: "PUT", json: { url: "https://cache.example", publicKeys: [KEY] } },
    }),
  );
  const agent = await connect(server, { name: "nuc", workspace: name });
  const json = { workspace: name, agents: { nuc: PATH.storePath }, mode: "switch" };
  await expectOk(await server.fetch("rollouts", { json }));
  const id = agent.framesOf("offer")[0]?.deploymentId;
  if (id === undefined) throw new Error("nothing was offered");
  await agent.report(id, [{ type: "log", n: 1, atMs: 1, stream: "out", text: "hello" }]);
  await agent.report(id, [
    {
      type: "outcome",
      n: 2,
      atMs: 1,
      outcome: "failed",
      reason: "no",
      previousPath: null,
      fetchedBytes: null,
      exitCode: null,
      phaseMs: {},
    },
  ]);
  await expectOk(await server.fetch("retries", { json: { of: ["nuc"], workspace: name } }));
  return agent;
}

/** Every row of every table that belongs to the workspace, directly or through what it refers to. */
async function countRows(server: TestCoordinator, workspaceId: string): Promise<Record<string, number>> {
  const { database } = server.coordinator.services;
  const tables = await sql<{ name: string }>`select name from sqlite_master where type = 'table'`.execute(database);
  const counts: Record<string, number> = {};
  const own = await database.selectFrom("workspaces").select("id").where("id", "=", workspaceId).execute();
  const wanted: Record<string, unknown[]> = { workspaces: own.map(({ id }) => id) };
  for (let grew = true; grew; ) {
    grew = false;
    for (const { name } of tables.rows.filter((table) => table.name !== "audit_log")) {
      const columns = await sql<{ name: string }>`select name from pragma_table_info(${name})`.execute(database);
      const keys = await sql<{ from: string; table: string; to: string }>`
        select "from", "table", "to" from pragma_foreign_key_list(${name})`.execute(database);
      const links = keys.rows.map((key) => ({ column: key.from, table: key.table }));
      if (columns.rows.some((column) => column.name === "workspace_id"))
        links.push({ column: "workspace_id", table: "" });
      const ids = new Set<unknown>(wanted[name] ?? []);
      for (const link of links) {
        // What has no foreign key may outlive the workspace, and must not.
        const values = link.table === "" ? [workspaceId] : (wanted[link.table] ?? []);
        if (values.length === 0 || link.column === "file_hash") continue;
        const rows = await sql<{ key: unknown }>`
          select ${sql.ref(columns.rows.some((column) => column.name === "id") ? "id" : "rowid")} as key
          from ${sql.table(name)} where ${sql.ref(link.column)} in (${sql.join(values)})`.execute(database);
        for (const { key } of rows.rows) ids.add(key);
      }
      if (ids.size > (wanted[name]?.length ?? 0)) grew = true;
      wanted[name] = [...ids];
      counts[name] = ids.size;
    }
  }
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}

const idOf = async (server: TestCoordinator, name: string) =>
  (await findWorkspace(server.coordinator.services.database, parseWorkspaceName(name)))?.id ?? "";

describe("deleting a workspace", () => {
  test("is refused while agents are bound to it, and says what force would do", async () => {
    await using server = await createTestCoordinator();
    await fill(server, "prod");
    const problem = await problemOf(await server.fetch("workspaces/prod", { method: "DELETE" }));
    expect(problem).toMatchObject({
      status: 409,
      title: "cannot delete the workspace prod: 1 agent is bound to it (nuc)",
      hint: expect.stringContaining("revokes 1 token, and deletes the cache prod with 1 path, and 2 deployments"),
    });
    expect((await server.fetch("workspaces/prod")).status).toBe(200);
  });

  test("disconnects and forgets its agents, and ends its tokens and their streams, at once", async () => {
    await using server = await createTestCoordinator();
    const agent = await fill(server, "prod");
    const token = await tokenOf(server, "admin", "prod");
    const { database } = server.coordinator.services;
    const rollouts = await database.selectFrom("rollouts").selectAll().execute();
    const streams = await Promise.all(
      [token, server.adminToken].map(async (credential) => {
        const answer = await server.fetch(`rollouts/${rollouts.at(-1)?.id}/follow`, { token: credential });
        const reader = (await expectOk(answer)).body?.getReader();
        await reader?.read();
        return reader;
      }),
    );
    const deleted = await expectOk(await server.fetch("workspaces/prod?force=true", { method: "DELETE" }));
    expect(deletedWorkspaceSchema.parse(await deleted.json())).toMatchObject({
      ...{ name: "prod", agents: 1, tokens: 2, caches: [{ name: "prod", paths: 1 }], deployments: 2 },
    });
    for (const stream of streams) {
      while ((await stream?.read())?.done === false);
    }
    expect(agent.closed?.reason).toContain("its workspace was deleted");
    const again = openScriptedAgent(server.coordinator, agent.identity);
    await again.login();
    expect(again.framesOf("refused")[0]?.code).toBe("not-enrolled");
    expect((await server.fetch("status", { token })).status).toBe(401);
    for (const path of ["workspaces/prod", "caches/prod", `rollouts/${rollouts.at(-1)?.id}`]) {
      expect([path, (await server.fetch(path)).status]).toEqual([path, 404]);
    }
    await server.coordinator.services.removals.settled();
  });

  test("its name and its agents' keys are free at once, and nothing of it is left in the end", async () => {
    await using server = await createTestCoordinator();
    const agent = await fill(server, "prod");
    await fill(server, "kept");
    const [id, kept] = [await idOf(server, "prod"), await idOf(server, "kept")];
    const before = await countRows(server, id);
    expect(Object.keys(before)).toEqual(
      expect.arrayContaining([
        "agents",
        "caches",
        "deployments",
        "events",
        "foreign_caches",
        "log_chunks",
        "paths",
        "tokens",
      ]),
    );
    const keptRows = await countRows(server, kept);
    await expectOk(await server.fetch("workspaces/prod?force=true", { method: "DELETE" }));
    await make(server, "prod");
    const again = openScriptedAgent(server.coordinator, agent.identity);
    await again.login({ enrolmentToken: await tokenOf(server, "agent", "prod") });
    expect(again.framesOf("welcome")).toHaveLength(1);
    await server.coordinator.services.removals.settled();
    expect(await countRows(server, id)).toEqual({});
    expect(await countRows(server, kept)).toEqual(keptRows);
    expect(await filesOf(server)).toHaveLength(1);
  });

  test("every table that belongs to a workspace has its step", async () => {
    await using server = await createTestCoordinator();
    const { database } = server.coordinator.services;
    const links = await sql<{ name: string; target: string; rule: string }>`
      select m.name, f."table" as target, f.on_delete as rule
      from sqlite_master m join pragma_foreign_key_list(m.name) f where m.type = 'table'
      union all
      select m.name, 'workspaces', '' from sqlite_master m join pragma_table_info(m.name) c
      where m.type = 'table' and c.name = 'workspace_id'
        -- Who deleted it is on record for as long as anything else.
        and m.name != 'audit_log'`.execute(database);
    const belonging = new Set(["workspaces"]);
    for (let before = 0; before < belonging.size; ) {
      before = belonging.size;
      for (const { name, target, rule } of links.rows) {
        if (belonging.has(target) && rule !== "CASCADE") belonging.add(name);
      }
    }
    expect([...belonging].sort()).toEqual([...REMOVED_TABLES].sort());
  });

  test("goes on after a kill at any step", async () => {
    let left = 1;
    for (let turns = 0; left > 0; turns = 2 * turns + 5) {
      await using server = await createTestCoordinator({ database: "file" });
      await fill(server, "prod");
      const id = await idOf(server, "prod");
      await expectOk(await server.fetch("workspaces/prod?force=true", { method: "DELETE" }));
      // Some steps are made, by one coordinator, and then it is gone.
      for (let turn = 0; turn < turns; turn += 1) await Bun.sleep(0);
      await server.coordinator.services.removals[Symbol.asyncDispose]();
      left = Object.keys(await countRows(server, id)).length;
      if (turns === 0) expect(left).toBeGreaterThan(5);
      await server.restart();
      await server.coordinator.services.removals.settled();
      expect(await countRows(server, id)).toEqual({});
    }
  }, 60_000);

  test("a disk that fails puts it off, and it is tried again", async () => {
    let isBroken = true;
    await using server = await createTestCoordinator({
      wrapBlobs: (blobs) => ({
        ...blobs,
        remove: async (fileHash) => {
          if (isBroken) throw new Error("EIO");
          await blobs.remove(fileHash);
        },
      }),
    });
    await make(server, "prod");
    await pushTo(server, "prod", PATH);
    await expectOk(await server.fetch("workspaces/prod", { method: "DELETE" }));
    await server.coordinator.services.removals.settled();
    expect(await filesOf(server)).toHaveLength(1);
    expect(server.logged.splice(0).filter(({ level }) => level === "error")).toHaveLength(1);
    isBroken = false;
    await waitFor("the file is gone", async () => {
      await server.clock.advance(60_000);
      await server.coordinator.services.removals.settled();
      return (await filesOf(server)).length === 0;
    });
  });
});

describe("a global admin token", () => {
  test("is made by name, and only by who has that right", async () => {
    await using server = await createTestCoordinator();
    const json = { kind: "admin", global: true };
    const answer = await expectOk(await server.fetch("tokens", { json }));
    const created = createdTokenSchema.parse(await answer.json());
    expect(created.workspace).toBeNull();
    await expectOk(await server.fetch("workspaces", { json: { name: "prod" }, token: created.token }));
    const local = await tokenOf(server, "admin", "default");
    expect((await server.fetch("tokens", { json, token: local })).status).toBe(404);
    for (const wrong of [
      { kind: "read", global: true },
      { ...json, workspace: "default" },
    ]) {
      expect((await server.fetch("tokens", { json: wrong })).status).toBe(400);
    }
    const listed = await (await server.fetch("tokens?workspace=default")).text();
    expect(listed).not.toContain(created.id);
  });
});
