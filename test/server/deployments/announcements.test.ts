/** Deployments that were started on a device: announced by its agent, once or again, in time or much later. */
import { describe, expect, test } from "bun:test";
import { agentListSchema } from "../../../src/api/agents.ts";
import { type DeploymentDto, deploymentListSchema, logPageSchema } from "../../../src/api/deployments.ts";
import { rolloutSchema } from "../../../src/api/rollouts.ts";
import { type DeploymentId, parseDeploymentId } from "../../../src/names.ts";
import type { AgentFrameInput } from "../../../src/protocol.ts";
import { ANNOUNCED_MAX } from "../../../src/server/deployments/announcements.ts";
import { createTestCoordinator, type StartedRollout, type TestCoordinator } from "../../support/coordinator.ts";
import { logEntry, machineState, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const HERE = createTinyPath("here");
const ONE = createTinyPath("one");
const TWO = createTinyPath("two");
const ID = parseDeploymentId("0000000000000000");

function announce(server: TestCoordinator, changes: Partial<Announce> = {}): Announce {
  return {
    kind: "announce",
    deploymentId: ID,
    storePath: HERE.storePath,
    mode: "switch",
    startedAtMs: server.clock.nowMs(),
    startedBy: "alice",
    ...changes,
  };
}
type Announce = Extract<AgentFrameInput, { kind: "announce" }>;

async function find(server: TestCoordinator, id: DeploymentId): Promise<DeploymentDto | undefined> {
  const answer = await server.fetch("deployments?limit=1000");
  return deploymentListSchema.parse(await answer.json()).deployments.find((deployment) => deployment.id === id);
}

function idOf(rollout: StartedRollout): DeploymentId {
  const [deployment] = rollout.deployments;
  if (deployment === undefined) throw new Error("the rollout has no deployment");
  return deployment.id;
}

describe("an announcement", () => {
  test("makes a deployment, and its journal is taken like any other, with its own times", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    const startedAtMs = server.clock.nowMs() - 60_000;
    await agent.send(announce(server, { startedAtMs }));
    expect(agent.framesOf("acknowledge")).toEqual([{ kind: "acknowledge", deploymentId: ID, through: 0 }]);
    expect(await find(server, ID)).toMatchObject({ state: "activating", agent: "nuc", startedOnDevice: true });

    const entries = numberEntries([phaseEntry("activating"), logEntry("by hand"), outcomeEntry("succeeded")]);
    const endedAtMs = startedAtMs + 5_000;
    expect(
      await agent.report(
        ID,
        entries.map((entry) => ({ ...entry, atMs: endedAtMs })),
      ),
    ).toBe(3);
    const deployment = await find(server, ID);
    expect(deployment).toMatchObject({
      state: "succeeded",
      storePath: HERE.storePath,
      startedAt: new Date(startedAtMs).toISOString(),
      finishedAt: new Date(endedAtMs).toISOString(),
    });
    const rollout = rolloutSchema.parse(await (await server.fetch(`rollouts/${deployment?.rollout}`)).json());
    expect(rollout.description).toBe("started on the device by alice");
    const { lines } = logPageSchema.parse(await (await server.fetch(`deployments/${ID}/log`)).json());
    expect(lines.map(({ text }) => text)).toEqual(["by hand"]);
    const { agents } = agentListSchema.parse(await (await server.fetch("agents")).json());
    expect(agents[0]?.deployment).toMatchObject({
      id: ID,
      state: "succeeded",
      storePath: HERE.storePath,
      startedOnDevice: true,
    });
  });

  test("that is made again changes nothing, and says what is stored", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    await agent.send(announce(server));
    await agent.report(ID, numberEntries([phaseEntry("activating"), logEntry("one")]));
    await agent.disconnect();
    const again = await server.connectAgent(agent.identity, { state: machineState(ID) });
    await again.send(announce(server, { storePath: ONE.storePath }));
    expect(again.framesOf("acknowledge")).toEqual([{ kind: "acknowledge", deploymentId: ID, through: 2 }]);
    expect(await find(server, ID)).toMatchObject({ state: "activating", storePath: HERE.storePath });
  });

  test("of a deployment that is another agent's is refused", async () => {
    await using server = await createTestCoordinator();
    const nuc = await server.connectAgent("nuc");
    const other = await server.connectAgent("other");
    await nuc.send(announce(server));
    await other.send(announce(server, { storePath: ONE.storePath }));
    expect(other.framesOf("acknowledge")).toEqual([]);
    expect(other.framesOf("error")).toMatchObject([{ code: "not-yours" }]);
    expect(await find(server, ID)).toMatchObject({ agent: "nuc", storePath: HERE.storePath });
  });

  test("of very many within a day is refused, until the day is over", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    const numbered = (n: number) => parseDeploymentId(String(n).padStart(16, "0"));
    for (let n = 1; n <= ANNOUNCED_MAX; n += 1) await agent.send(announce(server, { deploymentId: numbered(n) }));
    expect(agent.framesOf("error")).toEqual([]);
    await agent.send(announce(server, { deploymentId: numbered(ANNOUNCED_MAX + 1) }));
    expect(agent.framesOf("error")).toMatchObject([{ code: "too-many" }]);
    // A known one is still welcome.
    await agent.send(announce(server, { deploymentId: numbered(1) }));
    expect(agent.framesOf("acknowledge").length).toBe(ANNOUNCED_MAX + 1);
    await agent.disconnect();
    await server.clock.advance(24 * 3_600_000 + 1);
    const later = await server.connectAgent(agent.identity);
    await later.send(announce(server, { deploymentId: numbered(ANNOUNCED_MAX + 1) }));
    expect(later.framesOf("error")).toEqual([]);
  });

  test("from a clock that is ahead counts from now", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    await agent.send(announce(server, { startedAtMs: server.clock.nowMs() + 1e9 }));
    expect((await find(server, ID))?.startedAt).toBe(new Date(server.clock.nowMs()).toISOString());
  });
});

describe("what the coordinator started", () => {
  test("before it gives way: an offer is asked to stop, then superseded", async () => {
    await using server = await createTestCoordinator();
    await server.publishUnseen(ONE);
    const agent = await server.connectAgent("nuc");
    const older = idOf(await server.activate(ONE, "nuc"));
    await server.clock.advance(1_000);
    await agent.send(announce(server));
    expect(agent.received.at(-1)).toEqual({ kind: "cancel", deploymentId: older });
    await agent.report(older, numberEntries([outcomeEntry("cancelled")]));
    expect((await find(server, older))?.state).toBe("superseded");
    expect((await find(server, ID))?.state).toBe("activating");
  });

  test("after it stays, and goes on beside it", async () => {
    await using server = await createTestCoordinator();
    await server.publishUnseen(ONE);
    const agent = await server.connectAgent("nuc");
    const newer = idOf(await server.activate(ONE, "nuc"));
    await agent.report(newer, numberEntries([phaseEntry("fetching")]));
    await agent.send(announce(server, { startedAtMs: server.clock.nowMs() - 1 }));
    expect(agent.framesOf("cancel")).toEqual([]);
    expect([(await find(server, newer))?.state, (await find(server, ID))?.state]).toEqual(["fetching", "activating"]);
  });

  test("meanwhile is offered at once: the device takes turns", async () => {
    await using server = await createTestCoordinator();
    await server.publishUnseen(ONE, TWO);
    const agent = await server.connectAgent("nuc");
    await agent.send(announce(server));
    await server.clock.advance(1_000);
    const next = idOf(await server.activate(TWO, "nuc"));
    expect(agent.framesOf("offer")).toMatchObject([{ deploymentId: next }]);
  });
});

describe("an agent that returns", () => {
  test("with its journals has forgotten neither", async () => {
    await using server = await createTestCoordinator();
    await server.publishUnseen(ONE);
    const agent = await server.connectAgent("nuc");
    const offered = idOf(await server.activate(ONE, "nuc"));
    await agent.report(offered, numberEntries([phaseEntry("activating")]));
    await agent.send(announce(server));
    await agent.disconnect();
    await server.connectAgent(agent.identity, { state: { ...machineState(offered), unreported: [offered, ID] } });
    expect([(await find(server, offered))?.state, (await find(server, ID))?.state]).toEqual([
      "activating",
      "activating",
    ]);
  });

  test("without its journal is somebody to look at", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    await agent.send(announce(server));
    await agent.disconnect();
    await server.connectAgent(agent.identity);
    expect(await find(server, ID)).toMatchObject({
      state: "degraded",
      reason: expect.stringContaining("without any memory of it"),
    });
  });
});
