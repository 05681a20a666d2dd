/**
 * Another key for a name that is taken: a device that was reinstalled asks for it with a good token, and gets it only when
 * an operator approves exactly that key, by its fingerprint. The old key is refused from then on. One that is rejected
 * may not ask again.
 */
import { NixdeployError } from "../../errors.ts";
import { formatKeyFingerprint } from "../../key-fingerprint.ts";
import type { Clock } from "../../runtime.ts";
import {
  deleteEnrolmentRequest,
  type EnrolmentRequestRow,
  findEnrolmentRequest,
  insertRetiredKey,
} from "../database/agent-keys.ts";
import { type AgentRow, findAgentByKey, updateAgent } from "../database/agents.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { AgentRegistry } from "./registry.ts";

export type ApprovalDeps = {
  readonly database: CoordinatorDatabase;
  readonly registry: AgentRegistry;
  readonly clock: Clock;
};

type Choice = { readonly agent: AgentRow; readonly fingerprint: string };

/** @returns the agent with its new key. @throws NixdeployError `not-found`, `refused` when another key asks */
export async function approveKey(deps: ApprovalDeps, { agent, fingerprint }: Choice): Promise<AgentRow> {
  const approved = await deps.database.transaction().execute(async (transaction) => {
    const request = await findRequest(transaction, { agent, fingerprint });
    const { public_key, token_id: admitted_by } = request;
    if ((await findAgentByKey(transaction, public_key)) !== null) {
      throw new NixdeployError("conflict", `cannot approve the key: it is another agent's meanwhile`);
    }
    await insertRetiredKey(transaction, {
      public_key: agent.public_key,
      agent_id: agent.id,
      reason: "replaced",
      retired_ms: deps.clock.nowMs(),
    });
    await updateAgent(transaction, agent.id, { public_key, admitted_by });
    await forget(transaction, agent);
    return { ...agent, public_key, admitted_by };
  });
  deps.registry.find(agent.id)?.close("the operator approved another key for this agent");
  return approved;
}

/** @throws NixdeployError as {@link approveKey} */
export async function rejectKey(deps: ApprovalDeps, { agent, fingerprint }: Choice): Promise<void> {
  await deps.database.transaction().execute(async (transaction) => {
    const { public_key } = await findRequest(transaction, { agent, fingerprint });
    const retired = { public_key, agent_id: agent.id, reason: "rejected", retired_ms: deps.clock.nowMs() } as const;
    await insertRetiredKey(transaction, retired);
    await forget(transaction, agent);
  });
}

async function findRequest(
  transaction: CoordinatorDatabase,
  { agent, fingerprint }: Choice,
): Promise<EnrolmentRequestRow> {
  const request = await findEnrolmentRequest(transaction, { workspaceId: agent.workspace_id, name: agent.name });
  if (request === null) {
    throw new NixdeployError("not-found", `cannot decide on a key for ${agent.name}: none asks for that name`, {
      hint: "`nixdeploy agents pending` lists those that ask. A device asks when it starts with a good agent token.",
    });
  }
  const asking = formatKeyFingerprint(request.public_key);
  if (asking === fingerprint) return request;
  throw new NixdeployError("refused", `cannot decide on a key for ${agent.name}: the one that asks is ${asking}`, {
    hint: "Compare it with what the agent prints on the device. If it is another one, somebody else has an agent token.",
  });
}

const forget = (transaction: CoordinatorDatabase, { workspace_id: workspaceId, name }: AgentRow) =>
  deleteEnrolmentRequest(transaction, { workspaceId, name });
