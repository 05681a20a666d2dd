/**
 * Decides who an agent is. Its key is its identity: a key we know logs in by signing the challenge, a key we do not
 * know is admitted once by an agent token. A token that is revoked later does not touch the agents it admitted.
 */
import { type AgentName, drawId, parseAgentId, type TokenId } from "../../names.ts";
import { verifyMessage } from "../../nix/signature.ts";
import { type CoordinatorFrameInput, type Hello, loginMessage, PROTOCOL_VERSION } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { Authenticator } from "../access/authentication.ts";
import { type AgentRow, findAgentByKey, findAgentByName, insertAgent, saveAgentFacts } from "../database/agents.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

export type LoginDeps = {
  readonly database: CoordinatorDatabase;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  readonly random: Random;
};

type Refused = Extract<CoordinatorFrameInput, { kind: "refused" }>;
export type LoginResult = { readonly kind: "admitted"; readonly agent: AgentRow } | Refused;

const PUBLIC_KEY_BYTES = 32;

export async function login(
  deps: LoginDeps,
  attempt: { readonly hello: Hello; readonly nonce: string },
): Promise<LoginResult> {
  const { hello } = attempt;
  if (hello.protocolVersion !== PROTOCOL_VERSION) {
    const newer = hello.protocolVersion > PROTOCOL_VERSION;
    return refuse(
      "version",
      `this coordinator speaks protocol ${PROTOCOL_VERSION}, the agent ${hello.protocolVersion}`,
      {
        hint: newer ? "Update the coordinator first." : "Update nixdeploy on the device.",
      },
    );
  }
  const publicKey = new Uint8Array(Buffer.from(hello.publicKey, "base64"));
  const signature = new Uint8Array(Buffer.from(hello.signature, "base64"));
  if (
    publicKey.length !== PUBLIC_KEY_BYTES ||
    !verifyMessage(publicKey, loginMessage({ ...hello, nonce: attempt.nonce }), signature)
  ) {
    return refuse("bad-signature", "the signature over the challenge does not fit the key");
  }
  const known = await findAgentByKey(deps.database, publicKey);
  if (known !== null && known.name !== hello.name) {
    return refuse("other-name", `this key is registered as ${known.name}, not as ${hello.name}`, {
      hint: `Start the agent with --name ${known.name}, or give it another --state-dir to register a new one.`,
    });
  }
  if (known === null) return await admit(deps, hello, publicKey);
  // The supervisor of an activation speaks for the agent, but is not the agent.
  if (hello.proof?.by === "supervisor") return { kind: "admitted", agent: known };
  const facts = { ...factsOf(hello), last_seen_ms: deps.clock.nowMs() };
  await saveAgentFacts(deps.database, known.id, facts);
  return { kind: "admitted", agent: { ...known, ...facts } };
}

async function admit(deps: LoginDeps, hello: Hello, publicKey: Uint8Array): Promise<LoginResult> {
  if (hello.enrolmentToken === undefined) {
    return refuse("not-enrolled", "this coordinator does not know the agent's key", {
      hint: "Give the agent a token once: `nixdeploy token create --kind agent`, then NIXDEPLOY_AGENT_TOKEN.",
    });
  }
  const principal = await deps.authenticator.authenticateToken(hello.enrolmentToken);
  if (principal?.kind !== "token" || principal.tokenKind !== "agent" || principal.workspaceId === null) {
    return refuse("token-refused", "the agent token is unknown, expired or revoked, or it is of another kind", {
      hint: "Make one with `nixdeploy token create --kind agent`.",
    });
  }
  return await register(deps, {
    hello,
    publicKey,
    workspaceId: principal.workspaceId,
    tokenId: principal.tokenId,
  });
}

async function register(
  deps: LoginDeps,
  admission: {
    readonly hello: Hello;
    readonly publicKey: Uint8Array;
    readonly workspaceId: string;
    readonly tokenId: TokenId;
  },
): Promise<LoginResult> {
  const { hello, workspaceId } = admission;
  return await deps.database.transaction().execute(async (transaction): Promise<LoginResult> => {
    const known = await findAgentByName(transaction, { workspaceId, name: hello.name });
    if (known !== null) {
      // The same agent, that broke off and came again while its first login was under way.
      const isSame = Buffer.from(known.public_key).equals(admission.publicKey);
      return isSame ? { kind: "admitted", agent: known } : nameTaken(hello.name);
    }
    const nowMs = deps.clock.nowMs();
    const agent: AgentRow = {
      id: parseAgentId(drawId(deps.random)),
      workspace_id: workspaceId,
      name: hello.name,
      public_key: admission.publicKey,
      admitted_by: admission.tokenId,
      registered_ms: nowMs,
      last_seen_ms: nowMs,
      ...factsOf(hello),
    };
    await insertAgent(transaction, agent);
    return { kind: "admitted", agent };
  });
}

function nameTaken(name: AgentName): Refused {
  return refuse("name-taken", `the name ${name} belongs to an agent with another key`, {
    hint: "Choose another --name. If the device was reinstalled, remove the old agent on the coordinator first.",
  });
}

function refuse(code: Refused["code"], message: string, more: { readonly hint?: string } = {}): Refused {
  return { kind: "refused", code, message, ...more };
}

function factsOf(hello: Hello) {
  return {
    agent_version: hello.agentVersion,
    nix_version: hello.nixVersion,
    system: hello.system,
    host_name: hello.hostName,
    profile: hello.profile,
    state: JSON.stringify(hello.state),
  };
}
