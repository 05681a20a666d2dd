/**
 * Decides who an agent is. Its key is its identity: a key we know logs in by signing the challenge, a key we do not
 * know is admitted once by an agent token (`enrolment.ts`). A token that is revoked later does not touch the agents it
 * admitted.
 */
import { loginMessage } from "../../login-message.ts";
import { verifyMessage } from "../../nix/signature.ts";
import { type Hello, PROTOCOL_VERSION } from "../../protocol.ts";
import { isTooNew } from "../../version-skew.ts";
import { findRetiredKey, type RetiredKeyRow } from "../database/agent-keys.ts";
import { type AgentRow, findAgentByKey, saveAgentFacts } from "../database/agents.ts";
import { factsOf } from "./agent-facts.ts";
import { answersTo } from "./change-agents.ts";
import { type EnrolmentDeps, enroll, type LoginResult, refuse } from "./enrolment.ts";
import { isRotationSigned, rotateKey } from "./rotate-key.ts";

const PUBLIC_KEY_BYTES = 32;

/** @param deps `version`: the coordinator's own release */
export async function login(
  deps: EnrolmentDeps & { readonly version: string },
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
  if (isTooNew(hello.agentVersion, deps.version)) {
    const why = `this agent is nixdeploy ${hello.agentVersion}, more than one minor version ahead of this coordinator (${deps.version})`;
    return refuse("version", why, { hint: "Update the coordinator first: it serves older agents, not newer ones." });
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
  if (known !== null && known.removed_ms !== null) return wasRemoved(known);
  if (known !== null && !answersTo(known, hello.name)) {
    return refuse("other-name", `this key is registered as ${known.name}, not as ${hello.name}`, {
      hint: `Start the agent with --name ${known.name}, or give it another --state-dir to register a new one.`,
    });
  }
  const retired = known === null ? await findRetiredKey(deps.database, publicKey) : null;
  if (retired !== null) return keyRetired(retired);
  if (known === null) return await enroll(deps, { hello, publicKey });
  // The supervisor of an activation speaks for the agent, but is not the agent.
  if (hello.proof?.by === "supervisor") return { kind: "admitted", agent: known };
  const facts = { ...factsOf(hello), last_seen_ms: deps.clock.nowMs() };
  await deps.writes.write((transaction) => saveAgentFacts(transaction, known.id, facts));
  const agent = { ...known, ...facts };
  if (hello.rotate === undefined) return { kind: "admitted", agent };
  if (!isRotationSigned(attempt)) return refuse("bad-signature", "the new key is not signed by both keys");
  const rotated = await rotateKey(deps, { agent, rotation: hello.rotate });
  if (rotated === null) return { kind: "admitted", agent };
  return { kind: "admitted", agent: rotated, rotatedTo: hello.rotate.publicKey };
}

function wasRemoved({ name, removed_ms }: AgentRow): LoginResult {
  const when = new Date(removed_ms ?? 0).toISOString().slice(0, 10);
  return refuse("removed", `the operator removed this agent (${name}, on ${when}); it gets no more deployments`, {
    hint:
      "Stop it. If the device is to come back as a new agent, remove the files `key` and `enrolment.json` of its state " +
      "directory, and give it an agent token.",
  });
}

function keyRetired({ reason, retired_ms }: RetiredKeyRow): LoginResult {
  const day = new Date(retired_ms).toISOString().slice(0, 10);
  const hint = "If this device is to be an agent all the same, remove the file `key` of its state directory.";
  switch (reason) {
    case "rotated":
      return refuse("key-retired", `this agent has had a newer key since ${day}`, {
        hint: "The device has it. If an old disk or a copy of it was started, take the present one.",
      });
    case "replaced":
      return refuse("key-retired", `the operator approved another key for this agent on ${day}`, { hint });
    case "rejected":
      return refuse("key-retired", `the operator rejected this key on ${day}`, { hint });
    default:
      return reason satisfies never;
  }
}
