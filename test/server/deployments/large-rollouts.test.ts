/** A spec for thousands of agents: one transaction, every fault at once, and the same for whoever tries it again. */
import { expect, test } from "bun:test";
import { problemSchema } from "../../../src/api/problem.ts";
import { startedRolloutSchema } from "../../../src/api/rollouts.ts";
import { drawId, parseAgentId, parseAgentName } from "../../../src/names.ts";
import { systemRandom } from "../../../src/runtime.ts";
import { findAgentByName, insertAgent } from "../../../src/server/database/agents.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");
const AGENTS = 5_000;
const NAMES = Array.from({ length: AGENTS }, (_, index) => `device-${String(index).padStart(5, "0")}`);

/** Agents that have been there once: rows like that of one that logged in. */
async function addAgents(server: TestCoordinator): Promise<void> {
  await (await server.connectAgent("template")).disconnect();
  const { database } = server.coordinator.services;
  const workspace = await database.selectFrom("workspaces").select("id").executeTakeFirstOrThrow();
  const name = parseAgentName("template");
  const template = await findAgentByName(database, { workspaceId: workspace.id, name });
  if (template === null) throw new Error("there is no template");
  await database.transaction().execute(async (transaction) => {
    for (const each of NAMES) {
      await insertAgent(transaction, {
        ...template,
        ...{ id: parseAgentId(drawId(systemRandom)), name: parseAgentName(each), public_key: systemRandom.bytes(32) },
      });
    }
  });
}

const spec = (path = ONE) => Object.fromEntries(NAMES.map((name) => [name, path.storePath]));

async function count(server: TestCoordinator, table: "rollouts" | "deployments" | "events"): Promise<number> {
  const { database } = server.coordinator.services;
  const row = await database
    .selectFrom(table)
    .select(({ fn }) => fn.countAll<number>().as("count"))
    .executeTakeFirstOrThrow();
  return row.count;
}

test(`one rollout of ${AGENTS} agents`, async () => {
  await using server = await createTestCoordinator({ database: "file" });
  await server.publishUnseen(ONE, TWO);
  await addAgents(server);

  // Every fault is named, and nothing is started.
  const strangers = Object.fromEntries(Array.from({ length: AGENTS }, (_, index) => [`x-${index}`, ONE.storePath]));
  const refused = await server.fetch("rollouts", { json: { agents: { ...spec(), ...strangers }, mode: "switch" } });
  expect(refused.status).toBe(422);
  expect(problemSchema.parse(await refused.json()).errors).toHaveLength(AGENTS);
  expect([await count(server, "rollouts"), await count(server, "deployments")]).toEqual([0, 0]);

  const headers = { "idempotency-key": "k" };
  const answer = await server.fetch("rollouts", { json: { agents: spec(), mode: "switch" }, headers });
  expect(answer.status).toBe(201);
  const rollout = startedRolloutSchema.parse(await answer.json());
  expect(rollout.deployments).toHaveLength(AGENTS);
  expect(new Set(rollout.deployments.map(({ state }) => state))).toEqual(new Set(["queued"]));
  expect(await count(server, "deployments")).toBe(AGENTS);

  const again = await server.fetch("rollouts", { json: { agents: spec(), mode: "switch" }, headers });
  expect([again.status, startedRolloutSchema.parse(await again.json()).id]).toEqual([200, rollout.id]);

  // The next one takes the place of each, all at once.
  const next = await server.fetch("rollouts", { json: { agents: spec(TWO), mode: "switch" } });
  expect(next.status).toBe(201);
  const states = await server.coordinator.services.database
    .selectFrom("deployments")
    .select(({ fn }) => ["state", fn.countAll<number>().as("count")])
    .groupBy("state")
    .orderBy("state")
    .execute();
  expect(states).toEqual([
    { state: "queued", count: AGENTS },
    { state: "superseded", count: AGENTS },
  ]);
}, 120_000);
