/** Another key for an agent: drawn by its device, or approved by an operator for one that was reinstalled. */
import { describe, expect, test } from "bun:test";
import { agentListSchema, agentSchema, enrolmentRequestListSchema } from "../../../src/api/agents.ts";
import { createdTokenSchema } from "../../../src/api/tokens.ts";
import { formatKeyFingerprint } from "../../../src/key-fingerprint.ts";
import { loginMessage, rotationMessage } from "../../../src/login-message.ts";
import { publicKeyFromSeed, signMessage } from "../../../src/nix/signature.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import {
  type AgentIdentity,
  createAgentIdentity,
  openScriptedAgent,
  type ScriptedAgent,
} from "../../support/scripted-agent.ts";

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
const publicOf = ({ seed }: AgentIdentity) => base64(publicKeyFromSeed(seed));
const fingerprintOf = ({ seed }: AgentIdentity) => formatKeyFingerprint(publicKeyFromSeed(seed));

async function login(server: TestCoordinator, identity: AgentIdentity, hello: Hello = {}): Promise<ScriptedAgent> {
  const agent = openScriptedAgent(server.coordinator, identity);
  await agent.login(hello);
  return agent;
}
type Hello = NonNullable<Parameters<ScriptedAgent["login"]>[0]>;

async function agentNuc(server: TestCoordinator) {
  return agentListSchema.parse(await (await server.fetch("agents?select=nuc")).json()).agents[0];
}

describe("a rotation", () => {
  type Forged = {
    readonly nonce?: string;
    readonly name?: string;
    readonly signer?: AgentIdentity;
    readonly newSigner?: AgentIdentity;
  };

  function rotation(old: AgentIdentity, next: AgentIdentity, nonce: string, forged: Forged = {}): Hello {
    const claim = { nonce: forged.nonce ?? nonce, name: forged.name ?? old.name };
    const message = rotationMessage({ ...claim, publicKey: publicOf(old), newPublicKey: publicOf(next) });
    return {
      rotate: {
        publicKey: publicOf(next),
        signature: base64(signMessage((forged.signer ?? old).seed, message)),
        newSignature: base64(signMessage((forged.newSigner ?? next).seed, message)),
      },
    };
  }

  async function rotate(server: TestCoordinator, old: AgentIdentity, next: AgentIdentity, forged: Forged = {}) {
    const agent = openScriptedAgent(server.coordinator, old);
    await agent.login(rotation(old, next, agent.nonce, forged));
    return agent;
  }

  test("that both keys have signed makes the new one the agent's, and retires the old one", async () => {
    await using server = await createTestCoordinator();
    const { identity } = await server.connectAgent("nuc");
    const next = createAgentIdentity("nuc");
    const agent = await rotate(server, identity, next);
    expect(agent.framesOf("welcome")).toMatchObject([{ rotatedTo: publicOf(next) }]);
    expect(agent.closed).toBeNull();
    expect(await agentNuc(server)).toMatchObject({ keyFingerprint: fingerprintOf(next), contact: "online" });
    const { token } = await server.createToken("agent");
    const old = await login(server, identity, { enrolmentToken: token });
    expect(old.framesOf("refused")).toMatchObject([{ code: "key-retired" }]);
    expect(old.framesOf("refused")[0]?.message).toContain("newer key since 2026-01-01");
    expect((await login(server, next)).framesOf("welcome")).toHaveLength(1);
  });

  const third = createAgentIdentity("nuc");
  const cases: readonly (readonly [what: string, forged: Forged])[] = [
    ["that the old key has not signed", { signer: third }],
    ["that the new key has not signed", { newSigner: third }],
    ["of an earlier connection", { nonce: "AAAA".repeat(11) }],
    ["of another name", { name: "tuc" }],
  ];
  for (const [what, forged] of cases) {
    test(`${what} is refused`, async () => {
      await using server = await createTestCoordinator();
      const { identity } = await server.connectAgent("nuc");
      const agent = await rotate(server, identity, createAgentIdentity("nuc"), forged);
      expect(agent.framesOf("refused")).toMatchObject([{ code: "bad-signature" }]);
      expect(await agentNuc(server)).toMatchObject({ keyFingerprint: fingerprintOf(identity) });
    });
  }

  test("to a key that somebody has, or had, changes nothing", async () => {
    await using server = await createTestCoordinator();
    const { identity } = await server.connectAgent("nuc");
    const other = await server.connectAgent("other");
    const next = createAgentIdentity("nuc");
    await rotate(server, identity, next);
    for (const taken of [other.identity, identity]) {
      const agent = await rotate(server, next, taken);
      expect(agent.framesOf("welcome")).toHaveLength(1);
      expect(agent.framesOf("welcome")[0]?.rotatedTo).toBeUndefined();
    }
    expect(await agentNuc(server)).toMatchObject({ keyFingerprint: fingerprintOf(next) });
  });

  test("is not what a supervisor's login is for", async () => {
    await using server = await createTestCoordinator();
    const { identity } = await server.connectAgent("nuc");
    const next = createAgentIdentity("nuc");
    const agent = openScriptedAgent(server.coordinator, identity);
    const { rotate } = rotation(identity, next, agent.nonce);
    const proof = { deploymentId: "0123456789abcdfg", by: "supervisor" } as const;
    const signature = base64(signMessage(identity.seed, loginMessage({ nonce: agent.nonce, name: "nuc", proof })));
    await agent.login({ rotate, proof, signature });
    expect(agent.framesOf("welcome")).toHaveLength(1);
    expect(await agentNuc(server)).toMatchObject({ keyFingerprint: fingerprintOf(identity) });
  });
});

describe("a device that was reinstalled", () => {
  const pending = async (server: TestCoordinator) =>
    enrolmentRequestListSchema.parse(await (await server.fetch("agent-requests")).json()).requests;
  const decide = (server: TestCoordinator, what: "approvals" | "rejections", fingerprint: string) =>
    server.fetch(`agent-${what}`, { json: { name: "nuc", fingerprint } });

  async function ask(server: TestCoordinator, identity = createAgentIdentity("nuc")) {
    const { id, token } = await server.createToken("agent");
    const agent = await login(server, identity, { enrolmentToken: token });
    expect(agent.framesOf("refused")).toMatchObject([{ code: "name-taken" }]);
    return { identity, token: id };
  }

  test("asks for its name, and gets it when exactly its key is approved", async () => {
    await using server = await createTestCoordinator();
    const old = await server.connectAgent("nuc");
    const { identity, token } = await ask(server);
    expect(await pending(server)).toMatchObject([
      {
        name: "nuc",
        workspace: "default",
        fingerprint: fingerprintOf(identity),
        token,
        address: null,
        hostName: "nuc",
      },
    ]);
    const wrong = await decide(server, "approvals", fingerprintOf(createAgentIdentity("nuc")));
    expect([wrong.status, await wrong.text()]).toEqual([422, expect.stringContaining(fingerprintOf(identity))]);
    expect(old.closed).toBeNull();
    const approved = agentSchema.parse(await (await decide(server, "approvals", fingerprintOf(identity))).json());
    expect(approved).toMatchObject({ keyFingerprint: fingerprintOf(identity), admittedBy: token });
    expect(old.closed?.reason).toContain("approved another key");
    expect((await login(server, old.identity)).framesOf("refused")).toMatchObject([{ code: "key-retired" }]);
    expect((await login(server, identity)).framesOf("welcome")).toHaveLength(1);
    expect(await pending(server)).toEqual([]);
    expect((await decide(server, "approvals", fingerprintOf(identity))).status).toBe(404);
  });

  test("is heard only with a good token; the newest key of each name is kept", async () => {
    await using server = await createTestCoordinator();
    await server.connectAgent("nuc");
    await login(server, createAgentIdentity("nuc"));
    await login(server, createAgentIdentity("nuc"), { enrolmentToken: "nd_agent_x" });
    const bound = await server.fetch("tokens", { json: { kind: "agent", agent: "other" } });
    const { token } = createdTokenSchema.parse(await bound.json());
    await login(server, createAgentIdentity("nuc"), { enrolmentToken: token });
    expect(await pending(server)).toEqual([]);
    const first = await ask(server);
    await server.clock.advance(1_000);
    const second = await ask(server);
    expect(await pending(server)).toMatchObject([
      { fingerprint: fingerprintOf(second.identity), requestedAt: "2026-01-01T00:00:01.000Z" },
    ]);
    expect((await decide(server, "approvals", fingerprintOf(first.identity))).status).toBe(422);
  });

  test("that is rejected is refused from then on, and may not ask again", async () => {
    await using server = await createTestCoordinator();
    const old = await server.connectAgent("nuc");
    const { identity } = await ask(server);
    expect((await decide(server, "rejections", fingerprintOf(identity))).status).toBe(204);
    const { token } = await server.createToken("agent");
    const again = await login(server, identity, { enrolmentToken: token });
    expect(again.framesOf("refused")).toMatchObject([{ code: "key-retired" }]);
    expect(again.framesOf("refused")[0]?.message).toContain("rejected this key");
    expect(await pending(server)).toEqual([]);
    expect(old.closed).toBeNull();
  });

  test("asks for nothing any more when the agent is removed or renamed", async () => {
    await using server = await createTestCoordinator();
    for (const end of ["remove", "rename"]) {
      await server.connectAgent("nuc");
      await ask(server);
      if (end === "remove") await server.fetch("agent-removals", { json: { select: ["nuc"] } });
      else await server.fetch("agents/nuc", { method: "PATCH", json: { name: "tuc" } });
      expect(await pending(server)).toEqual([]);
    }
  });
});
