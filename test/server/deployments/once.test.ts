/** Idempotency keys: a request that is sent again, for whatever reason, starts nothing twice. */
import { describe, expect, test } from "bun:test";
import { problemSchema } from "../../../src/api/problem.ts";
import { type StartedRolloutDto, startedRolloutSchema } from "../../../src/api/rollouts.ts";
import { fingerprintOf } from "../../../src/server/deployments/once.ts";
import { createTestCoordinator, type RequestOptions, type TestCoordinator } from "../../support/coordinator.ts";
import { numberEntries, outcomeEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");
const HOUR_MS = 3_600_000;

async function createServer(database: "memory" | "file" = "memory"): Promise<TestCoordinator> {
  const server = await createTestCoordinator({ database });
  await server.publishUnseen(ONE, TWO);
  for (const name of ["nuc", "tv"]) await (await server.connectAgent(name)).disconnect();
  return server;
}

const spec = (path = ONE) => ({ agents: { nuc: path.storePath }, mode: "switch" });

async function post(
  server: TestCoordinator,
  json: object,
  { key, path = "rollouts", ...more }: RequestOptions & { readonly key: string; readonly path?: string },
): Promise<{ readonly status: number; readonly answer: StartedRolloutDto }> {
  const response = await server.fetch(path, { json, headers: { "idempotency-key": key }, ...more });
  return { status: response.status, answer: startedRolloutSchema.parse(await response.json()) };
}

async function countOf(server: TestCoordinator): Promise<{ rollouts: number; deployments: number }> {
  const { database } = server.coordinator.services;
  const rollouts = await database.selectFrom("rollouts").select("id").execute();
  const deployments = await database.selectFrom("deployments").select("id").execute();
  return { rollouts: rollouts.length, deployments: deployments.length };
}

describe("the same key", () => {
  test("with the same request answers the same rollout, as it is now", async () => {
    await using server = await createServer();
    const first = await post(server, spec(), { key: "run-1" });
    const second = await post(server, { mode: "switch", agents: spec().agents }, { key: "run-1" });
    expect([first.status, first.answer.isRepeat]).toEqual([201, false]);
    expect([second.status, second.answer.isRepeat]).toEqual([200, true]);
    expect(second.answer.id).toBe(first.answer.id);
    expect(await countOf(server)).toEqual({ rollouts: 1, deployments: 1 });
  });

  test("from another run, or with another description, is the same request", async () => {
    await using server = await createServer();
    const first = await post(server, { ...spec(), origin: { runUrl: "a" } }, { key: "commit" });
    const other = { ...spec(), origin: { runUrl: "b" }, description: "again" };
    expect((await post(server, other, { key: "commit" })).answer.id).toBe(first.answer.id);
  });

  test("with another request is refused", async () => {
    await using server = await createServer();
    const first = await post(server, spec(), { key: "run-1" });
    const changes = [spec(TWO), { ...spec(), mode: "boot" }, { agents: { tv: ONE.storePath }, mode: "switch" }];
    for (const json of changes) {
      const answer = await server.fetch("rollouts", { json, headers: { "idempotency-key": "run-1" } });
      expect(answer.status).toBe(422);
      const { title, errors } = problemSchema.parse(await answer.json());
      expect(title).toContain("came with another request before");
      expect(errors).toEqual([`rollout ${first.answer.id} was started with this key`]);
    }
    expect(await countOf(server)).toEqual({ rollouts: 1, deployments: 1 });
  });

  test("of another token is another key", async () => {
    await using server = await createServer();
    const token = (await server.createToken("activate")).token;
    const first = await post(server, spec(), { key: "k" });
    const second = await post(server, spec(), { key: "k", token });
    expect([second.status, second.answer.id === first.answer.id]).toEqual([201, false]);
  });

  test("is free again after a day", async () => {
    await using server = await createServer();
    const first = await post(server, spec(), { key: "k" });
    await server.clock.advance(24 * HOUR_MS - 1);
    expect((await post(server, spec(), { key: "k" })).answer.id).toBe(first.answer.id);
    await server.clock.advance(1);
    const later = await post(server, spec(TWO), { key: "k" });
    expect([later.status, later.answer.id === first.answer.id]).toEqual([201, false]);
    const keys = await server.coordinator.services.database.selectFrom("idempotency_keys").selectAll().execute();
    expect(keys).toHaveLength(1);
  });

  test("for a retry answers its rollout, although there is nothing left to try again", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("box");
    const [offered] = (await server.activate(ONE, "box")).deployments;
    if (offered === undefined) throw new Error("there is no deployment");
    await agent.report(offered.id, numberEntries([outcomeEntry("failed")]));
    const first = await post(server, { of: ["box"] }, { key: "k", path: "retries" });
    const second = await post(server, { of: ["box"] }, { key: "k", path: "retries" });
    expect([first.status, second.status, second.answer.id]).toEqual([201, 200, first.answer.id]);
    const mixed = await server.fetch("rollouts", { json: spec(), headers: { "idempotency-key": "k" } });
    expect(mixed.status).toBe(422);
  });

  test("at the same moment starts one rollout, whoever wins", async () => {
    await using server = await createServer();
    const answers = await Promise.all(Array.from({ length: 8 }, () => post(server, spec(), { key: "k" })));
    expect(new Set(answers.map(({ answer }) => answer.id)).size).toBe(1);
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
    expect(await countOf(server)).toEqual({ rollouts: 1, deployments: 1 });
  });
});

test("no key starts a rollout for each request; a key that is none is refused", async () => {
  await using server = await createServer();
  for (let count = 0; count < 2; count += 1) {
    expect((await server.fetch("rollouts", { json: spec() })).status).toBe(201);
  }
  for (const key of ["", "a b", "k".repeat(256), "ü"]) {
    const headers = { "idempotency-key": key };
    expect((await server.fetch("rollouts", { json: spec(), headers })).status).toBe(400);
  }
  expect((await countOf(server)).rollouts).toBe(2);
});

test("a coordinator that is gone at any moment of the request has started it once when it is sent again", async () => {
  let isLate = false;
  for (let turns = 0; !isLate; turns += 1) {
    await using server = await createServer("file");
    const lost = post(server, spec(), { key: "k" }).then(
      () => true,
      () => true,
    );
    for (let turn = 0; turn < turns; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
    isLate = await Promise.race([lost, Promise.resolve(false)]);
    await server.restart();
    const again = await post(server, spec(), { key: "k" });
    await lost;
    expect(await countOf(server)).toEqual({ rollouts: 1, deployments: 1 });
    expect(again.answer.deployments).toHaveLength(1);
    if (isLate) expect(again.answer.isRepeat).toBe(true);
  }
});

test("what a fingerprint tells apart", () => {
  const base = fingerprintOf("rollout", { agents: { a: "1", b: "2" }, mode: "switch" });
  expect(fingerprintOf("rollout", { mode: "switch", agents: { b: "2", a: "1" } })).toBe(base);
  expect(fingerprintOf("rollout", { mode: "switch", agents: { b: "2", a: "1" }, origin: {} })).toBe(base);
  expect(fingerprintOf("retry", { agents: { a: "1", b: "2" }, mode: "switch" })).not.toBe(base);
  expect(fingerprintOf("rollout", { agents: { a: "2", b: "1" }, mode: "switch" })).not.toBe(base);
  expect(fingerprintOf("rollout", { of: ["a", "b"] })).not.toBe(fingerprintOf("rollout", { of: ["b", "a"] }));
});
