/**
 * A coordinator that is killed and started again between any two steps of a scenario loses nothing that it had
 * acknowledged: the scenario ends the same, whichever the step.
 */
import { describe, expect, test } from "bun:test";
import { deploymentSchema, logPageSchema } from "../../src/api/deployments.ts";
import type { DeploymentId } from "../../src/names.ts";
import { createTestCoordinator, type TestCoordinator } from "../support/coordinator.ts";
import {
  type EntryContent,
  logEntry,
  machineState,
  numberEntries,
  outcomeEntry,
  phaseEntry,
  type ScriptedAgent,
} from "../support/scripted-agent.ts";
import { createTinyPath } from "../support/tiny-path.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");

/** An agent as the protocol wants it: a journal on its disk, sent from the first unacknowledged entry. */
function createJournalingAgent(server: TestCoordinator, first: ScriptedAgent) {
  const journals = new Map<DeploymentId, EntryContent[]>();
  const acknowledged = new Map<DeploymentId, number>();
  let connection = first;
  let working: DeploymentId | null = null;
  const deliver = async () => {
    for (const [id, journal] of journals) {
      const from = acknowledged.get(id) ?? 0;
      if (from === journal.length) continue;
      acknowledged.set(id, await connection.report(id, numberEntries(journal.slice(from), from + 1)));
    }
  };
  return {
    /** Takes the newest offer that it does not know yet. */
    accept(): DeploymentId {
      const offer = connection.framesOf("offer").findLast(({ deploymentId }) => !journals.has(deploymentId));
      if (offer === undefined) throw new Error("there is no new offer");
      journals.set(offer.deploymentId, []);
      working = offer.deploymentId;
      return offer.deploymentId;
    },
    async write(...entries: readonly EntryContent[]) {
      if (working === null) throw new Error("the agent has nothing to do");
      journals.get(working)?.push(...entries);
      await deliver();
      if (entries.at(-1)?.type === "outcome") working = null;
    },
    async reconnect() {
      connection = await server.connectAgent(first.identity, { state: machineState(working) });
      await deliver();
    },
  };
}

type World = {
  readonly server: TestCoordinator;
  readonly agent: ReturnType<typeof createJournalingAgent>;
  readonly started: DeploymentId[];
};

/** Each step is acknowledged to whoever took it before the next begins. */
const STEPS: readonly (readonly [name: string, run: (world: World) => Promise<unknown> | unknown])[] = [
  ["push", ({ server }) => server.push(ONE)],
  ["activate one", async ({ server, started }) => started.push(...idsOf(await server.activate(ONE, "nuc")))],
  ["accept one", ({ agent }) => void agent.accept()],
  ["fetch one", ({ agent }) => agent.write(phaseEntry("fetching"), logEntry("fetching one"))],
  ["push more", ({ server }) => server.push(TWO)],
  ["activate two", async ({ server, started }) => started.push(...idsOf(await server.activate(TWO, "nuc")))],
  ["activate one's switch", ({ agent }) => agent.write(phaseEntry("activating"), logEntry("switching"))],
  ["confirm one", ({ agent }) => agent.write(phaseEntry("confirming"), logEntry("proved"))],
  ["end one", ({ agent }) => agent.write(outcomeEntry("succeeded", "one runs"))],
  ["accept two", ({ agent }) => void agent.accept()],
  ["fetch two", ({ agent }) => agent.write(phaseEntry("fetching"), logEntry("fetching two"))],
  ["end two", ({ agent }) => agent.write(outcomeEntry("failed", "the disk is full"))],
];
/** After these the agent is past fetching one, or busy with two, so that a return finds nothing to give way to. */
const FETCHING_WHILE_ANOTHER_WAITS = "activate two";

function idsOf(rollout: { readonly deployments: readonly { readonly id: DeploymentId }[] }): DeploymentId[] {
  return rollout.deployments.map(({ id }) => id);
}

async function run(killAfter: string | null): Promise<string[]> {
  await using server = await createTestCoordinator({ database: "file" });
  const world: World = { server, agent: createJournalingAgent(server, await server.connectAgent("nuc")), started: [] };
  for (const [name, step] of STEPS) {
    await step(world);
    if (name !== killAfter) continue;
    await server.restart();
    await world.agent.reconnect();
  }
  const ends: string[] = [];
  for (const id of world.started) {
    const deployment = deploymentSchema.parse(await (await server.fetch(`deployments/${id}`)).json());
    const page = logPageSchema.parse(await (await server.fetch(`deployments/${id}/log`)).json());
    ends.push(`${deployment.state}: ${deployment.reason}`, ...page.lines.map(({ n, text }) => `${n} ${text}`));
  }
  return ends;
}

const EXPECTED = [
  "succeeded: one runs",
  "2 fetching one",
  "4 switching",
  "6 proved",
  "failed: the disk is full",
  "2 fetching two",
];

test("the scenario ends like this when nobody is killed", async () => {
  expect(await run(null)).toEqual(EXPECTED);
});

describe("and when the coordinator is killed after", () => {
  for (const [name] of STEPS.filter(([step]) => step !== FETCHING_WHILE_ANOTHER_WAITS)) {
    test(name, async () => expect(await run(name)).toEqual(EXPECTED));
  }
});

test("what is being fetched is asked to give way when the agent returns and a newer one waits", async () => {
  await using server = await createTestCoordinator({ database: "file" });
  await server.push(ONE, TWO);
  const first = await server.connectAgent("nuc");
  const [older] = idsOf(await server.activate(ONE, "nuc"));
  if (older === undefined) throw new Error("no deployment");
  await first.report(older, numberEntries([phaseEntry("fetching")]));
  await server.activate(TWO, "nuc");
  await server.restart();
  const again = await server.connectAgent(first.identity, { state: machineState(older) });
  expect(again.framesOf("cancel")).toMatchObject([{ deploymentId: older }]);
  await again.report(older, numberEntries([outcomeEntry("cancelled")], 2));
  expect(again.framesOf("offer")).toMatchObject([{ storePath: TWO.storePath }]);
});

test("an offer that was out when the coordinator was killed stands until its agent returns", async () => {
  await using server = await createTestCoordinator({ database: "file" });
  await server.push(ONE);
  await server.connectAgent("nuc");
  const rollout = await server.activate(ONE, "nuc");
  expect(rollout.deployments).toMatchObject([{ state: "offered" }]);
  await server.restart();
  const [id] = idsOf(rollout);
  expect(await (await server.fetch(`deployments/${id}`)).json()).toMatchObject({
    state: "offered",
    contact: "unknown",
  });
});

test("a report whose acknowledgement was lost is stored once", async () => {
  await using server = await createTestCoordinator({ database: "file" });
  await server.push(ONE);
  const first = await server.connectAgent("nuc");
  const [id] = idsOf(await server.activate(ONE, "nuc"));
  if (id === undefined) throw new Error("no deployment");
  const entries = numberEntries([phaseEntry("fetching"), logEntry("a"), logEntry("b")]);
  await first.report(id, entries);
  await server.restart();
  const again = await server.connectAgent(first.identity, { state: machineState(id) });
  expect(await again.report(id, [...entries, ...numberEntries([outcomeEntry("succeeded")], 4)])).toBe(4);
  const page = logPageSchema.parse(await (await server.fetch(`deployments/${id}/log`)).json());
  expect(page.lines.map(({ text }) => text)).toEqual(["a", "b"]);
});
