/** Lists in pages: every row once, in order, whatever comes and goes in between; cursors of strangers are refused. */
import { expect, test } from "bun:test";
import { z } from "zod";
import { agentListSchema } from "../../src/api/agents.ts";
import { deploymentListSchema } from "../../src/api/deployments.ts";
import { createApiRoutes } from "../../src/server/app.ts";
import { formatCursor } from "../../src/server/routes/pages.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../support/coordinator.ts";
import { createTinyPath } from "../support/tiny-path.ts";

const KEY = "cache.nixos.example-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const NAMES = ["Zeta", "a", "a.b", "a0", "b", "c", "d"];

async function withAgents(use: (server: TestCoordinator) => Promise<void>): Promise<void> {
  await using server = await createTestCoordinator();
  for (const name of NAMES.toReversed()) await server.connectAgent(name);
  await use(server);
}

test("agents come in pages, each once, by name", () =>
  withAgents(async (server) => {
    const names: string[] = [];
    let after: string | null = null;
    do {
      const query: string = after === null ? "" : `&after=${after}`;
      const answer = await server.fetch(`agents?limit=3${query}`);
      const page = agentListSchema.parse(await answer.json());
      expect(page.agents.length).toBeLessThanOrEqual(3);
      names.push(...page.agents.map(({ name }) => name));
      after = page.next;
      // Before and behind where the reader is.
      if (names.length === 3) {
        await server.connectAgent("A");
        await server.connectAgent("bb");
      }
    } while (after !== null);
    expect(names).toEqual(["Zeta", "a", "a.b", "a0", "b", "bb", "c", "d"]);
  }));

test("a page that ends with the last row says that it is the last", () =>
  withAgents(async (server) => {
    const answer = await server.fetch(`agents?limit=${NAMES.length}`);
    expect(agentListSchema.parse(await answer.json()).next).toBeNull();
  }));

test("deployments come in pages, newest first, while new ones are made", () =>
  withAgents(async (server) => {
    const path = createTinyPath("paged");
    await server.push(path);
    const made: string[] = [];
    const start = async () => {
      const [deployment] = (await server.activate(path, "a")).deployments;
      made.unshift(deployment?.id ?? "");
    };
    for (let count = 0; count < 5; count += 1) await start();
    const first = deploymentListSchema.parse(await (await server.fetch("deployments?limit=2")).json());
    await start();
    const second = await server.fetch(`deployments?limit=10&after=${first.next}`);
    const rest = deploymentListSchema.parse(await second.json());
    const seen = [...first.deployments, ...rest.deployments].map(({ id }) => String(id));
    expect(seen).toEqual(made.slice(1));
    expect(rest.next).toBeNull();
  }));

/** Reads a list of names two at a time. */
async function readByTwo(server: TestCoordinator, list: string, nameOf: (item: unknown) => string): Promise<string[]> {
  const names: string[] = [];
  for (let after: string | null = ""; after !== null; ) {
    const cursor: string = after === "" ? "" : `&after=${after}`;
    const answer = await expectOk(await server.fetch(`${list}${list.includes("?") ? "&" : "?"}limit=2${cursor}`));
    const { next, ...page } = pageSchema.parse(await answer.json());
    const items = Object.values(page).flat();
    expect(items.length).toBeLessThanOrEqual(2);
    names.push(...items.map(nameOf));
    after = next;
  }
  return names;
}
const pageSchema = z.object({ next: z.string().nullable() }).catchall(z.array(z.unknown()));
const nameOf = (item: unknown) => z.object({ name: z.string() }).parse(item).name;

test("workspaces, caches and foreign caches come in pages, each once", async () => {
  await using server = await createTestCoordinator();
  for (const name of ["prod", "Alpha", "beta"]) await server.fetch("workspaces", { json: { name } });
  for (const name of ["zz", "aa"]) {
    await server.fetch("caches", { json: { name, workspace: "prod" } });
    await server.clock.advance(1);
  }
  await server.fetch("caches/aa", { method: "PATCH", json: { default: true } });
  for (const name of ["one", "two", "three"]) {
    const json = { url: `https://${name}.example`, publicKeys: [KEY] };
    await expectOk(await server.fetch(`workspaces/prod/foreign-caches/${name}`, { method: "PUT", json }));
    await server.clock.advance(1);
  }
  expect(await readByTwo(server, "workspaces", nameOf)).toEqual(["Alpha", "beta", "default", "prod"]);
  const caches = ["Alpha", "beta", "default", "aa", "prod", "zz"];
  expect(await readByTwo(server, "caches", nameOf)).toEqual(caches);
  expect(await readByTwo(server, "caches?workspace=prod", nameOf)).toEqual(caches.slice(3));
  expect(await readByTwo(server, "foreign-caches", nameOf)).toEqual(["one", "two", "three"]);
});

test("tokens come in pages, newest first, also those of one moment", async () => {
  await using server = await createTestCoordinator();
  const made: string[] = [];
  for (let index = 0; index < 7; index += 1) {
    if (index % 3 === 0) await server.clock.advance(1_000);
    made.push((await server.createToken("read")).id);
  }
  const idOf = (item: unknown) => z.object({ id: z.string() }).parse(item).id;
  const [first = "", ...rest] = (await readByTwo(server, "tokens", idOf)).toReversed();
  expect(made).not.toContain(first);
  expect(rest.toSorted()).toEqual(made.toSorted());
  const times = made.map((_, index) => Math.floor(index / 3));
  expect(rest.map((id) => times[made.indexOf(id)])).toEqual(times);
});

test("every list comes in pages", async () => {
  await using server = await createTestCoordinator();
  const unpaged: string[] = [];
  for (const { method, path, query, answers } of createApiRoutes(server.coordinator.services)) {
    const answer = answers[200];
    if (method !== "GET" || !(answer instanceof z.ZodObject)) continue;
    const fields = Object.entries(answer.shape);
    // What is shown of one thing may hold short lists of what belongs to it.
    const isList = fields.length <= 2 && fields.some(([, field]) => field instanceof z.ZodArray);
    if (isList && !("next" in answer.shape && "limit" in query.shape && "after" in query.shape)) unpaged.push(path);
  }
  expect(unpaged).toEqual([]);
});

for (const after of ["", "x", formatCursor([1]), formatCursor(["a"]), Buffer.from("{").toString("base64url")]) {
  test(`the cursor ${JSON.stringify(after)} is a usage error`, () =>
    withAgents(async (server) => {
      const answer = await server.fetch(`agents?after=${after}`);
      expect([answer.status, await answer.text()]).toEqual([400, expect.stringContaining("cannot read after")]);
    }));
}
