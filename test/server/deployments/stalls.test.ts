/** A deployment of which nothing comes is marked in its time, by nobody's word but the clock's, and unmarked when it moves. */
import { describe, expect, test } from "bun:test";
import { agentListSchema } from "../../../src/api/agents.ts";
import { type DeploymentDto, deploymentSchema } from "../../../src/api/deployments.ts";
import { type RolloutDto, rolloutSchema } from "../../../src/api/rollouts.ts";
import { statusSchema } from "../../../src/api/status.ts";
import { DEPLOYMENT_STATES, isTerminal, type Phase } from "../../../src/deployment.ts";
import { patienceMs } from "../../../src/server/deployments/stalls.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import { logEntry, machineState, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";

const ONE = createTinyPath("one");
const MINUTE_MS = 60_000;
const LOOK_MS = 30_000;

async function startOne(phase: Phase | null, policy: object = {}, database: "memory" | "file" = "memory") {
  const server = await createTestCoordinator({ database });
  await server.publishUnseen(ONE);
  const agent = await server.connectAgent("nuc");
  const json = { agents: { nuc: ONE.storePath }, mode: "switch", policy };
  const rollout = rolloutSchema.parse(await (await expectOk(await server.fetch("rollouts", { json }))).json());
  const [deployment] = rollout.deployments;
  if (deployment === undefined) throw new Error("there is no deployment");
  const { id } = deployment;
  if (phase !== null) await agent.report(id, numberEntries([phaseEntry(phase)]));
  // It is looked at now, so that what follows is counted from here.
  await server.clock.advance(LOOK_MS);
  return { server, agent, rollout, id };
}

async function now(server: TestCoordinator, id: string): Promise<DeploymentDto> {
  return deploymentSchema.parse(await (await server.fetch(`deployments/${id}`)).json());
}

const eventsOf = async (server: TestCoordinator, rollout: RolloutDto) =>
  (
    await server.coordinator.services.database
      .selectFrom("events")
      .select("data")
      .where("kind", "=", "progress")
      .where("rollout_id", "=", rollout.id)
      .orderBy("id")
      .execute()
  ).map(({ data }): unknown => JSON.parse(data));

const marked = (server: TestCoordinator, id: string) =>
  waitFor("the mark", async () => (await now(server, id)).stalledSince !== null);
const unmarked = (server: TestCoordinator, id: string) =>
  waitFor("no mark", async () => (await now(server, id)).stalledSince === null);

describe("nothing comes", () => {
  const cases: readonly (readonly [phase: Phase | null, policy: object, minutes: number])[] = [
    [null, {}, 2],
    ["fetching", {}, 5],
    ["activating", { activationTimeoutMs: 10 * MINUTE_MS }, 12],
    ["activating", {}, 32],
    ["rebooting", {}, 15],
    ["confirming", { confirmWindowMs: 3 * MINUTE_MS }, 5],
    ["rolling-back", {}, 32],
  ];
  for (const [phase, policy, minutes] of cases) {
    test(`while ${phase ?? "offered"}: marked after ${minutes} min`, async () => {
      const { server, id, rollout } = await startOne(phase, policy);
      await using _ = server;
      const sinceMs = server.clock.nowMs();
      await server.clock.advance((minutes - 1) * MINUTE_MS);
      expect((await now(server, id)).stalledSince).toBeNull();
      await server.clock.advance(MINUTE_MS + LOOK_MS);
      await marked(server, id);
      const { state, stalledSince } = await now(server, id);
      expect(state).toBe(phase ?? "offered");
      expect(Math.abs(Date.parse(stalledSince ?? "") - sinceMs)).toBeLessThanOrEqual(LOOK_MS);
      expect(await eventsOf(server, rollout)).toEqual([{ state, stalledSince }]);
    });
  }

  test("while confirming: a device with a longer window of its own is not called stuck within it, and its followers hear of it", async () => {
    const { server, agent, id } = await startOne("fetching");
    await using _ = server;
    const said = { ...phaseEntry("activating"), confirmWindowMs: 10 * MINUTE_MS };
    await agent.report(id, numberEntries([said, phaseEntry("confirming")], 2));
    expect((await now(server, id)).confirmWindowMs).toBe(10 * MINUTE_MS);
    await server.clock.advance(LOOK_MS);
    await server.clock.advance(11 * MINUTE_MS);
    expect((await now(server, id)).stalledSince).toBeNull();
    await server.clock.advance(MINUTE_MS + LOOK_MS);
    await marked(server, id);
  });

  test("every state that runs has its time, the others none", () => {
    for (const state of DEPLOYMENT_STATES) {
      expect(patienceMs({ state, policy: "{}", confirm_window_ms: null }) !== null).toBe(
        state !== "queued" && !isTerminal(state),
      );
    }
  });

  test("and it is said where people look: follower, agents, status, metrics", async () => {
    const { server, id, rollout } = await startOne("fetching");
    await using _ = server;
    const hangUp = new AbortController();
    const answer = await server.fetch(`rollouts/${rollout.id}/follow`, { signal: hangUp.signal });
    const lines = (await expectOk(answer)).body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    const read = (async () => {
      for (let next = await lines?.read(); next?.done === false; next = await lines?.read()) text += next.value;
    })().catch(() => {});
    await server.clock.advance(6 * MINUTE_MS);
    await marked(server, id);
    await waitFor("the follower to hear of it", () => /"stalledSince":"20/.test(text));
    hangUp.abort();
    await read;
    const { agents } = agentListSchema.parse(await (await server.fetch("agents")).json());
    expect(agents[0]?.deployment?.stalledSince).not.toBeNull();
    const status = statusSchema.parse(await (await server.fetch("status")).json());
    expect([status.deploymentsRunning, status.deploymentsStalled]).toEqual([1, 1]);
    expect(await (await server.fetch("/metrics")).text()).toContain("nixdeploy_deployments_stalled 1");
  });
});

describe("something comes", () => {
  test("in time, again and again: bytes, lines, phases: it is never marked", async () => {
    const { server, agent, id, rollout } = await startOne("fetching");
    await using _ = server;
    for (let step = 1; step <= 6; step += 1) {
      await server.clock.advance(4 * MINUTE_MS);
      const progress = { paths: 0, pathsTotal: 9, bytes: step, bytesTotal: 99 };
      if (step <= 3) await agent.send({ kind: "progress", deploymentId: id, ...progress });
      else await agent.report(id, numberEntries([logEntry("still there")], step - 2));
    }
    await server.clock.advance(4 * MINUTE_MS);
    expect((await now(server, id)).stalledSince).toBeNull();
    expect(await eventsOf(server, rollout)).toEqual([]);
  });

  test("late: the mark goes, and the deployment ends as its agent says", async () => {
    const { server, agent, id, rollout } = await startOne("fetching");
    await using _ = server;
    await server.clock.advance(6 * MINUTE_MS);
    await marked(server, id);
    await agent.send({ kind: "progress", deploymentId: id, paths: 1, pathsTotal: 2, bytes: 5, bytesTotal: 9 });
    await server.clock.advance(LOOK_MS);
    await unmarked(server, id);
    expect(await eventsOf(server, rollout)).toMatchObject([{}, { state: "fetching", stalledSince: null }]);
    await server.clock.advance(6 * MINUTE_MS);
    await marked(server, id);
    await agent.report(id, numberEntries([outcomeEntry("succeeded")], 2));
    expect(await now(server, id)).toMatchObject({ state: "succeeded", stalledSince: null });
  });

  test("pings are no progress", async () => {
    const { server, agent, id } = await startOne("fetching");
    await using _ = server;
    for (let minute = 0; minute < 6; minute += 1) {
      await agent.send({ kind: "ping" });
      await agent.send({ kind: "state", state: machineState(id) });
      await server.clock.advance(MINUTE_MS);
    }
    await marked(server, id);
  });
});

test("a coordinator that starts keeps the mark until something moves, and marks nobody at once", async () => {
  const { server, agent, id } = await startOne("fetching", {}, "file");
  await using _ = server;
  await server.clock.advance(6 * MINUTE_MS);
  await marked(server, id);
  const before = (await now(server, id)).stalledSince;
  await server.restart();
  await server.clock.advance(LOOK_MS);
  expect((await now(server, id)).stalledSince).toBe(before);
  const back = await server.connectAgent(agent.identity, { state: machineState(id) });
  await back.report(id, numberEntries([logEntry("here again")], 2));
  await server.clock.advance(2 * LOOK_MS);
  await unmarked(server, id);
});
