/** What waits too long for its agent ends as expired: at its time, once, whether or not the coordinator was there. */
import { describe, expect, test } from "bun:test";
import { agentListSchema } from "../../../src/api/agents.ts";
import { type DeploymentDto, deploymentSchema } from "../../../src/api/deployments.ts";
import { type RolloutDto, rolloutSchema } from "../../../src/api/rollouts.ts";
import { OFFLINE_AFTER_MS } from "../../../src/server/agents/registry.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import { machineState, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";

const ONE = createTinyPath("one");
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

async function createServer(database: "memory" | "file" = "memory"): Promise<TestCoordinator> {
  const server = await createTestCoordinator({ database });
  await server.publishUnseen(ONE);
  return server;
}

async function addAway(server: TestCoordinator, ...names: readonly string[]): Promise<void> {
  for (const name of names) await (await server.connectAgent(name)).disconnect();
}

async function activate(server: TestCoordinator, agents: readonly string[], more: object = {}): Promise<RolloutDto> {
  const json = { agents: Object.fromEntries(agents.map((name) => [name, ONE.storePath])), mode: "switch", ...more };
  return rolloutSchema.parse(await (await expectOk(await server.fetch("rollouts", { json }))).json());
}

async function now(server: TestCoordinator, { deployments }: RolloutDto, index = 0): Promise<DeploymentDto> {
  return deploymentSchema.parse(await (await server.fetch(`deployments/${deployments[index]?.id}`)).json());
}

const expired = (server: TestCoordinator, rollout: RolloutDto) =>
  waitFor("it to expire", async () => (await now(server, rollout)).state === "expired");

describe("a deployment for an agent that stays away", () => {
  test("expires after 30 days, and says so", async () => {
    await using server = await createServer();
    await addAway(server, "nuc");
    const rollout = await activate(server, ["nuc"]);
    expect((await now(server, rollout)).expiresAt).toBe(new Date(server.clock.nowMs() + 30 * DAY_MS).toISOString());
    await server.clock.advance(30 * DAY_MS - 1);
    expect((await now(server, rollout)).state).toBe("queued");
    await server.clock.advance(1);
    await expired(server, rollout);
    expect((await now(server, rollout)).reason).toBe("The agent did not come back in time.");
    const text = await (await server.fetch(`rollouts/${rollout.id}/follow`)).text();
    expect(text).toContain('"state":"expired"');
    expect(text).toContain("event: end");
  });

  test("expires when it was asked to, each at its own time", async () => {
    await using server = await createServer();
    await addAway(server, "a", "b", "c");
    const late = await activate(server, ["a"], { expiresInMs: 2 * HOUR_MS });
    const early = await activate(server, ["b"], { expiresInMs: 10 * MINUTE_MS });
    const never = await activate(server, ["c"]);
    await server.clock.advance(10 * MINUTE_MS);
    await expired(server, early);
    expect((await now(server, late)).state).toBe("queued");
    await server.clock.advance(110 * MINUTE_MS);
    await expired(server, late);
    expect((await now(server, never)).state).toBe("queued");
  });

  test("expires at the coordinator's start when its time came while that was away", async () => {
    await using server = await createServer("file");
    await addAway(server, "nuc");
    const rollout = await activate(server, ["nuc"], { expiresInMs: HOUR_MS });
    await server.coordinator[Symbol.asyncDispose]();
    await server.clock.advance(2 * HOUR_MS);
    await server.restart();
    await expired(server, rollout);
  });

  test("expires with all the others of a large rollout", async () => {
    await using server = await createServer();
    const names = Array.from({ length: 450 }, (_, index) => `agent-${index}`);
    await addAway(server, ...names);
    const rollout = await activate(server, names, { expiresInMs: HOUR_MS });
    await server.clock.advance(HOUR_MS);
    await expired(server, rollout);
    await waitFor("all to expire", async () => {
      const { deployments } = rolloutSchema.parse(await (await server.fetch(`rollouts/${rollout.id}`)).json());
      return deployments.every(({ state }) => state === "expired");
    });
  }, 60_000);
});

describe("an agent that was offered it in time", () => {
  test("keeps it, however long it takes", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const rollout = await activate(server, ["nuc"], { expiresInMs: MINUTE_MS });
    const id = rollout.deployments[0]?.id as never;
    await agent.report(id, numberEntries([phaseEntry("fetching")]));
    await server.clock.advance(HOUR_MS);
    await agent.report(id, numberEntries([outcomeEntry("succeeded")], 2));
    expect((await now(server, rollout)).state).toBe("succeeded");
  });

  test("loses it when it comes back without having accepted it", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const rollout = await activate(server, ["nuc"], { expiresInMs: MINUTE_MS });
    await server.clock.advance(2 * MINUTE_MS);
    expect((await now(server, rollout)).state).toBe("offered");
    await agent.disconnect();
    const back = await server.connectAgent(agent.identity, { state: machineState(null) });
    await expired(server, rollout);
    expect(back.framesOf("offer")).toEqual([]);
  });
});

describe("an agent that was offered it and stays away", () => {
  /** It was told, and its connection ended before it said a word. */
  async function offer(server: TestCoordinator, more: object = { expiresInMs: HOUR_MS }) {
    const agent = await server.connectAgent("nuc");
    const rollout = await activate(server, ["nuc"], more);
    const id = rollout.deployments[0]?.id as never;
    await waitFor("the offer", () => agent.framesOf("offer").length > 0);
    await agent.disconnect();
    return { agent, rollout, id };
  }

  test("lets it expire, at its time, and nobody claims that it was not done", async () => {
    await using server = await createServer();
    const offeredAt = new Date(server.clock.nowMs()).toISOString();
    const { rollout } = await offer(server);
    await server.clock.advance(HOUR_MS - 1);
    expect(await now(server, rollout)).toMatchObject({ state: "offered", contact: "offline", offeredAt });
    await server.clock.advance(1);
    await expired(server, rollout);
    expect(await now(server, rollout)).toMatchObject({
      reason: "The agent was offered it and did not come back in time: it may have carried it out.",
      offeredAt,
      lastSeenAt: offeredAt,
      lateOutcome: null,
    });
    const text = await (await server.fetch(`rollouts/${rollout.id}/follow`)).text();
    expect(text).toContain("event: end");
  });

  test("is waited for while it is connected, and until it counts as offline", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const rollout = await activate(server, ["nuc"], { expiresInMs: MINUTE_MS });
    await server.clock.advance(HOUR_MS);
    expect((await now(server, rollout)).state).toBe("offered");
    await agent.disconnect();
    await server.clock.advance(OFFLINE_AFTER_MS - 1);
    expect((await now(server, rollout)).state).toBe("offered");
    await server.clock.advance(1);
    await expired(server, rollout);
  });

  test("is waited for until it counts as offline by itself, whoever else is away for longer or shorter", async () => {
    await using server = await createServer();
    const lose = async (name: string) => {
      const agent = await server.connectAgent(name);
      const rollout = await activate(server, [name], { expiresInMs: MINUTE_MS });
      await server.clock.advance(HOUR_MS);
      return { agent, rollout };
    };
    const [early, late] = [await lose("nuc"), await lose("tuc")];
    await early.agent.disconnect();
    await server.clock.advance(OFFLINE_AFTER_MS / 2);
    await late.agent.disconnect();
    await server.clock.advance(OFFLINE_AFTER_MS / 2);
    await expired(server, early.rollout);
    expect((await now(server, late.rollout)).state).toBe("offered");
    await server.clock.advance(OFFLINE_AFTER_MS / 2);
    await expired(server, late.rollout);
  });

  test("lets it expire 90 s after the start of a coordinator that was away, too", async () => {
    await using server = await createServer("file");
    const { rollout } = await offer(server);
    await server.coordinator[Symbol.asyncDispose]();
    await server.clock.advance(2 * HOUR_MS);
    await server.restart();
    await server.clock.advance(OFFLINE_AFTER_MS - 1);
    expect((await now(server, rollout)).state).toBe("offered");
    await server.clock.advance(1);
    await expired(server, rollout);
  });

  test("is asked to stop by a cancel, which ends it as cancelled at its time", async () => {
    await using server = await createServer();
    const { rollout } = await offer(server);
    await expectOk(await server.fetch("cancellations", { json: { of: ["nuc"] } }));
    expect(await now(server, rollout)).toMatchObject({ state: "offered", stopRequested: "cancelled" });
    await server.clock.advance(HOUR_MS);
    await waitFor("its end", async () => (await now(server, rollout)).state === "cancelled");
    expect(await now(server, rollout)).toMatchObject({
      reason: expect.stringContaining("it may have carried it out"),
      stopRequested: null,
    });
  });

  test("is heard when it returns after all: what it says is kept beside what was said", async () => {
    await using server = await createServer();
    const { agent, rollout, id } = await offer(server);
    await server.clock.advance(2 * HOUR_MS);
    await expired(server, rollout);
    const { finishedAt } = await now(server, rollout);
    const runs = { profilePath: ONE.storePath, currentPath: ONE.storePath };
    const state = { ...machineState(null), ...runs, unreported: [id] };
    const back = await server.connectAgent(agent.identity, { state });
    const entries = [phaseEntry("fetching"), phaseEntry("activating"), outcomeEntry("succeeded")];
    await back.report(id, numberEntries(entries));
    expect(await now(server, rollout)).toMatchObject({
      ...{ state: "expired", finishedAt, exitCode: 0 },
      lateOutcome: { outcome: "succeeded", at: new Date(server.clock.nowMs()).toISOString() },
    });
    // Told once more, because the acknowledgement was lost: the same.
    await server.clock.advance(MINUTE_MS);
    const before = await now(server, rollout);
    await back.report(id, numberEntries(entries));
    expect((await now(server, rollout)).lateOutcome).toEqual(before.lateOutcome);
    const [drifted] = agentListSchema.parse(await (await server.fetch("agents")).json()).agents;
    expect(drifted).toMatchObject({
      drift: null,
      deployment: { state: "expired", lateOutcome: { outcome: "succeeded" } },
    });
    const again = await server.fetch("retries", { json: { of: [id] } });
    expect([again.status, await again.text()]).toEqual([422, expect.stringContaining("succeeded")]);
  });

  test("is told to stop, should it be at work on it still", async () => {
    await using server = await createServer();
    const { agent, rollout, id } = await offer(server);
    await server.clock.advance(2 * HOUR_MS);
    await expired(server, rollout);
    const back = await server.connectAgent(agent.identity, { state: { ...machineState(null), inFlight: id } });
    await waitFor("the cancel", () => back.framesOf("cancel").some(({ deploymentId }) => deploymentId === id));
    await back.report(id, numberEntries([phaseEntry("fetching"), outcomeEntry("cancelled")]));
    expect(await now(server, rollout)).toMatchObject({ state: "expired", lateOutcome: { outcome: "cancelled" } });
  });
});

test("what is tried again may wait for as long again", async () => {
  await using server = await createServer();
  const agent = await server.connectAgent("nuc");
  const rollout = await activate(server, ["nuc"], { expiresInMs: HOUR_MS });
  await agent.report(rollout.deployments[0]?.id as never, numberEntries([outcomeEntry("failed")]));
  await agent.disconnect();
  await server.clock.advance(30 * MINUTE_MS);
  const again = rolloutSchema.parse(await (await server.fetch("retries", { json: { of: ["nuc"] } })).json());
  expect(again.deployments[0]?.expiresAt).toBe(new Date(server.clock.nowMs() + HOUR_MS).toISOString());
  await server.clock.advance(HOUR_MS);
  await expired(server, again);
});

test("nobody waits for less than a second or more than ten years", async () => {
  await using server = await createServer();
  await addAway(server, "nuc");
  for (const expiresInMs of [0, 999, 1.5, "1h", 3_661 * DAY_MS]) {
    const json = { agents: { nuc: ONE.storePath }, mode: "switch", expiresInMs };
    expect((await server.fetch("rollouts", { json })).status).toBe(400);
  }
});
