/**
 * Enrolment: how a key that the coordinator does not know becomes an agent. An agent token admits it, once; what the
 * token is bound to (one name, a number of uses) is checked and counted in the transaction that inserts the agent, so
 * of two that come at once with one use left, one is admitted. A key that comes with a good token and a name that is
 * taken may ask for it (`approve-key.ts`). Later logins are decided by `login.ts`.
 */
import { formatKeyFingerprint } from "../../key-fingerprint.ts";
import { type AgentName, drawId, parseAgentId, type TokenId } from "../../names.ts";
import type { Hello, RefusalCode } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import { type Authenticator, isTokenValid, type Principal } from "../access/authentication.ts";
import { saveEnrolmentRequest } from "../database/agent-keys.ts";
import { type AgentRow, findAgentByName, insertAgent } from "../database/agents.ts";
import { insertAuditRow } from "../database/audit.ts";
import { insertEvents } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { findToken, type TokenRow, takeTokenUse } from "../database/tokens.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import { auditRowOf } from "../operations/audit.ts";
import type { Visit } from "../requests/visit.ts";
import { factsOf } from "./agent-facts.ts";
import { agentEvent } from "./presence.ts";

export type EnrolmentDeps = {
  readonly database: CoordinatorDatabase;
  readonly writes: WriteQueue;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  readonly random: Random;
  /** The request that became the connection. */
  readonly visit: Pick<Visit, "address" | "requestId">;
};

export type Refused = {
  readonly kind: "refused";
  readonly code: RefusalCode;
  readonly message: string;
  readonly hint?: string;
};
export type LoginResult =
  | {
      readonly kind: "admitted";
      readonly agent: AgentRow;
      /** The key that the hello brought, when it is the agent's from now on. */
      readonly rotatedTo?: string;
    }
  | Refused;

/** A hello whose signature is good, by a key that no agent has. */
export type Newcomer = { readonly hello: Hello; readonly publicKey: Uint8Array };

const NEW_TOKEN_HINT = "Make one with `nixdeploy token create --kind agent`.";

export async function enroll(deps: EnrolmentDeps, newcomer: Newcomer): Promise<LoginResult> {
  const { enrolmentToken } = newcomer.hello;
  if (enrolmentToken === undefined) {
    return refuse("not-enrolled", "this coordinator does not know the agent's key", {
      hint: "Give the agent a token once: `nixdeploy token create --kind agent`, then NIXDEPLOY_AGENT_TOKEN.",
    });
  }
  const principal = await deps.authenticator.authenticateToken(enrolmentToken);
  if (principal?.kind !== "token" || principal.tokenKind !== "agent") return tokenRefused();
  const { tokenId } = principal;
  return await deps.writes.write((transaction) =>
    register({ ...deps, database: transaction }, { ...newcomer, tokenId }),
  );
}

/** Inside a transaction. */
async function register(deps: EnrolmentDeps, newcomer: Newcomer & { readonly tokenId: TokenId }): Promise<LoginResult> {
  const { hello, publicKey, tokenId } = newcomer;
  const nowMs = deps.clock.nowMs();
  const token = await findToken(deps.database, tokenId);
  // It may have been revoked since it was looked at.
  if (token === null || token.workspace_id === null || !isTokenValid(token, nowMs)) return tokenRefused();
  const workspaceId = token.workspace_id;
  const known = await findAgentByName(deps.database, { workspaceId, name: hello.name });
  // The same agent, that broke off and came again while its first login was under way.
  if (known !== null && Buffer.from(known.public_key).equals(publicKey)) return { kind: "admitted", agent: known };
  const why = whyNotAdmit(token, hello.name);
  if (why !== null) return refuse("token-refused", `the agent token ${why}`, { hint: NEW_TOKEN_HINT });
  if (known !== null) return await askForName(deps, { ...newcomer, workspaceId, nowMs });
  if (!(await takeTokenUse(deps.database, tokenId))) return tokenRefused();
  const agent: AgentRow = {
    id: parseAgentId(drawId(deps.random)),
    workspace_id: workspaceId,
    name: hello.name,
    public_key: publicKey,
    admitted_by: tokenId,
    registered_ms: nowMs,
    last_seen_ms: nowMs,
    ...factsOf(hello),
    labels: JSON.stringify(hello.labels ?? {}),
    operator_labels: "{}",
    former_names: "[]",
    removed_ms: null,
    announced_online: 0,
  };
  await insertAgent(deps.database, agent);
  await insertEvents(deps.database, [agentEvent(agent, { change: "registered", atMs: agent.registered_ms })]);
  await recordEnrolment(deps, { agent, principal: { kind: "token", tokenKind: token.kind, tokenId, workspaceId } });
  return { kind: "admitted", agent };
}

/** In the audit log: it was the token's doing. */
async function recordEnrolment(
  { database, clock, visit }: EnrolmentDeps,
  { agent, principal }: { readonly agent: AgentRow; readonly principal: Principal },
): Promise<void> {
  const row = await auditRowOf(database, {
    principal,
    visit,
    act: "enroll",
    workspaceId: agent.workspace_id,
    target: agent.name,
    effect: `admitted: agent ${agent.id}, ${agent.host_name}, profile ${agent.profile}`,
  });
  await insertAuditRow(database, { ...row, at_ms: clock.nowMs() });
}

/** What keeps a valid agent token from admitting an agent of this name, the end of a sentence. Pure. */
export function whyNotAdmit(token: Pick<TokenRow, "agent_name" | "uses" | "uses_max">, name: AgentName): string | null {
  if (token.agent_name !== null && token.agent_name !== name) {
    return `admits only an agent named ${token.agent_name}, not ${name}`;
  }
  if (token.uses_max === null || token.uses < token.uses_max) return null;
  return token.uses_max === 1
    ? "was good for one agent, which it has admitted"
    : `was good for ${token.uses_max} agents, which it has admitted`;
}

function tokenRefused(): Refused {
  return refuse("token-refused", "the agent token is unknown, expired or revoked, or it is of another kind", {
    hint: NEW_TOKEN_HINT,
  });
}

/** The name belongs to another key. It may be the same device, reinstalled: an operator can say so. */
async function askForName(
  deps: EnrolmentDeps,
  asked: Newcomer & { readonly tokenId: TokenId; readonly workspaceId: string; readonly nowMs: number },
): Promise<Refused> {
  const { hello, publicKey } = asked;
  await saveEnrolmentRequest(deps.database, {
    workspace_id: asked.workspaceId,
    name: hello.name,
    public_key: publicKey,
    token_id: asked.tokenId,
    address: deps.visit.address,
    host_name: hello.hostName,
    system: hello.system,
    requested_ms: asked.nowMs,
  });
  const fingerprint = formatKeyFingerprint(publicKey);
  return refuse("name-taken", `the name ${hello.name} belongs to an agent with another key`, {
    hint:
      "Choose another --name. If this device was reinstalled, the operator admits its new key with " +
      `\`nixdeploy agents approve ${hello.name} --fingerprint ${fingerprint}\`.`,
  });
}

export function refuse(code: RefusalCode, message: string, more: { readonly hint?: string } = {}): Refused {
  return { kind: "refused", code, message, ...more };
}
