/** An agent comes back with other memories than the coordinator's. */
import { expect, test } from "bun:test";
import { deploymentSchema, logPageSchema } from "../../../src/api/deployments.ts";
import type { DeploymentId } from "../../../src/names.ts";
import { createTestCoordinator, type StartedRollout, type TestCoordinator } from "../../support/coordinator.ts";
import { logEntry, machineState, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");

function idOf(rollout: StartedRollout): DeploymentId {
  const [deployment] = rollout.deployments;
  if (deployment === undefined) throw new Error("the rollout has no deployment");
  return deployment.id;
}

/** As an agent that has accepted the offer, and whose connection broke before it could say so. */
async function loseAcceptance(server: TestCoordinator) {
  await server.publishUnseen(ONE, TWO);
  const first = await server.connectAgent("nuc");
  const older = idOf(await server.activate(ONE, "nuc"));
  await first.disconnect();
  const find = async (id: DeploymentId) =>
    deploymentSchema.parse(await (await server.fetch(`deployments/${id}`)).json());
  return { first, older, find };
}

test("it works on an offer that a newer one took the place of while its acceptance was lost: it is told to stop", async () => {
  await using server = await createTestCoordinator();
  const { first, older } = await loseAcceptance(server);
  await server.activate(TWO, "nuc");
  const again = await server.connectAgent(first.identity, { state: machineState(older) });
  expect(again.received).toContainEqual({ kind: "cancel", deploymentId: older });
});

test("it has carried such an offer out: that is its end, whatever else was wanted meanwhile", async () => {
  await using server = await createTestCoordinator();
  const { first, older, find } = await loseAcceptance(server);
  const newer = idOf(await server.activate(TWO, "nuc"));
  expect(await find(older)).toMatchObject({ state: "offered", stopRequested: "superseded" });
  const again = await server.connectAgent(first.identity, { state: machineState(older) });
  await again.report(older, numberEntries([phaseEntry("fetching"), logEntry("done"), outcomeEntry("succeeded")]));
  expect(await find(older)).toMatchObject({ state: "succeeded" });
  expect(again.framesOf("offer")).toMatchObject([{ deploymentId: newer }]);
});

test("it knows nothing of such an offer: the newer one takes its place", async () => {
  await using server = await createTestCoordinator();
  const { first, older, find } = await loseAcceptance(server);
  const newer = idOf(await server.activate(TWO, "nuc"));
  const again = await server.connectAgent(first.identity, { state: machineState(null) });
  expect(await find(older)).toMatchObject({ state: "superseded" });
  expect(again.framesOf("offer")).toMatchObject([{ deploymentId: newer }]);
});

test("it knows nothing of such an offer, and nothing newer waits: it is offered again", async () => {
  await using server = await createTestCoordinator();
  const { first, older } = await loseAcceptance(server);
  const again = await server.connectAgent(first.identity, { state: machineState(null) });
  expect(again.framesOf("offer")).toMatchObject([{ deploymentId: older }]);
});

test("it has lost its journal: the deployment is offered again, and its new entries, which begin at 1, are taken", async () => {
  await using server = await createTestCoordinator();
  await server.publishUnseen(ONE);
  const first = await server.connectAgent("nuc");
  const rollout = await server.activate(ONE, "nuc");
  const id = idOf(rollout);
  await first.report(id, numberEntries([phaseEntry("fetching"), logEntry("before"), logEntry("before, too")]));
  await first.disconnect();
  const again = await server.connectAgent(first.identity, { state: machineState(null) });
  const entries = numberEntries([phaseEntry("fetching"), logEntry("after"), outcomeEntry("succeeded")]);
  expect(await again.report(id, entries)).toBe(3);
  const { lines } = logPageSchema.parse(await (await server.fetch(`deployments/${id}/log`)).json());
  expect(lines.map(({ text }) => text)).toEqual(["after"]);
});
