/** The audit log: every act has a line, what changes nothing has none, and who sees which lines. */
import { describe, expect, test } from "bun:test";
import { auditListSchema } from "../../../src/api/audit.ts";
import { createApiRoutes } from "../../../src/server/app.ts";
import { listChores } from "../../../src/server/operations/chores.ts";
import { isAct } from "../../../src/server/routes/route.ts";
import { createTestCoordinator, type TestCoordinator, toRequest } from "../../support/coordinator.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const PATH = createTinyPath("one");
const DAY_MS = 24 * 60 * 60 * 1000;

async function readAudit(server: TestCoordinator, query = "", token?: string) {
  const answer = await server.fetch(`audit${query}`, token === undefined ? {} : { token });
  expect(answer.status).toBe(200);
  return auditListSchema.parse(await answer.json());
}

/** Oldest first, without what is the same everywhere. */
async function readActs(server: TestCoordinator) {
  return (await readAudit(server)).entries.reverse().map(({ act, target, effect }) => [act, target, effect]);
}

describe("the audit log", () => {
  test("has what was done, to what, with what effect", async () => {
    await using server = await createTestCoordinator();
    const push = await server.createToken("push");
    await server.push(PATH);
    await server.fetch("caches/default", { method: "PATCH", json: { public: true } });
    await server.connectAgent("nuc");
    const rollout = await server.activate(PATH, "nuc");
    const id = rollout.deployments[0]?.id ?? "";
    await server.fetch("cancellations", { json: { of: [id] } });
    await server.fetch(`tokens/${push.token}`, { method: "DELETE" });
    const acts = await readActs(server);
    expect(acts.filter(([act]) => act !== "POST /tokens")).toEqual([
      ["POST /caches/:cache/paths", "cache default", "1 paths published"],
      ["PATCH /caches/:cache", "cache default", "made public"],
      ["enroll", "nuc", expect.stringMatching(/^admitted: agent [0-9a-z]{16}, \S+, profile \S+$/)],
      ["POST /rollouts", "nuc", `started: rollout ${rollout.id}, 1 deployment`],
      ["POST /cancellations", id, `cancelled: ${id}`],
      ["DELETE /tokens/:id", `token ${push.id}`, "revoked, kind push"],
    ]);
    expect(acts[0]).toEqual(["POST /tokens", `token ${push.id}`, "made, kind push"]);
  });

  test("says who, from where, when, in which workspace, and by which request", async () => {
    await using server = await createTestCoordinator();
    const request = () =>
      toRequest("tokens", {
        token: server.adminToken,
        headers: { "x-request-id": "abc", "x-forwarded-for": "203.0.113.9" },
        json: { kind: "read", description: "for CI" },
      });
    await server.coordinator.fetch(request(), { control: false, peer: "127.0.0.1" });
    await server.coordinator.fetch(request(), { control: true });
    const { entries } = await readAudit(server);
    const [byControl, byToken] = entries;
    expect(byToken).toEqual({
      at: new Date(server.clock.nowMs()).toISOString(),
      workspace: "default" as never,
      actor: { kind: "token", id: expect.any(String), name: "admin: made at the first start" },
      address: "203.0.113.9",
      act: "POST /tokens",
      target: expect.stringMatching(/^token [0-9a-z]{16}$/),
      effect: "made, kind read for CI",
      requestId: "abc",
    });
    expect(byControl).toMatchObject({ actor: { kind: "control", id: null }, address: null });
    expect(JSON.stringify(entries)).not.toContain(server.adminToken.split("_").at(-1) ?? "");
  });

  test("has nothing of what was refused, or changed nothing", async () => {
    await using server = await createTestCoordinator();
    await server.fetch("tokens", { json: { kind: "none" } });
    await server.fetch("tokens", { json: { kind: "read", workspace: "nowhere" } });
    await server.fetch("rollouts", { json: { agents: { nobody: PATH.storePath }, mode: "switch" } });
    await server.fetch("caches/default/missing", { json: { hashParts: [] } });
    await server.upload(PATH);
    expect((await readAudit(server)).entries).toEqual([]);
  });

  test("can be read back from a time, in pages", async () => {
    await using server = await createTestCoordinator();
    for (let index = 0; index < 5; index += 1) {
      await server.createToken("read");
      await server.clock.advance(DAY_MS);
    }
    const all = (await readAudit(server)).entries;
    expect(all).toHaveLength(5);
    const since = new Date(server.clock.nowMs() - 2.5 * DAY_MS).toISOString();
    expect((await readAudit(server, `?since=${since}`)).entries).toEqual(all.slice(0, 2));
    const paged: unknown[] = [];
    let next: string | null = "";
    while (next !== null) {
      const page: Awaited<ReturnType<typeof readAudit>> = await readAudit(
        server,
        `?limit=2${next === "" ? "" : `&after=${next}`}`,
      );
      paged.push(...page.entries);
      ({ next } = page);
    }
    expect(paged).toEqual(all);
  });

  test("keeps a line for as long as it is told, and no longer", async () => {
    await using server = await createTestCoordinator();
    const chores = listChores(server.coordinator.services, { onBeat: () => {}, keepAuditMs: 2 * DAY_MS });
    for (let day = 0; day < 4; day += 1) {
      await server.createToken("read");
      await server.clock.advance(DAY_MS);
    }
    for (const chore of chores.filter(({ what }) => what.includes("audit"))) await chore.run(0);
    expect((await readAudit(server)).entries).toHaveLength(2);
  });

  test("an act whose line cannot be written is in the log, and was done", async () => {
    await using server = await createTestCoordinator();
    const { sql } = await import("kysely");
    await sql`alter table audit_log rename to gone`.execute(server.coordinator.services.database);
    expect((await server.fetch("tokens", { json: { kind: "read" } })).status).toBe(201);
    const errors = server.logged.filter(({ level }) => level === "error");
    expect(errors).toMatchObject([{ message: "cannot write to the audit log", fields: { act: "POST /tokens" } }]);
    server.logged.length = 0;
  });
});

test("every route that is no GET is an act, but for those that change nothing", async () => {
  await using server = await createTestCoordinator();
  const quiet = createApiRoutes(server.coordinator.services).filter((route) => route.method !== "GET" && !isAct(route));
  expect(quiet.map(({ method, path }) => `${method} ${path}`).sort()).toEqual([
    "POST /caches/:cache/missing",
    "POST /caches/:cache/plan",
    "POST /redeployment-plans",
    "POST /retry-plans",
    "POST /rollback-plans",
    "POST /rollout-plans",
    "PUT /caches/:cache/nars/:narHash",
  ]);
});
