/**
 * Many agents at once, small enough for every run: nothing is lost, nobody is forgotten, what is kept for them is bounded.
 * No times: those are measured in bench/.
 */
import { describe, expect, test } from "bun:test";
import { type DeploymentDto, deploymentSchema, logPageSchema } from "../../src/api/deployments.ts";
import { rolloutSchema } from "../../src/api/rollouts.ts";
import type { DeploymentId } from "../../src/names.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../support/coordinator.ts";
import { readEventStream } from "../support/event-stream.ts";
import {
  type AgentIdentity,
  createAgentIdentity,
  logEntry,
  machineState,
  numberEntries,
  openScriptedAgent,
  outcomeEntry,
  phaseEntry,
  type ScriptedAgent,
} from "../support/scripted-agent.ts";
import { createTinyPath } from "../support/tiny-path.ts";

const AGENTS = 200;
/** `LOG_FLOOD=1000000 bun test test/server/load.test.ts` for as many lines from one agent. */
const FLOOD_LINES = Number(process.env["LOG_FLOOD"] ?? 20_000);
/** Of such lines a log of 64 MiB holds more than that many. */
const WHOLE_MAX = 700_000;
const PATH = createTinyPath("one");

async function createServer(database: "memory" | "file" = "memory"): Promise<TestCoordinator> {
  const server = await createTestCoordinator({ database });
  await server.publishUnseen(PATH);
  return server;
}

/** All at once. */
async function connectAll(server: TestCoordinator, identities: readonly AgentIdentity[], token?: string) {
  return await Promise.all(
    identities.map(async (identity) => {
      const agent = openScriptedAgent(server.coordinator, identity);
      await agent.login(token === undefined ? {} : { enrolmentToken: token });
      return agent;
    }),
  );
}

async function createFleet(server: TestCoordinator, count: number): Promise<readonly ScriptedAgent[]> {
  const identities = Array.from({ length: count }, (_, index) => createAgentIdentity(`agent-${index}`));
  return await connectAll(server, identities, (await server.createToken("agent")).token);
}

async function readDeployment(server: TestCoordinator, id: DeploymentId): Promise<DeploymentDto> {
  return deploymentSchema.parse(await (await server.fetch(`deployments/${id}`)).json());
}

const offeredTo = (agent: ScriptedAgent): DeploymentId | null => agent.framesOf("offer").at(-1)?.deploymentId ?? null;

function requireOffer(agent: ScriptedAgent): DeploymentId {
  const id = offeredTo(agent);
  if (id === null) throw new Error(`${agent.identity.name} was offered nothing`);
  return id;
}

async function runToItsEnd(agent: ScriptedAgent): Promise<void> {
  const id = requireOffer(agent);
  const first = [phaseEntry("fetching"), logEntry("a"), phaseEntry("activating")];
  expect(await agent.report(id, numberEntries(first))).toBe(3);
  expect(await agent.report(id, numberEntries([logEntry("b"), outcomeEntry("succeeded")], 4))).toBe(5);
}

describe(`a rollout for ${AGENTS} agents`, () => {
  test("reaches each once, and each outcome is stored and told to who follows", async () => {
    await using server = await createServer();
    const agents = await createFleet(server, AGENTS);
    const rollout = await server.activate(PATH, ...agents.map(({ identity }) => identity.name));
    expect(agents.map((agent) => agent.framesOf("offer").length)).toEqual(agents.map(() => 1));
    const stream = readEventStream(await server.fetch(`rollouts/${rollout.id}/follow`));
    const events = stream.rest();
    await Promise.all(agents.map(runToItsEnd));
    const told = new Map<string, string>();
    const lines = new Map<string, string[]>();
    for (const { event } of await events) {
      if (event.event === "deployment") told.set(event.data.agent, event.data.state);
      if (event.event !== "log") continue;
      const texts = event.data.lines.map(({ text }) => text);
      lines.set(event.data.agent, [...(lines.get(event.data.agent) ?? []), ...texts]);
    }
    expect(told.size).toBe(AGENTS);
    expect(new Set(told.values())).toEqual(new Set(["succeeded"]));
    expect([...lines.values()]).toEqual(agents.map(() => ["a", "b"]));
  }, 90_000);

  test("that is under way when the coordinator is killed goes on when all return at once", async () => {
    await using server = await createServer("file");
    const agents = await createFleet(server, AGENTS);
    const rollout = await server.activate(PATH, ...agents.map(({ identity }) => identity.name));
    // A third has heard of nothing, a third works on it, a third is done.
    const begun = agents.filter((_, index) => index % 3 === 1);
    await Promise.all(begun.map((agent) => agent.report(requireOffer(agent), numberEntries([phaseEntry("fetching")]))));
    await Promise.all(agents.filter((_, index) => index % 3 === 2).map(runToItsEnd));
    await server.restart();
    const again = await Promise.all(
      agents.map(async (before, index) => {
        const agent = openScriptedAgent(server.coordinator, before.identity);
        await agent.login({ state: machineState(index % 3 === 1 ? requireOffer(before) : null) });
        return agent;
      }),
    );
    expect(again.map((agent) => agent.framesOf("welcome").length)).toEqual(agents.map(() => 1));
    await Promise.all(
      again.map(async (agent, index) => {
        if (index % 3 === 0) await runToItsEnd(agent);
        const id = agents[index] === undefined ? null : offeredTo(agents[index]);
        if (index % 3 !== 1 || id === null) return;
        expect(await agent.report(id, numberEntries([outcomeEntry("succeeded")], 2))).toBe(2);
      }),
    );
    const after = rolloutSchema.parse(await (await expectOk(await server.fetch(`rollouts/${rollout.id}`))).json());
    expect(after.deployments.map(({ state }) => state)).toEqual(agents.map(() => "succeeded"));
  }, 90_000);
});

test(`${FLOOD_LINES} lines from one agent are all there, and hold up neither others nor who follows`, async () => {
  await using server = await createServer();
  const [noisy, quiet] = await createFleet(server, 2);
  if (noisy === undefined || quiet === undefined) throw new Error("two agents were wanted");
  const rollout = await server.activate(PATH, noisy.identity.name, quiet.identity.name);
  const [flooded, calm] = [requireOffer(noisy), requireOffer(quiet)];
  const stream = readEventStream(await server.fetch(`deployments/${flooded}/follow`));
  const perReport = 2_000;
  await noisy.report(flooded, numberEntries([phaseEntry("activating")]));
  let quietN = 0;
  let followed = 0;
  let isCut = false;
  for (let from = 0; from < FLOOD_LINES; from += perReport) {
    const length = Math.min(perReport, FLOOD_LINES - from);
    const lines = Array.from({ length }, (_, index) => logEntry(`line ${from + index}`));
    const sent = noisy.report(flooded, numberEntries(lines, from + 2));
    quietN += 1;
    expect(await quiet.report(calm, numberEntries([logEntry("still here")], quietN))).toBe(quietN);
    expect(await sent).toBe(from + length + 1);
    // What is more than a log may hold is acknowledged and dropped; the last line that came says so.
    if (isCut) continue;
    // Read while it is written: what a follower does not read is not kept for it.
    for (const { event } of await stream.until(({ event }) => event === "log")) {
      if (event.event === "log") followed += event.data.lines.length;
    }
    isCut = (await readDeployment(server, flooded)).logTruncated;
  }
  await noisy.report(flooded, numberEntries([outcomeEntry("succeeded")], FLOOD_LINES + 2));
  for (const { event } of await stream.rest()) if (event.event === "log") followed += event.data.lines.length;
  expect(isCut).toBe(FLOOD_LINES > WHOLE_MAX);
  if (isCut) expect(followed).toBeGreaterThan(WHOLE_MAX);
  else expect(followed).toBe(FLOOD_LINES);
  const last = await server.fetch(`deployments/${flooded}/log?after=${followed}`);
  const [line] = logPageSchema.parse(await last.json()).lines;
  if (isCut) expect(line?.text).toContain("64 MiB");
  else expect(line?.text).toBe(`line ${FLOOD_LINES - 1}`);
  expect(rollout.deployments).toHaveLength(2);
}, 600_000);
