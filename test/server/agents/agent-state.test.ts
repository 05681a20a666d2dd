/** What agents say of their machines, as the API shows it: from the hello, from what changes, and as drift. */
import { expect, test } from "bun:test";
import { agentListSchema } from "../../../src/api/agents.ts";
import type { DeploymentId } from "../../../src/names.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { machineState, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const [ONE, TWO, OTHER] = [createTinyPath("one"), createTinyPath("two"), createTinyPath("other")];
const PROFILE = "/nix/var/nix/profiles/system";

async function listed(server: TestCoordinator) {
  const [agent] = agentListSchema.parse(await (await server.fetch("agents")).json()).agents;
  if (agent === undefined) throw new Error("there is no agent");
  return agent;
}

test("an agent of a version that says less is shown without it", async () => {
  await using server = await createTestCoordinator();
  await server.connectAgent("nuc");
  expect(await listed(server)).toMatchObject({
    ...{ currentBasePath: null, rebootNeeded: null, failedUnits: null, failedUnitCount: null, drift: null },
  });
});

test("a state is shown as it was told last, and survives the agent's absence and the coordinator's", async () => {
  await using server = await createTestCoordinator({ database: "file" });
  const agent = await server.connectAgent("nuc");
  const told = { rebootNeeded: ["kernel"], failedUnits: ["web.service"], failedUnitCount: 7, generation: 4 };
  await agent.send({ kind: "state", state: { ...machineState(null), ...told } });
  expect(await listed(server)).toMatchObject(told);
  await agent.disconnect();
  await server.restart();
  expect(await listed(server)).toMatchObject(told);
});

test("what somebody else put there is drift, until it is put right; what runs, or is unreported, is none", async () => {
  await using server = await createTestCoordinator();
  await server.publishUnseen(ONE, TWO);
  const agent = await server.connectAgent("nuc", { profile: PROFILE });
  const say = async (profile: string | null, inFlight: DeploymentId | null = null) => {
    const state = { ...machineState(inFlight), profilePath: profile, currentPath: profile };
    await agent.send({ kind: "state", state });
    return (await listed(server)).drift;
  };
  const deploy = async (path: typeof ONE, end: "succeeded" | "rolled-back" | "failed") => {
    const [deployment] = (await server.activate(path, "nuc")).deployments;
    if (deployment === undefined) throw new Error("the rollout has no deployment");
    await agent.report(deployment.id, numberEntries([phaseEntry("activating")]));
    expect((await listed(server)).drift).toBeNull();
    await agent.report(deployment.id, numberEntries([outcomeEntry(end)], 2));
    return deployment.id;
  };

  expect(await say(OTHER.storePath)).toBeNull();
  const first = await deploy(ONE, "succeeded");
  expect(await say(OTHER.storePath, first)).toBeNull();
  expect(await say(ONE.storePath)).toBeNull();
  const drift = { expected: ONE.storePath, profile: OTHER.storePath, current: OTHER.storePath };
  expect(await say(OTHER.storePath)).toEqual(drift);
  // What failed or was undone left the machine as it was, drift and all.
  await deploy(TWO, "failed");
  await deploy(TWO, "rolled-back");
  expect(await say(OTHER.storePath)).toEqual(drift);
  expect(await say(ONE.storePath)).toBeNull();
  await deploy(TWO, "succeeded");
  expect(await say(ONE.storePath)).toMatchObject({ expected: TWO.storePath });
});
