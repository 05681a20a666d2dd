/** What agent tokens are bound to. */
import { describe, expect, test } from "bun:test";
import { agentListSchema } from "../../../src/api/agents.ts";
import { createdTokenSchema, tokenListSchema } from "../../../src/api/tokens.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createAgentIdentity, openScriptedAgent } from "../../support/scripted-agent.ts";

async function makeToken(server: TestCoordinator, bound: { readonly agent?: string; readonly usesMax?: number }) {
  return createdTokenSchema.parse(await (await server.fetch("tokens", { json: { kind: "agent", ...bound } })).json());
}

async function enroll(server: TestCoordinator, name: string, enrolmentToken: string) {
  const agent = openScriptedAgent(server.coordinator, createAgentIdentity(name));
  await agent.login({ enrolmentToken });
  return agent;
}

async function usesOf(server: TestCoordinator, id: string) {
  const { tokens } = tokenListSchema.parse(await (await server.fetch("tokens")).json());
  return tokens.find((token) => token.id === id);
}

describe("a token for one name", () => {
  test("admits that agent, and no other", async () => {
    await using server = await createTestCoordinator();
    const { id, token } = await makeToken(server, { agent: "nuc" });
    const other = await enroll(server, "tuc", token);
    expect(other.framesOf("refused")).toMatchObject([
      { code: "token-refused", message: "the agent token admits only an agent named nuc, not tuc" },
    ]);
    expect((await enroll(server, "nuc", token)).framesOf("welcome")).toHaveLength(1);
    expect(await usesOf(server, id)).toMatchObject({ agent: "nuc", uses: 1, usesMax: null });
  });
});

describe("a token for a number of uses", () => {
  test("admits so many agents, however often they log in", async () => {
    await using server = await createTestCoordinator();
    const { id, token } = await makeToken(server, { usesMax: 2 });
    const first = await enroll(server, "a", token);
    await enroll(server, "b", token);
    const again = openScriptedAgent(server.coordinator, first.identity);
    await again.login({ enrolmentToken: token });
    expect(again.framesOf("welcome")).toHaveLength(1);
    expect((await enroll(server, "c", token)).framesOf("refused")).toMatchObject([
      { code: "token-refused", message: "the agent token was good for 2 agents, which it has admitted" },
    ]);
    expect(await usesOf(server, id)).toMatchObject({ uses: 2, usesMax: 2 });
  });

  test("admits one of many that come at once for its last use", async () => {
    await using server = await createTestCoordinator();
    const { id, token } = await makeToken(server, { usesMax: 3 });
    const names = Array.from({ length: 20 }, (_, index) => `a${index}`);
    const all = await Promise.all(names.map((name) => enroll(server, name, token)));
    expect(all.filter((agent) => agent.framesOf("welcome").length === 1)).toHaveLength(3);
    expect(all.filter((agent) => agent.framesOf("refused")[0]?.code === "token-refused")).toHaveLength(17);
    expect(await usesOf(server, id)).toMatchObject({ uses: 3 });
  });

  test("a refusal for another reason uses up nothing", async () => {
    await using server = await createTestCoordinator();
    await server.connectAgent("nuc");
    const { id, token } = await makeToken(server, { usesMax: 1 });
    expect((await enroll(server, "nuc", token)).framesOf("refused")).toMatchObject([{ code: "name-taken" }]);
    expect(await usesOf(server, id)).toMatchObject({ uses: 0 });
    expect((await enroll(server, "other", token)).framesOf("welcome")).toHaveLength(1);
  });
});

test.each([
  [{ kind: "push", agent: "nuc" }],
  [{ kind: "read", usesMax: 1 }],
  [{ kind: "agent", usesMax: 0 }],
  [{ kind: "agent", agent: "a b" }],
])("%p is refused", async (json) => {
  await using server = await createTestCoordinator();
  expect((await server.fetch("tokens", { json })).status).toBe(400);
});

test("the agents that a token admitted are listed by it, and removed by it", async () => {
  await using server = await createTestCoordinator();
  const good = await makeToken(server, {});
  const stolen = await makeToken(server, {});
  await enroll(server, "mine", good.token);
  for (const name of ["theirs-1", "theirs-2"]) await enroll(server, name, stolen.token);
  const list = async (query: string) =>
    agentListSchema.parse(await (await server.fetch(`agents${query}`)).json()).agents.map(({ name }) => String(name));
  expect(await list(`?admittedBy=${stolen.id}`)).toEqual(["theirs-1", "theirs-2"]);
  expect((await server.fetch(`agents?admittedBy=${stolen.id}&select=mine`)).status).toBe(422);
  const removed = await server.fetch("agent-removals", { json: { admittedBy: stolen.id } });
  expect(await removed.json()).toEqual({ removed: ["theirs-1", "theirs-2"] });
  expect(await list("")).toEqual(["mine"]);
});
