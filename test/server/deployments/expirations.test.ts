/** What waits too long for its agent ends as expired: at its time, once, whether or not the coordinator was there. */
import { describe, expect, test } from "bun:test";
import { type DeploymentDto, deploymentSchema } from "../../../src/api/deployments.ts";
import { type RolloutDto, rolloutSchema } from "../../../src/api/rollouts.ts";
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
  }, 20_000);
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
