/**
 * An agent's new key, which its hello brings along, signed by both keys over the challenge: whoever has only one of them
 * gets nowhere, and nothing can be said twice. The old key is refused from the same transaction on.
 */
import { formatKeyFingerprint } from "../../key-fingerprint.ts";
import { rotationMessage } from "../../login-message.ts";
import { verifyMessage } from "../../nix/signature.ts";
import type { Hello } from "../../protocol.ts";
import { findRetiredKey, insertRetiredKey } from "../database/agent-keys.ts";
import { type AgentRow, findAgent, findAgentByKey, updateAgent } from "../database/agents.ts";
import { insertAuditRow } from "../database/audit.ts";
import { auditRowOf } from "../operations/audit.ts";
import type { EnrolmentDeps } from "./enrolment.ts";

const PUBLIC_KEY_BYTES = 32;

export type Rotation = NonNullable<Hello["rotate"]>;

/** Whether both keys have signed it. Pure. */
export function isRotationSigned({ hello, nonce }: { readonly hello: Hello; readonly nonce: string }): boolean {
  const { rotate, publicKey, name } = hello;
  if (rotate === undefined) return false;
  const message = rotationMessage({ nonce, name, publicKey, newPublicKey: rotate.publicKey });
  const old = decode(publicKey);
  const next = decode(rotate.publicKey);
  return (
    next.length === PUBLIC_KEY_BYTES &&
    publicKey !== rotate.publicKey &&
    verifyMessage(old, message, decode(rotate.signature)) &&
    verifyMessage(next, message, decode(rotate.newSignature))
  );
}

/** @returns the agent with its new key; null when that key was somebody's already, or the agent's has changed meanwhile */
export async function rotateKey(
  { database, clock, visit }: Pick<EnrolmentDeps, "database" | "clock" | "visit">,
  change: { readonly agent: AgentRow; readonly rotation: Rotation },
): Promise<AgentRow | null> {
  const nowMs = clock.nowMs();
  const { id, public_key: oldKey } = change.agent;
  const public_key = decode(change.rotation.publicKey);
  return await database.transaction().execute(async (transaction) => {
    const agent = await findAgent(transaction, id);
    const isSame = agent !== null && agent.removed_ms === null && Buffer.from(agent.public_key).equals(oldKey);
    const isTaken =
      (await findAgentByKey(transaction, public_key)) !== null ||
      (await findRetiredKey(transaction, public_key)) !== null;
    if (!isSame || isTaken) return null;
    await insertRetiredKey(transaction, {
      public_key: oldKey,
      agent_id: id,
      reason: "rotated",
      retired_ms: nowMs,
    });
    await updateAgent(transaction, id, { public_key });
    const row = await auditRowOf(transaction, {
      principal: { kind: "agent", agentId: id, workspaceId: agent.workspace_id },
      visit,
      act: "rotate key",
      workspaceId: agent.workspace_id,
      target: agent.name,
      effect: `key ${formatKeyFingerprint(public_key)} instead of ${formatKeyFingerprint(oldKey)}`,
    });
    await insertAuditRow(transaction, { ...row, at_ms: nowMs });
    return { ...change.agent, public_key };
  });
}

function decode(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, "base64"));
}
