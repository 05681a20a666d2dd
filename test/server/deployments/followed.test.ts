/** What a follower looks at again: what it is told of, and nothing else. */
import { expect, test } from "bun:test";
import { type AgentId, parseAgentId, parseAgentName, parseDeploymentId } from "../../../src/names.ts";
import { createAgentRegistry, type LiveAgent, OFFLINE_AFTER_MS } from "../../../src/server/agents/registry.ts";
import { planRestMs } from "../../../src/server/deployments/follow.ts";
import { FollowedDeployments } from "../../../src/server/deployments/followed.ts";
import { createManualClock } from "../../support/manual-clock.ts";

const idOf = (letter: string) => letter.repeat(16);
const deploymentId = (letter: string) => parseDeploymentId(idOf(letter));
const agentId = (letter: string) => parseAgentId(idOf(letter));

function createWorld() {
  const clock = createManualClock();
  const registry = createAgentRegistry(clock);
  const followed = new FollowedDeployments({ registry, clock });
  const connections = new Map<AgentId, LiveAgent>();
  return {
    ...{ clock, registry, followed },
    connect(letter: string) {
      const agent: LiveAgent = { agentId: agentId(letter), workspaceId: "w", send() {}, close() {} };
      connections.set(agent.agentId, agent);
      registry.enter(agent);
    },
    leave(letter: string) {
      const agent = connections.get(agentId(letter));
      if (agent !== undefined) registry.leave(agent);
    },
    /** As its row says it now. */
    note(letter: string, state: "queued" | "fetching" | "succeeded" = "fetching") {
      const lastSeenMs = clock.nowMs();
      const contact = registry.contact({ agentId: agentId(letter), lastSeenMs });
      followed.note(
        { id: deploymentId(letter), agent_id: agentId(letter) },
        { agent: parseAgentName(letter), state, contact },
        registry.offlineFromMs({ lastSeenMs }),
      );
    },
  };
}

test("nobody is looked at while nobody comes or goes", () => {
  const world = createWorld();
  world.connect("a");
  world.note("a");
  expect(world.followed.takeOtherContacts()).toEqual([]);
  expect(world.followed.untilNextOfflineMs()).toBeNull();
});

test("an agent that goes is told of once, then when it counts as offline", async () => {
  const world = createWorld();
  world.connect("a");
  world.connect("b");
  for (const letter of ["a", "b"]) world.note(letter, "queued");
  world.leave("a");
  expect(world.followed.takeOtherContacts()).toEqual([deploymentId("a")]);
  world.note("a", "queued");
  expect(world.followed.takeOtherContacts()).toEqual([]);
  expect(world.followed.untilNextOfflineMs()).toBe(OFFLINE_AFTER_MS + 1);
  await world.clock.advance(OFFLINE_AFTER_MS);
  expect(world.followed.takeOtherContacts()).toEqual([deploymentId("a")]);
});

test("who came back before anybody looked was never away", () => {
  const world = createWorld();
  world.connect("a");
  world.note("a");
  world.leave("a");
  world.connect("a");
  expect(world.followed.takeOtherContacts()).toEqual([]);
});

test("what has ended is not looked at any more", () => {
  const world = createWorld();
  world.connect("a");
  world.note("a");
  expect(world.followed.liveCount).toBe(1);
  world.note("a", "succeeded");
  world.leave("a");
  expect([world.followed.liveCount, world.followed.takeOtherContacts()]).toEqual([0, []]);
});

test("progress is said when it has moved", () => {
  const world = createWorld();
  world.connect("a");
  world.note("a");
  const progress = (bytes: number) =>
    world.registry.progress.set(deploymentId("a"), {
      ...{ kind: "progress", deploymentId: deploymentId("a"), paths: 0, pathsTotal: 1, bytes, bytesTotal: 9 },
    });
  progress(1);
  expect(world.followed.isDownloading).toBe(true);
  expect([...world.followed.takeProgress()].map(({ progress: { bytes } }) => bytes)).toEqual([1]);
  expect([...world.followed.takeProgress()]).toEqual([]);
  progress(2);
  expect([...world.followed.takeProgress()].map(({ of }) => of.id)).toEqual([deploymentId("a")]);
  world.note("a", "succeeded");
  expect(world.followed.isDownloading).toBe(false);
});

test("whoever hung up is not told", () => {
  const world = createWorld();
  world.connect("a");
  world.note("a");
  world.followed.takeOtherContacts();
  world.followed[Symbol.dispose]();
  world.leave("a");
  expect(world.followed.takeOtherContacts()).toEqual([]);
});

test.each([
  [1, 0],
  [500, 0],
  [1_000, 25],
  [10_000, 250],
  [100_000, 250],
])("of %d that run it rests %d ms", (count, restMs) => expect(planRestMs(count)).toBe(restMs));
