/** How many agents were connected at once, by workspace and month: it only grows, and it survives. */
import { expect, test } from "bun:test";
import { statusSchema } from "../../../src/api/status.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createManualClock } from "../../support/manual-clock.ts";

const SECOND_MS = 1_000;

async function peaksOf(server: TestCoordinator) {
  const { agentPeaks } = statusSchema.parse(await (await server.fetch("status")).json());
  return agentPeaks.map(({ workspace, month, agents }) => `${workspace} ${month} ${agents}`);
}

test("the highest number of a month stays, also after a kill; a new month begins with who is connected", async () => {
  await using server = await createTestCoordinator({
    database: "file",
    clock: createManualClock({ startMs: Date.UTC(2026, 0, 31, 23, 59, 59) }),
  });
  expect(await peaksOf(server)).toEqual([]);
  const agents = [await server.connectAgent("a"), await server.connectAgent("b"), await server.connectAgent("c")];
  expect(await peaksOf(server)).toEqual(["default 2026-01 3"]);
  for (const agent of agents) await agent.disconnect();
  await server.restart();
  const [a] = agents;
  if (a === undefined) throw new Error("no agent");
  // The same agent once more is no second one.
  await server.connectAgent(a.identity);
  await server.connectAgent(a.identity);
  expect(await peaksOf(server)).toEqual(["default 2026-01 3"]);
  await server.clock.advance(SECOND_MS);
  expect(await peaksOf(server)).toEqual(["default 2026-02 1", "default 2026-01 3"]);
  const metrics = await (await server.fetch("/metrics")).text();
  expect(metrics).toContain('nixdeploy_agents_peak{workspace="default",month="2026-02"} 1');
});
