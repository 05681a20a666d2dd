/** Agents that are removed, renamed and labeled. */
import { describe, expect, test } from "bun:test";
import { agentListSchema, agentSchema } from "../../../src/api/agents.ts";
import { deploymentListSchema, deploymentSchema } from "../../../src/api/deployments.ts";
import { cancelledSchema } from "../../../src/api/rollouts.ts";
import { parseDeploymentId } from "../../../src/names.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import {
  createAgentIdentity,
  logEntry,
  numberEntries,
  openScriptedAgent,
  phaseEntry,
} from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const PATH = createTinyPath("one");
const NEWER = createTinyPath("two");

async function listAgents(server: TestCoordinator, query = "") {
  return agentListSchema.parse(await (await server.fetch(`agents${query}`)).json()).agents;
}

async function deploymentsOf(server: TestCoordinator, agent: string) {
  const answer = await server.fetch(`deployments?agent=${encodeURIComponent(agent)}`);
  return deploymentListSchema.parse(await answer.json()).deployments;
}

const remove = (server: TestCoordinator, ...select: string[]) => server.fetch("agent-removals", { json: { select } });

const rename = (server: TestCoordinator, from: string, to: string) =>
  server.fetch(`agents/${from}`, { method: "PATCH", json: { name: to } });

const label = (server: TestCoordinator, select: string, labels: Record<string, string | null>) =>
  server.fetch("agent-labels", { json: { select: [select], labels } });

describe("a removed agent", () => {
  test("is disconnected, and refused with a message of its own, whatever token it brings", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    const credential = agent.framesOf("welcome")[0]?.readCredential ?? "";
    expect((await remove(server, "nuc")).status).toBe(200);
    expect(agent.closed).toEqual({ code: 1000, reason: "this agent was removed" });
    const { token } = await server.createToken("agent");
    for (const hello of [{}, { enrolmentToken: token }]) {
      const again = openScriptedAgent(server.coordinator, agent.identity);
      await again.login(hello);
      expect(again.framesOf("refused")).toMatchObject([{ code: "removed" }]);
      expect(again.framesOf("refused")[0]?.message).toContain("removed this agent (nuc, on 2026-01-01)");
    }
    expect((await server.fetch("caches/default", { token: credential })).status).toBe(401);
    expect(await listAgents(server)).toEqual([]);
  });

  test("leaves its name to a new one, and its history to be read", async () => {
    await using server = await createTestCoordinator();
    await server.push(PATH, NEWER);
    const agent = await server.connectAgent("nuc");
    const [old] = (await server.activate(PATH, "nuc")).deployments;
    const id = parseDeploymentId(old?.id ?? "");
    await agent.report(id, numberEntries([phaseEntry("activating"), logEntry("said before")]));
    await remove(server, "nuc");
    const [gone] = await deploymentsOf(server, "nuc");
    expect(gone).toMatchObject({ id, agent: "nuc", state: "degraded" });
    expect(gone?.reason).toContain("Its agent was removed before it told");
    expect(await (await server.fetch(`deployments/${id}/log`)).json()).toMatchObject({
      lines: [{ text: "said before" }],
    });
    await server.connectAgent("nuc");
    expect(await deploymentsOf(server, "nuc")).toEqual([]);
    expect(deploymentSchema.parse(await (await server.fetch(`deployments/${id}`)).json()).agent).toBe("nuc" as never);
    await server.activate(NEWER, "nuc");
    expect(await deploymentsOf(server, "nuc")).toHaveLength(1);
  });

  test.each([
    ["queued", null, "cancelled"],
    ["offered", [], "cancelled"],
    ["fetching", [phaseEntry("fetching")], "cancelled"],
    ["activating", [phaseEntry("activating")], "degraded"],
  ] as const)("what was %s ends", async (_state, entries, end) => {
    await using server = await createTestCoordinator();
    await server.push(PATH);
    const agent = await server.connectAgent("nuc");
    if (entries === null) await agent.disconnect();
    const rollout = await server.activate(PATH, "nuc");
    const id = parseDeploymentId(rollout.deployments[0]?.id ?? "");
    if (entries !== null && entries.length > 0) await agent.report(id, numberEntries(entries));
    await remove(server, "nuc");
    expect((await deploymentsOf(server, "nuc"))[0]).toMatchObject({ id, state: end });
    expect((await deploymentsOf(server, "nuc"))[0]?.reason).toContain("agent was removed");
    if (entries !== null) expect(agent.framesOf("cancel")).toEqual([{ kind: "cancel", deploymentId: id }] as never);
    // Nothing can be deployed to it any more, by its deployment's id either.
    const retry = await server.fetch("retries", { json: { of: [id] } });
    expect([retry.status, await retry.text()]).toEqual([422, expect.stringContaining("the agent was removed")]);
    expect((await server.fetch("rollouts", { json: { agents: { nuc: PATH.storePath }, mode: "switch" } })).status).toBe(
      422,
    );
  });

  test("of several, all are removed or none", async () => {
    await using server = await createTestCoordinator();
    for (const name of ["web-1", "web-2", "nuc"]) await server.connectAgent(name);
    const refused = await remove(server, "nuc", "nothing-*");
    expect([refused.status, await refused.text()]).toEqual([422, expect.stringContaining("nothing-*: no agent")]);
    expect(await listAgents(server)).toHaveLength(3);
    expect(await (await remove(server, "web-*")).json()).toEqual({ removed: ["web-1", "web-2"] });
    expect((await remove(server)).status).toBe(400);
    expect((await remove(server, "web-1")).status).toBe(422);
    expect((await listAgents(server)).map(({ name }) => String(name))).toEqual(["nuc"]);
  });

  test("that logs in at this moment does not stay", async () => {
    await using server = await createTestCoordinator();
    const { identity } = await server.connectAgent("nuc");
    const agent = openScriptedAgent(server.coordinator, identity);
    await Promise.all([agent.login(), remove(server, "nuc")]);
    expect(agent.closed).not.toBeNull();
    expect(server.coordinator.services.registry.online).toBe(0);
  });
});

describe("a renamed agent", () => {
  test("keeps its history, and may log in by its old name, which says the new one", async () => {
    await using server = await createTestCoordinator();
    await server.push(PATH);
    const agent = await server.connectAgent("old");
    const rollout = await server.activate(PATH, "old");
    const answer = await rename(server, "old", "new");
    expect(agentSchema.parse(await answer.json())).toMatchObject({ name: "new", formerNames: ["old"] });
    expect(agent.closed).toEqual({ code: 1000, reason: "renamed to new: log in again" });
    expect((await deploymentsOf(server, "new"))[0]).toMatchObject({ id: rollout.deployments[0]?.id ?? "" });
    const again = await server.connectAgent(agent.identity);
    expect(again.framesOf("welcome")[0]).toMatchObject({ name: "new" });
    const renamed = await server.connectAgent({ ...agent.identity, name: "new" });
    expect(renamed.framesOf("welcome")[0]?.name).toBeUndefined();
    const third = openScriptedAgent(server.coordinator, { ...agent.identity, name: "third" });
    await third.login();
    expect(third.framesOf("refused")).toMatchObject([{ code: "other-name" }]);
  });

  test("leaves its old name to another one, and can go back only while that is free", async () => {
    await using server = await createTestCoordinator();
    const { identity } = await server.connectAgent("old");
    await rename(server, "old", "new");
    const other = await server.connectAgent("old");
    expect((await listAgents(server)).map(({ name }) => String(name))).toEqual(["new", "old"]);
    expect((await rename(server, "new", "old")).status).toBe(409);
    await server.connectAgent(identity);
    expect(other.closed).toBeNull();
    await remove(server, "old");
    expect((await rename(server, "new", "old")).status).toBe(200);
    expect(await listAgents(server)).toMatchObject([{ name: "old", formerNames: ["new"] }]);
  });

  test.each([
    ["nobody", "new", 404],
    ["nuc", "a b", 400],
    ["nuc", "", 400],
    ["n*", "new", 400],
  ])("%s to %p is refused", async (from, to, status) => {
    await using server = await createTestCoordinator();
    for (const name of ["nuc", "nac"]) await server.connectAgent(name);
    expect((await rename(server, encodeURIComponent(from), to)).status).toBe(status);
  });
});

describe("labels", () => {
  test("are the device's, and over them the operator's", async () => {
    await using server = await createTestCoordinator();
    const { identity } = await server.connectAgent("nuc", { labels: { role: "web", room: "1" } });
    await label(server, "nuc", { role: "db", ring: "2" });
    expect(await listAgents(server)).toMatchObject([
      { labels: { ring: "2", role: "db", room: "1" }, operatorLabels: { role: "db", ring: "2" } },
    ]);
    await server.connectAgent(identity, { labels: { role: "cache" } });
    expect((await listAgents(server))[0]?.labels).toEqual({ ring: "2", role: "db" });
    await label(server, "nuc", { role: null });
    expect((await listAgents(server))[0]?.labels).toEqual({ ring: "2", role: "cache" });
    // An older version, or a supervisor that speaks for the agent, says nothing of them.
    await server.connectAgent(identity);
    expect((await listAgents(server))[0]?.labels).toEqual({ ring: "2", role: "cache" });
  });

  test("select agents wherever agents are named", async () => {
    await using server = await createTestCoordinator();
    await server.push(PATH);
    for (const name of ["web-1", "web-2", "db"]) {
      await (await server.connectAgent(name, { labels: { role: name.slice(0, 3) } })).disconnect();
    }
    await label(server, "label:role=web", { ring: "1" });
    const names = async (query: string) => (await listAgents(server, query)).map(({ name }) => String(name));
    expect(await names("?select=label:ring")).toEqual(["web-1", "web-2"]);
    expect(await names("?select=web-2,d*")).toEqual(["db", "web-2"]);
    const missing = await server.fetch("agents?select=web-2,nothing-*");
    expect([missing.status, await missing.text()]).toEqual([422, expect.stringContaining("nothing-*")]);
    expect((await server.fetch("agents?select=a%20b")).status).toBe(400);

    await server.activate(PATH, "web-1", "web-2", "db");
    expect((await deploymentsOf(server, "label:ring=1")).map(({ agent }) => String(agent)).toSorted()).toEqual([
      "web-1",
      "web-2",
    ]);
    const cancelled = await server.fetch("cancellations", { json: { of: ["label:ring=1"] } });
    expect(cancelledSchema.parse(await cancelled.json()).deployments).toHaveLength(2);
    const none = await server.fetch("cancellations", { json: { of: ["db", "nope-*"] } });
    expect([none.status, await none.text()]).toEqual([422, expect.stringContaining("nope-*")]);
    const retried = await server.fetch("retries", { json: { of: ["web-?"] } });
    expect([retried.status, await retried.json()]).toMatchObject([
      201,
      { deployments: [{ agent: "web-1" }, { agent: "web-2" }] },
    ]);
  });

  test.each([{ "a b": "x" }, { role: "a b" }, { role: "" }, Object.fromEntries(manyLabels(33))])(
    "%p is refused",
    async (labels) => {
      await using server = await createTestCoordinator();
      await server.connectAgent("nuc");
      expect((await label(server, "nuc", labels)).status).toBe(400);
      const agent = openScriptedAgent(server.coordinator, createAgentIdentity("other"));
      await agent.login({ labels });
      expect(agent.framesOf("error")).toMatchObject([{ code: "malformed" }]);
    },
  );

  test("more than an agent may have are refused, for all or none", async () => {
    await using server = await createTestCoordinator();
    for (const name of ["a", "b"]) await server.connectAgent(name);
    await label(server, "b", Object.fromEntries(manyLabels(32)));
    expect((await label(server, "*", { more: "x" })).status).toBe(422);
    expect((await listAgents(server))[0]?.labels).toEqual({});
  });
});

function manyLabels(count: number): (readonly [string, string])[] {
  return Array.from({ length: count }, (_, index) => [`k${index}`, "v"] as const);
}
