/** Rollouts that ended long ago are forgotten whole, and nothing goes that somebody may still ask for. */
import { describe, expect, test } from "bun:test";
import { deploymentSchema } from "../../../src/api/deployments.ts";
import { rolloutSchema } from "../../../src/api/rollouts.ts";
import { parseRolloutId } from "../../../src/names.ts";
import { startTokenRetention, TOKENS_KEPT_MS } from "../../../src/server/access/token-retention.ts";
import {
  DEPLOYMENT_RETENTION_DEFAULT,
  type DeploymentRetention,
  deleteOldRollouts,
} from "../../../src/server/deployments/deployment-retention.ts";
import {
  createTestCoordinator,
  expectOk,
  type StartedRollout,
  type TestCoordinator,
} from "../../support/coordinator.ts";
import { logEntry, numberEntries, outcomeEntry, phaseEntry, type ScriptedAgent } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";

const ONE = createTinyPath("one");
const DAY_MS = 24 * 3_600_000;
const NONE = { ageMaxMs: DAY_MS, newest: 1, newestLive: 1 };

async function createServer(): Promise<TestCoordinator> {
  const server = await createTestCoordinator();
  await server.publishUnseen(ONE);
  return server;
}

/** One rollout for several agents, of which each reports its end. */
async function deploy(
  server: TestCoordinator,
  agents: readonly ScriptedAgent[],
  outcome: "succeeded" | "failed" = "failed",
): Promise<StartedRollout> {
  const rollout = await server.activate(ONE, ...agents.map(({ identity }) => identity.name));
  for (const { id, agent: name } of rollout.deployments) {
    const agent = agents.find(({ identity }) => identity.name === name);
    await agent?.report(id, numberEntries([phaseEntry("fetching"), logEntry("a line"), outcomeEntry(outcome)]));
  }
  return rollout;
}

async function sweep(
  { coordinator, clock }: TestCoordinator,
  kept: Partial<DeploymentRetention> = {},
): Promise<number> {
  const { database, writes } = coordinator.services;
  const signal = new AbortController().signal;
  return await deleteOldRollouts({ database, writes, clock }, { kept: { ...NONE, ...kept }, signal });
}

const isThere = async (server: TestCoordinator, { id }: StartedRollout) =>
  (await server.fetch(`rollouts/${id}`)).status === 200;

async function countRows(server: TestCoordinator, table: "log_chunks" | "deployments" | "rollouts"): Promise<number> {
  return (await server.coordinator.services.database.selectFrom(table).select("id").execute()).length;
}

describe("a rollout goes", () => {
  test("when it is old enough, with its deployments and their logs", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const old = await deploy(server, [nuc]);
    await server.clock.advance(2 * DAY_MS);
    const young = await deploy(server, [await server.connectAgent(nuc.identity)]);
    expect(await sweep(server, { ageMaxMs: 3 * DAY_MS })).toBe(0);
    expect(await sweep(server)).toBe(1);
    expect([await isThere(server, old), await isThere(server, young)]).toEqual([false, true]);
    for (const table of ["rollouts", "deployments", "log_chunks"] as const) {
      expect([table, await countRows(server, table)]).toEqual([table, 1]);
    }
    expect(await sweep(server)).toBe(0);
  });

  test("by what its workspace says", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const rollouts = [await deploy(server, [nuc]), await deploy(server, [nuc])];
    await server.clock.advance(2 * DAY_MS);
    const set = async (deploymentRetentionMs: number | null) =>
      await expectOk(await server.fetch("workspaces/default", { method: "PATCH", json: { deploymentRetentionMs } }));
    await set(3 * DAY_MS);
    expect(await sweep(server)).toBe(0);
    await set(DAY_MS);
    expect(await sweep(server, { ageMaxMs: 99 * DAY_MS })).toBe(1);
    expect(await Promise.all(rollouts.map((rollout) => isThere(server, rollout)))).toEqual([false, true]);
  });

  test("whole or not at all: not while it has one of an agent's newest", async () => {
    await using server = await createServer();
    const [nuc, tuc] = [await server.connectAgent("nuc"), await server.connectAgent("tuc")];
    const both = await deploy(server, [nuc, tuc]);
    await deploy(server, [nuc]);
    await server.clock.advance(2 * DAY_MS);
    expect(await sweep(server)).toBe(0);
    const rollout = rolloutSchema.parse(await (await server.fetch(`rollouts/${both.id}`)).json());
    expect(rollout.deployments).toHaveLength(2);
    await deploy(server, [await server.connectAgent(tuc.identity)]);
    expect(await sweep(server)).toBe(1);
    expect(await isThere(server, both)).toBe(false);
  });
});

describe("a rollout stays", () => {
  test("while it has one that has not ended, however long ago it began", async () => {
    await using server = await createServer();
    const [nuc, off] = [await server.connectAgent("nuc"), await server.connectAgent("off")];
    await off.disconnect();
    const waiting = await server.activate(ONE, "nuc", "off");
    const own = waiting.deployments.find(({ agent }) => agent === "nuc");
    if (own === undefined) throw new Error("there is no deployment");
    await nuc.report(own.id, numberEntries([outcomeEntry("failed")]));
    await deploy(server, [nuc]);
    await server.clock.advance(10 * DAY_MS);
    expect(await sweep(server)).toBe(0);
    expect(await isThere(server, waiting)).toBe(true);
  });

  test("while a rollback would look at it, behind whatever failed since", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const before = await deploy(server, [nuc], "succeeded");
    const good = await deploy(server, [nuc], "succeeded");
    for (let count = 0; count < 5; count += 1) await deploy(server, [nuc]);
    await server.clock.advance(2 * DAY_MS);
    expect(await sweep(server, { newestLive: 2 })).toBe(4);
    expect([await isThere(server, before), await isThere(server, good)]).toEqual([true, true]);
    expect(await sweep(server)).toBe(1);
    expect([await isThere(server, before), await isThere(server, good)]).toEqual([false, true]);
  });

  test("while a rollback would look at it, also one that was called expired before its agent said that it was done", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const late = await deploy(server, [nuc], "succeeded");
    const { database } = server.coordinator.services;
    await database
      .updateTable("deployments")
      .set({ state: "expired", late_outcome: "succeeded", late_ms: server.clock.nowMs() })
      .where("rollout_id", "=", parseRolloutId(late.id))
      .execute();
    await deploy(server, [nuc]);
    await server.clock.advance(2 * DAY_MS);
    expect([await sweep(server), await isThere(server, late)]).toEqual([0, true]);
    await deploy(server, [await server.connectAgent(nuc.identity)], "succeeded");
    await server.clock.advance(2 * DAY_MS);
    expect(await sweep(server)).toBe(2);
    expect(await isThere(server, late)).toBe(false);
  });

  test("by default, for longer than a year, and an agent's latest hundred for ever", () => {
    expect(DEPLOYMENT_RETENTION_DEFAULT).toEqual({ ageMaxMs: 400 * DAY_MS, newest: 100, newestLive: 20 });
  });
});

test("what tried a forgotten deployment again stays, and can be read", async () => {
  await using server = await createServer();
  const nuc = await server.connectAgent("nuc");
  await deploy(server, [nuc]);
  const retried = await expectOk(await server.fetch("retries", { json: { of: ["nuc"] } }));
  const retry = rolloutSchema.parse(await retried.json());
  const [deployment] = retry.deployments;
  if (deployment === undefined) throw new Error("there is no deployment");
  expect(deployment.retryOf).not.toBeNull();
  await nuc.report(deployment.id, numberEntries([outcomeEntry("failed")]));
  await server.clock.advance(2 * DAY_MS);
  expect(await sweep(server)).toBe(1);
  const left = deploymentSchema.parse(await (await server.fetch(`deployments/${deployment.id}`)).json());
  expect(left.retryOf).toBeNull();
});

test("stopped between two steps, the next time goes on", async () => {
  await using server = await createServer();
  const nuc = await server.connectAgent("nuc");
  const old = await deploy(server, [nuc]);
  await deploy(server, [nuc]);
  await server.clock.advance(2 * DAY_MS);
  const { database, writes } = server.coordinator.services;
  const stop = new AbortController();
  // Stopped as soon as anything was written.
  const stopping: typeof writes = {
    async write(work) {
      const result = await writes.write(work);
      stop.abort(new Error("stopped"));
      return result;
    },
  };
  const deps = { database, writes: stopping, clock: server.clock };
  await expect(deleteOldRollouts(deps, { kept: NONE, signal: stop.signal })).rejects.toThrow("stopped");
  expect(await isThere(server, old)).toBe(true);
  expect(await sweep(server)).toBe(1);
  expect(await isThere(server, old)).toBe(false);
});

test("tokens that were revoked or expired go after 400 days, but for those that something is known by", async () => {
  await using server = await createServer();
  const { database, bus } = server.coordinator.services;
  const ids = async () => (await database.selectFrom("tokens").select("id").execute()).map(({ id }) => String(id));
  const [first] = await ids();
  const expired = await server.createToken("read", { expiresInMs: DAY_MS });
  const revoked = await server.createToken("push");
  const good = await server.createToken("push");
  await server.connectAgent("nuc");
  const [admitting] = await database.selectFrom("agents").select("admitted_by").execute();
  for (const id of [revoked.id, admitting?.admitted_by, first]) {
    await expectOk(await server.fetch(`tokens/${id}`, { method: "DELETE" }));
  }
  const look = async () => {
    await using _ = startTokenRetention({ database, bus, clock: server.clock, log: server.coordinator.services.log });
  };
  await server.clock.advance(TOKENS_KEPT_MS - DAY_MS);
  await look();
  expect(await ids()).toHaveLength(5);
  await server.clock.advance(3 * DAY_MS);
  await waitFor("the old ones to go", async () => {
    await look();
    return (await ids()).length === 3;
  });
  expect((await ids()).toSorted()).toEqual([first ?? "", good.id, String(admitting?.admitted_by)].toSorted());
  expect(await ids()).not.toContain(expired.id);
});

test("as many as are old go in one sweep, and those that must stay hold up none behind them", async () => {
  await using server = await createServer();
  const away = await server.connectAgent("nuc");
  const kept = await deploy(server, [await server.connectAgent("tuc")], "succeeded");
  await away.disconnect();
  // Each takes the place of the one before.
  for (let count = 0; count < 110; count += 1) await server.activate(ONE, "nuc");
  await server.clock.advance(2 * DAY_MS);
  // The last one waits still.
  expect(await sweep(server)).toBe(109);
  expect([await countRows(server, "rollouts"), await isThere(server, kept)]).toEqual([2, true]);
});
