/** Challenge, hello, welcome or refusal: who an agent is. */
import { describe, expect, test } from "bun:test";
import { agentListSchema } from "../../../src/api/agents.ts";
import { loginMessage } from "../../../src/login-message.ts";
import { signMessage } from "../../../src/nix/signature.ts";
import { PROTOCOL_VERSION } from "../../../src/protocol.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import {
  type AgentIdentity,
  createAgentIdentity,
  helloOf,
  machineState,
  openScriptedAgent,
  type ScriptedAgent,
} from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";

type Hello = Parameters<ScriptedAgent["login"]>[0];

async function attempt(server: TestCoordinator, identity: AgentIdentity, hello: Hello = {}): Promise<ScriptedAgent> {
  const agent = openScriptedAgent(server.coordinator, identity);
  await agent.login(hello);
  return agent;
}

async function expectRefusal(agent: ScriptedAgent, code: string): Promise<void> {
  const [refused] = agent.framesOf("refused");
  expect(refused?.code).toBe(code as never);
  expect(refused?.message).not.toBe("");
  expect(agent.framesOf("welcome")).toEqual([]);
  expect(agent.closed).toEqual({ code: 1008, reason: code });
}

async function listAgents(server: TestCoordinator) {
  return agentListSchema.parse(await (await server.fetch("agents")).json()).agents;
}

describe("admitted", () => {
  test("a new key with an agent token", async () => {
    await using server = await createTestCoordinator();
    const { token } = await server.createToken("agent");
    const agent = await attempt(server, createAgentIdentity("nuc"), { enrolmentToken: token });
    const [welcome] = agent.framesOf("welcome");
    expect(welcome).toMatchObject({ workspace: "default", cache: { name: "default", path: "/cache/default" } });
    expect(welcome?.cache.publicKeys).toEqual([expect.stringMatching(/^default-\w{6}-1:/)]);
    expect(await listAgents(server)).toMatchObject([
      {
        name: "nuc",
        contact: "online",
        system: "x86_64-linux",
        profile: "/nix/var/nix/profiles/test",
        deployment: null,
      },
    ]);
  });

  test("a known key without a token, after a restart too, with what it says now", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    const { identity } = await server.connectAgent("nuc");
    await server.restart();
    await server.clock.advance(1_000);
    const state = { ...machineState(null), generation: 7, storeFreeBytes: 123 };
    await server.connectAgent(identity, { agentVersion: "0.2.9", nixVersion: null, state });
    expect(await listAgents(server)).toMatchObject([
      {
        name: "nuc",
        agentVersion: "0.2.9",
        versionStatus: "newer",
        nixVersion: null,
        generation: 7,
        lastSeenAt: "2026-01-01T00:00:01.000Z",
      },
    ]);
  });

  test("any number of agents by one token", async () => {
    await using server = await createTestCoordinator();
    const { token } = await server.createToken("agent");
    for (const name of ["a", "b", "c"]) await attempt(server, createAgentIdentity(name), { enrolmentToken: token });
    expect((await listAgents(server)).map(({ name }) => String(name))).toEqual(["a", "b", "c"]);
  });

  test("one admitted by a token that was revoked since", async () => {
    await using server = await createTestCoordinator();
    const { id, token } = await server.createToken("agent");
    const first = await attempt(server, createAgentIdentity("nuc"), { enrolmentToken: token });
    await server.fetch(`tokens/${id}`, { method: "DELETE" });
    expect(first.closed).toBeNull();
    const again = await attempt(server, first.identity);
    expect(again.framesOf("welcome")).toHaveLength(1);
    await expectRefusal(await attempt(server, createAgentIdentity("late"), { enrolmentToken: token }), "token-refused");
  });

  test("the same new key twice at once", async () => {
    await using server = await createTestCoordinator();
    const { token } = await server.createToken("agent");
    const identity = createAgentIdentity("nuc");
    const hello = { enrolmentToken: token };
    const both = await Promise.all([attempt(server, identity, hello), attempt(server, identity, hello)]);
    expect(both.map((agent) => agent.framesOf("welcome").length)).toEqual([1, 1]);
    expect(await listAgents(server)).toHaveLength(1);
  });
});

describe("refused", () => {
  test("an unknown key without a token", async () => {
    await using server = await createTestCoordinator();
    await expectRefusal(await attempt(server, createAgentIdentity("nuc")), "not-enrolled");
  });

  for (const kind of ["admin", "activate", "push", "read"] as const) {
    test(`an unknown key with a token of kind ${kind}`, async () => {
      await using server = await createTestCoordinator();
      const { token } = await server.createToken(kind);
      await expectRefusal(
        await attempt(server, createAgentIdentity("nuc"), { enrolmentToken: token }),
        "token-refused",
      );
    });
  }

  test("an unknown key with the first admin token, or none at all", async () => {
    await using server = await createTestCoordinator();
    for (const enrolmentToken of [server.adminToken, "", "nd_agent_x"]) {
      await expectRefusal(await attempt(server, createAgentIdentity("nuc"), { enrolmentToken }), "token-refused");
    }
  });

  test("an unknown key with an expired token", async () => {
    await using server = await createTestCoordinator();
    const { token } = await server.createToken("agent", { expiresInMs: 1_000 });
    await server.clock.advance(1_000);
    await expectRefusal(await attempt(server, createAgentIdentity("nuc"), { enrolmentToken: token }), "token-refused");
  });

  test("a name that belongs to another key, even with a token", async () => {
    await using server = await createTestCoordinator();
    const first = await server.connectAgent("nuc");
    const { token } = await server.createToken("agent");
    await expectRefusal(await attempt(server, createAgentIdentity("nuc"), { enrolmentToken: token }), "name-taken");
    expect(first.closed).toBeNull();
    expect(await listAgents(server)).toHaveLength(1);
  });

  test("a known key under another name", async () => {
    await using server = await createTestCoordinator();
    const { identity } = await server.connectAgent("nuc");
    const { token } = await server.createToken("agent");
    const renamed = { ...identity, name: "tuc" };
    await expectRefusal(await attempt(server, renamed, { enrolmentToken: token }), "other-name");
  });

  const versions = [PROTOCOL_VERSION + 1, PROTOCOL_VERSION - 1];
  for (const protocolVersion of versions) {
    test(`protocol ${protocolVersion}`, async () => {
      await using server = await createTestCoordinator();
      const { identity } = await server.connectAgent("nuc");
      const agent = await attempt(server, identity, { protocolVersion });
      await expectRefusal(agent, "version");
      expect(agent.framesOf("refused")[0]?.hint).toContain("Update");
    });
  }
});

describe("a signature that does not fit", () => {
  const forgeries: readonly (readonly [what: string, forge: (own: Own, other: AgentIdentity) => Hello])[] = [
    [
      "by another key",
      ({ nonce, identity }, other) => ({ signature: signedBy({ ...other, name: identity.name }, nonce) }),
    ],
    [
      "over the nonce of an earlier connection",
      ({ identity }) => ({ signature: signedBy(identity, "AAAA".repeat(11)) }),
    ],
    ["over another name", ({ nonce, identity }) => ({ signature: signedBy({ ...identity, name: "tuc" }, nonce) })],
    ["that is cut off", ({ nonce, identity }) => ({ signature: signedBy(identity, nonce).slice(0, 40) })],
    ["that is empty", () => ({ signature: "" })],
    ["by a key that is none", () => ({ publicKey: "" })],
    ["by a key of the wrong length", () => ({ publicKey: Buffer.alloc(31).toString("base64") })],
  ];
  type Own = { readonly identity: AgentIdentity; readonly nonce: string };
  const signedBy = (identity: AgentIdentity, nonce: string) => helloOf(identity, nonce).signature;

  for (const [what, forge] of forgeries) {
    test(what, async () => {
      await using server = await createTestCoordinator();
      const { identity } = await server.connectAgent("nuc");
      const agent = openScriptedAgent(server.coordinator, identity);
      await agent.login(forge({ identity, nonce: agent.nonce }, createAgentIdentity("other")));
      await expectRefusal(agent, "bad-signature");
    });
  }

  test("a whole hello that was overheard", async () => {
    await using server = await createTestCoordinator();
    const { identity, nonce } = await server.connectAgent("nuc");
    const thief = openScriptedAgent(server.coordinator, createAgentIdentity("nuc"));
    await thief.send(helloOf(identity, nonce));
    await expectRefusal(thief, "bad-signature");
    expect(thief.nonce).not.toBe(nonce);
  });
});

describe("frames out of turn", () => {
  test("nothing but a hello before the login", async () => {
    await using server = await createTestCoordinator();
    const agent = openScriptedAgent(server.coordinator, createAgentIdentity("nuc"));
    await agent.send({ kind: "ping" });
    expect(agent.framesOf("error")).toMatchObject([{ code: "not-logged-in" }]);
    expect(agent.closed?.code).toBe(1008);
  });

  test("a second hello is answered, and changes nothing", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    await agent.login();
    expect(agent.framesOf("error")).toMatchObject([{ code: "logged-in" }]);
    expect(agent.closed).toBeNull();
  });

  test("an unknown kind is answered, and the connection goes on", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    await agent.sendText('{"kind":"dance","steps":3}');
    await agent.send({ kind: "ping" });
    expect(agent.framesOf("error")).toMatchObject([{ code: "unknown-kind" }]);
    expect(agent.framesOf("pong")).toHaveLength(1);
  });

  test("a malformed frame ends the connection", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    await agent.sendText('{"kind":"report"');
    expect(agent.framesOf("error")).toMatchObject([{ code: "malformed" }]);
    expect(agent.closed?.code).toBe(1008);
    await waitFor("the agent to be gone", async () => (await listAgents(server))[0]?.contact === "unknown");
  });

  test("a flood ends the connection", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    await Promise.all(Array.from({ length: 100 }, () => agent.send({ kind: "state", state: machineState(null) })));
    expect(agent.framesOf("error")).toMatchObject([{ code: "too-fast" }]);
    expect(agent.closed?.code).toBe(1008);
  });

  test("who never says hello is not kept", async () => {
    await using server = await createTestCoordinator();
    const agent = openScriptedAgent(server.coordinator, createAgentIdentity("nuc"));
    await server.clock.advance(60_000);
    expect(agent.closed?.code).toBe(1008);
    const { identity, closed } = await server.connectAgent("nuc");
    await server.clock.advance(60_000);
    expect([identity.name, closed]).toEqual(["nuc", null]);
  });
});

test("an agent that stays for days is sent to log in again before its credential expires", async () => {
  await using server = await createTestCoordinator();
  const agent = await server.connectAgent("nuc");
  const token = agent.framesOf("welcome")[0]?.readCredential ?? "";
  for (let hours = 0; hours < 24 && agent.closed === null; hours += 1) {
    expect((await server.fetch("caches/default", { token })).status).toBe(200);
    await server.clock.advance(3_600_000);
  }
  expect(agent.closed).toEqual({ code: 1000, reason: "log in again: the credential wants renewal" });
  expect((await server.fetch("caches/default", { token })).status).toBe(200);
});

describe("a second connection of the same agent", () => {
  test("replaces the first", async () => {
    await using server = await createTestCoordinator();
    const first = await server.connectAgent("nuc");
    const second = await server.connectAgent(first.identity);
    expect(first.closed?.code).toBe(1000);
    await first.disconnect();
    expect(second.closed).toBeNull();
    expect(await listAgents(server)).toMatchObject([{ contact: "online" }]);
    await second.disconnect();
    expect(await listAgents(server)).toMatchObject([{ contact: "unknown" }]);
  });
});

test("a supervisor's login beside the agent's connection replaces nothing, and says nothing of the agent", async () => {
  await using server = await createTestCoordinator();
  const agent = await server.connectAgent("nuc");
  const [before] = await listAgents(server);
  const supervisor = openScriptedAgent(server.coordinator, agent.identity);
  const proof = { deploymentId: "0123456789abcdfg", by: "supervisor" } as const;
  const message = loginMessage({ nonce: supervisor.nonce, name: "nuc", proof });
  const signature = Buffer.from(signMessage(agent.identity.seed, message)).toString("base64");
  await supervisor.login({ proof, signature, agentVersion: "0.0.1", labels: { role: "none" } });
  expect(supervisor.framesOf("welcome")).toHaveLength(1);
  expect(supervisor.closed).toEqual({ code: 1000, reason: "heard" });
  await supervisor.disconnect();
  expect(agent.closed).toBeNull();
  expect(await listAgents(server)).toEqual(before === undefined ? [] : [before]);
  expect(before?.contact).toBe("online");
});

describe("contact", () => {
  test("is lost 90 s after the last one", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    await server.clock.advance(3_600_000);
    expect(await listAgents(server)).toMatchObject([{ contact: "online" }]);
    await agent.disconnect();
    await server.clock.advance(89_999);
    expect(await listAgents(server)).toMatchObject([{ contact: "unknown" }]);
    await server.clock.advance(1);
    expect(await listAgents(server)).toMatchObject([{ contact: "offline", lastSeenAt: "2026-01-01T01:00:00.000Z" }]);
  });

  test("is unknown for 90 s after the coordinator's start", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await (await server.connectAgent("nuc")).disconnect();
    await server.clock.advance(3_600_000);
    await server.restart();
    expect(await listAgents(server)).toMatchObject([{ contact: "unknown" }]);
    await server.clock.advance(90_000);
    expect(await listAgents(server)).toMatchObject([{ contact: "offline" }]);
  });

  test("state frames are remembered", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    await server.clock.advance(5_000);
    await agent.send({ kind: "state", state: { ...machineState(null), generation: 3 } });
    expect(await listAgents(server)).toMatchObject([{ generation: 3, lastSeenAt: "2026-01-01T00:00:05.000Z" }]);
  });
});

describe("an agent of another release", () => {
  const PATH = createTinyPath("system");

  test.each([
    ["0.3.0", "0.3.4", "current"],
    ["0.2.0", "0.3.0", "current"],
    ["0.4.0", "0.3.0", "newer"],
    ["0.1.0", "0.3.0", "outdated"],
    ["0.1.0", "1.3.0", "outdated"],
    ["somebody's own", "0.3.0", "unknown"],
  ])("%s at a coordinator %s gets its deployments, and is shown as %s", async (agentVersion, version, expected) => {
    await using server = await createTestCoordinator({ version });
    await server.publishUnseen(PATH);
    const agent = await server.connectAgent("nuc", { agentVersion });
    await server.activate(PATH, "nuc");
    expect(agent.framesOf("offer")).toHaveLength(1);
    expect(await listAgents(server)).toMatchObject([{ agentVersion, versionStatus: expected }]);
  });

  test.each([
    ["0.5.0", "0.3.4"],
    ["1.0.0", "0.3.4"],
  ])("%s at a coordinator %s is refused, and told which to update", async (agentVersion, version) => {
    await using server = await createTestCoordinator({ version });
    const { identity } = await server.connectAgent("nuc", { agentVersion: version });
    const agent = await attempt(server, identity, { agentVersion });
    await expectRefusal(agent, "version");
    const [refused] = agent.framesOf("refused");
    expect(refused?.message).toContain(agentVersion);
    expect(refused?.message).toContain(version);
    expect(refused?.hint).toStartWith("Update the coordinator first");
  });
});
