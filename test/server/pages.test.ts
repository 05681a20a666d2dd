/** Lists in pages: every row once, in order, whatever comes and goes in between; cursors of strangers are refused. */
import { expect, test } from "bun:test";
import { agentListSchema } from "../../src/api/agents.ts";
import { deploymentListSchema } from "../../src/api/deployments.ts";
import { formatCursor } from "../../src/server/routes/pages.ts";
import { createTestCoordinator, type TestCoordinator } from "../support/coordinator.ts";
import { createTinyPath } from "../support/tiny-path.ts";

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

for (const after of ["", "x", formatCursor([1]), formatCursor(["a"]), Buffer.from("{").toString("base64url")]) {
  test(`the cursor ${JSON.stringify(after)} is a usage error`, () =>
    withAgents(async (server) => {
      const answer = await server.fetch(`agents?after=${after}`);
      expect([answer.status, await answer.text()]).toEqual([400, expect.stringContaining("cannot read after")]);
    }));
}
