/**
 * A device whose disk does not answer any more: its agent is connected and answers pings, and can do nothing. Nothing of it
 * gives up, so the coordinator says that no progress is made, in the time that docs/networks.md names; and when the disk is
 * back, the deployment ends as if nothing had been.
 */
import { expect, test } from "bun:test";
import { agentListSchema } from "../../src/api/agents.ts";
import { type DeploymentDto, deploymentSchema } from "../../src/api/deployments.ts";
import { rolloutSchema } from "../../src/api/rollouts.ts";
import type { DeploymentState } from "../../src/deployment.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import type { Device } from "./device.ts";
import { createWorld, PATHS, type World } from "./world.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
/** What may pass from one look of the coordinator to the next. */
const LOOK_MS = 30 * SECOND_MS;
const TIMEOUT_MS = 10 * MINUTE_MS;
const SEED = 1;

/** Until when it must be said, from the moment at which the disk is stuck. */
const CASES: readonly (readonly [state: DeploymentState, saidWithinMs: number])[] = [
  ["offered", 2 * MINUTE_MS],
  ["fetching", 5 * MINUTE_MS],
  ["confirming", 3 * MINUTE_MS],
];

test.each(CASES)("stuck while a deployment is %s: that it makes no progress is said", async (state, saidWithinMs) => {
  await using directory = await createTemporaryDirectory("stuck-disk");
  await using world = await createWorld({ seed: SEED, directory: directory.path });
  const [device] = world.devices;
  if (device === undefined) throw new Error("a world has devices");
  await reach(world, "every agent to be there", async () => (await readAgent(world, device)).contact === "online");
  if (state === "offered") device.stickDisk();
  const { id } = await deploy(world, device);
  await reach(world, `it to be ${state}`, async () => (await read(world, id)).state === state);
  device.stickDisk();
  await world.clock.advance(saidWithinMs - SECOND_MS);
  // What was under way when the disk stood still may have arrived since.
  await world.clock.advance(2 * LOOK_MS + 2 * SECOND_MS);
  const stuck = await read(world, id);
  expect(stuck).toMatchObject({ contact: "online", stalledSince: expect.any(String), finishedAt: null });
  // It stays so, and the agent stays in contact.
  await world.clock.advance(TIMEOUT_MS);
  expect(await read(world, id)).toMatchObject({
    state: stuck.state,
    contact: "online",
    stalledSince: stuck.stalledSince,
  });
  device.freeDisk();
  await reach(world, "it to end", async () => (await read(world, id)).finishedAt !== null, 120 * MINUTE_MS);
  expect((await read(world, id)).stalledSince).toBeNull();
  expect(world.bugs).toEqual([]);
});

/** Lets time go on, in small steps, until it is so. */
async function reach(
  world: World,
  what: string,
  isSo: () => Promise<boolean>,
  withinMs = 2 * MINUTE_MS,
): Promise<void> {
  const untilMs = world.clock.nowMs() + withinMs;
  while (!(await isSo())) {
    if (world.clock.nowMs() >= untilMs) throw new Error(`waited in vain for ${what}:\n${world.story.join("\n")}`);
    await world.clock.advance(withinMs / 1_000);
  }
}

async function deploy(world: World, device: Device): Promise<{ readonly id: string }> {
  const agents = { [device.name]: PATHS[0]?.storePath };
  const answer = await world.request("rollouts", { json: { agents, mode: "switch" } });
  const [deployment] = rolloutSchema.parse(answer?.body).deployments;
  if (deployment === undefined) throw new Error("the rollout has no deployment");
  return deployment;
}

async function read(world: World, id: string): Promise<DeploymentDto> {
  return deploymentSchema.parse((await world.request(`deployments/${id}`))?.body);
}

async function readAgent(world: World, { name }: Device): Promise<{ readonly contact: string }> {
  const answer = await world.request("agents");
  const { agents } = agentListSchema.parse(answer?.body);
  return agents.find((agent) => String(agent.name) === name) ?? { contact: "unknown" };
}
