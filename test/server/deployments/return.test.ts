/** An agent comes back with other memories than the coordinator's. */
import { expect, test } from "bun:test";
import { logPageSchema } from "../../../src/api/deployments.ts";
import type { DeploymentId } from "../../../src/names.ts";
import { createTestCoordinator, type StartedRollout } from "../../support/coordinator.ts";
import { logEntry, machineState, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");

function idOf(rollout: StartedRollout): DeploymentId {
  const [deployment] = rollout.deployments;
  if (deployment === undefined) throw new Error("the rollout has no deployment");
  return deployment.id;
}

test("it works on an offer that a newer one took the place of while its acceptance was lost: it is told to stop", async () => {
  await using server = await createTestCoordinator();
  await server.publishUnseen(ONE, TWO);
  const first = await server.connectAgent("nuc");
  const older = await server.activate(ONE, "nuc");
  await first.disconnect();
  await server.activate(TWO, "nuc");
  const again = await server.connectAgent(first.identity, { state: machineState(idOf(older)) });
  expect(again.received).toContainEqual({ kind: "cancel", deploymentId: idOf(older) });
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
