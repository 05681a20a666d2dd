/** Which logs are deleted by age and by count, in steps that may be interrupted anywhere. */
import { describe, expect, test } from "bun:test";
import { deploymentSchema, logPageSchema } from "../../../src/api/deployments.ts";
import type { DeploymentId } from "../../../src/names.ts";
import { deleteOldLogs, type LogRetention } from "../../../src/server/logs/log-retention.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { logEntry, numberEntries, outcomeEntry, phaseEntry, type ScriptedAgent } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const HOUR_MS = 3_600_000;
const PATH = createTinyPath("one");

/** A deployment whose log has so many chunks. */
async function deploy(server: TestCoordinator, agent: ScriptedAgent, chunks = 1): Promise<DeploymentId> {
  const [deployment] = (await server.activate(PATH, agent.identity.name)).deployments;
  if (deployment === undefined) throw new Error("there is no deployment");
  await agent.report(deployment.id, numberEntries([phaseEntry("activating")]));
  for (let n = 2; n < chunks + 2; n += 1) await agent.report(deployment.id, numberEntries([logEntry(`line ${n}`)], n));
  await agent.report(deployment.id, numberEntries([outcomeEntry("succeeded")], chunks + 2));
  return deployment.id;
}

async function hasLog(server: TestCoordinator, id: DeploymentId): Promise<boolean> {
  const { lines } = logPageSchema.parse(await (await server.fetch(`deployments/${id}/log`)).json());
  const { logExpired } = deploymentSchema.parse(await (await server.fetch(`deployments/${id}`)).json());
  expect(logExpired).toBe(lines.length === 0);
  return lines.length > 0;
}

async function sweep(server: TestCoordinator, kept: Partial<LogRetention>, signal = new AbortController().signal) {
  const all = { ageMaxMs: 1_000 * HOUR_MS, perAgentMax: 1_000 };
  return await deleteOldLogs(server.coordinator.services, { kept: { ...all, ...kept }, signal });
}

async function createServer() {
  const server = await createTestCoordinator();
  await server.publishUnseen(PATH);
  return server;
}

describe("a log goes", () => {
  test("by the age of its deployment's end", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const old = await deploy(server, nuc);
    await server.clock.advance(10 * HOUR_MS);
    const young = await deploy(server, await server.connectAgent(nuc.identity));
    expect(await sweep(server, { ageMaxMs: 11 * HOUR_MS })).toBe(0);
    expect(await sweep(server, { ageMaxMs: 9 * HOUR_MS })).toBe(1);
    expect([await hasLog(server, old), await hasLog(server, young)]).toEqual([false, true]);
    expect(await sweep(server, { ageMaxMs: 9 * HOUR_MS })).toBe(0);
  });

  test("by what its workspace says, whatever holds elsewhere", async () => {
    await using server = await createServer();
    const id = await deploy(server, await server.connectAgent("nuc"));
    await server.clock.advance(10 * HOUR_MS);
    const set = async (logRetentionMs: number | null) =>
      await server.fetch("workspaces/default", { method: "PATCH", json: { logRetentionMs } });
    await set(11 * HOUR_MS);
    expect(await sweep(server, { ageMaxMs: HOUR_MS })).toBe(0);
    await set(9 * HOUR_MS);
    expect(await sweep(server, {})).toBe(1);
    expect(await hasLog(server, id)).toBe(false);
  });

  test("when so many newer ones of its agent are there, however quiet the others are", async () => {
    await using server = await createServer();
    const [nuc, tuc] = [await server.connectAgent("nuc"), await server.connectAgent("tuc")];
    const quiet = await deploy(server, tuc);
    const ids: DeploymentId[] = [];
    for (let count = 0; count < 5; count += 1) ids.push(await deploy(server, nuc));
    expect(await sweep(server, { perAgentMax: 2 })).toBe(3);
    expect(await Promise.all(ids.map((id) => hasLog(server, id)))).toEqual([false, false, false, true, true]);
    expect(await hasLog(server, quiet)).toBe(true);
  });

  test("never while its deployment runs", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const [running] = (await server.activate(PATH, "nuc")).deployments;
    if (running === undefined) throw new Error("there is no deployment");
    await nuc.report(running.id, numberEntries([phaseEntry("activating"), logEntry("a")]));
    await server.clock.advance(10 * HOUR_MS);
    expect(await sweep(server, { ageMaxMs: HOUR_MS, perAgentMax: 0 })).toBe(0);
    expect(await hasLog(server, running.id)).toBe(true);
  });
});

test("a long one goes in several steps; stopped between two, the next time goes on", async () => {
  await using server = await createServer();
  const id = await deploy(server, await server.connectAgent("nuc"), 40);
  await server.clock.advance(HOUR_MS);
  const stopped = AbortSignal.abort(new Error("stopped"));
  await expect(sweep(server, { ageMaxMs: 1 }, stopped)).rejects.toThrow("stopped");
  const left = logPageSchema.parse(await (await server.fetch(`deployments/${id}/log`)).json()).lines;
  expect(left.length).toBe(40 - 16);
  expect(await sweep(server, { perAgentMax: 0 })).toBe(1);
  expect(await hasLog(server, id)).toBe(false);
});
