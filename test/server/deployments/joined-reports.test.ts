/** Reports that wait together are stored together: in order, nothing twice, nothing left out, and each one acknowledged. */
import { expect, test } from "bun:test";
import type { AgentId, DeploymentId } from "../../../src/names.ts";
import { REPORT_ENTRIES_MAX } from "../../../src/protocol.ts";
import { SMALL_CHARACTERS } from "../../../src/server/agents/intake.ts";
import { findDeployment } from "../../../src/server/database/deployments.ts";
import { loadLogLines } from "../../../src/server/database/logs.ts";
import { OpenReport } from "../../../src/server/deployments/reports.ts";
import { createTestCoordinator } from "../../support/coordinator.ts";
import {
  logEntry,
  numberEntries,
  outcomeEntry,
  phaseEntry,
  type ReportEntryInput,
  type ScriptedAgent,
} from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const ONE = createTinyPath("one");

async function createWorld() {
  const server = await createTestCoordinator();
  await server.publishUnseen(ONE);
  const agent = await server.connectAgent("nuc");
  const { deployments } = await server.activate(ONE, "nuc");
  const id = deployments[0]?.id ?? ("" as DeploymentId);
  const stored = async () => {
    const { database } = server.coordinator.services;
    const row = await findDeployment(database, id);
    const lines = await loadLogLines(database, { deploymentId: id, afterN: 0, limit: 10_000 });
    return { state: row?.state, through: row?.journal_through, texts: lines.map(({ text }) => text) };
  };
  return { server, agent, id, stored, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

/** Before anything of the first is stored, as they come out of one packet. */
async function sendAtOnce(agent: ScriptedAgent, id: DeploymentId, reports: readonly ReportEntryInput[][]) {
  await Promise.all(reports.map((entries) => agent.send({ kind: "report", deploymentId: id, entries })));
}

const acknowledged = (agent: ScriptedAgent) => agent.framesOf("acknowledge").map(({ through }) => through);

test("two that come together are one write, acknowledged once", async () => {
  await using world = await createWorld();
  const { agent, id } = world;
  const first = numberEntries([phaseEntry("fetching"), logEntry("a")]);
  await sendAtOnce(agent, id, [first, numberEntries([logEntry("b"), outcomeEntry("succeeded")], 3)]);
  expect(acknowledged(agent)).toEqual([4]);
  expect(await world.stored()).toEqual({ state: "succeeded", through: 4, texts: ["a", "b"] });
});

test("one that comes again, and one behind a gap, are no part of it", async () => {
  await using world = await createWorld();
  const { agent, id } = world;
  const again = numberEntries([phaseEntry("fetching"), logEntry("a")]);
  await sendAtOnce(agent, id, [again, again, numberEntries([logEntry("c")], 4)]);
  expect(acknowledged(agent)).toEqual([2]);
  expect(await world.stored()).toEqual({ state: "fetching", through: 2, texts: ["a"] });
});

test("a large one, and whatever comes behind it, wait their turn", async () => {
  await using world = await createWorld();
  const { agent, id } = world;
  const large = "x".repeat(SMALL_CHARACTERS);
  await sendAtOnce(agent, id, [
    numberEntries([phaseEntry("fetching")]),
    numberEntries([logEntry(large)], 2),
    numberEntries([logEntry("after it")], 3),
  ]);
  expect(acknowledged(agent)).toEqual([1, 2, 3]);
  expect(await world.stored()).toEqual({ state: "fetching", through: 3, texts: [large, "after it"] });
});

test("one of another deployment waits its turn", async () => {
  await using world = await createWorld();
  const { agent, id } = world;
  const stranger = "zzzzzzzzzzzzzzzz" as DeploymentId;
  await Promise.all([
    agent.send({ kind: "report", deploymentId: id, entries: numberEntries([phaseEntry("fetching")]) }),
    agent.send({ kind: "report", deploymentId: stranger, entries: numberEntries([logEntry("lost")]) }),
  ]);
  expect(agent.framesOf("acknowledge").map(({ deploymentId }) => deploymentId)).toEqual([id, stranger]);
  expect(await world.stored()).toEqual({ state: "fetching", through: 1, texts: [] });
});

test("takes nothing more once it is being stored, and no more than one report may have", () => {
  const deploymentId = "aaaaaaaaaaaaaaaa" as DeploymentId;
  const frame = (count: number) => {
    const entries = numberEntries(Array.from({ length: count }, () => logEntry("a")));
    return { kind: "report", deploymentId, entries: entries.filter((entry) => entry.type === "log") } as const;
  };
  const open = new OpenReport("bbbbbbbbbbbbbbbb" as AgentId, frame(REPORT_ENTRIES_MAX - 1));
  expect(open.add(frame(2))).toBe(false);
  expect(open.add(frame(1))).toBe(true);
  expect(open.close()).toHaveLength(REPORT_ENTRIES_MAX);
  const closed = new OpenReport("bbbbbbbbbbbbbbbb" as AgentId, frame(1));
  closed.close();
  expect(closed.add(frame(1))).toBe(false);
});
