/** The coordinator's side of a conversation, played by a test: checks the proof, welcomes, and leaves the rest to the test. */
import { loginMessage } from "../../src/login-message.ts";
import { verifyMessage } from "../../src/nix/signature.ts";
import { type AgentFrame, type CoordinatorFrameInput, PROTOCOL_VERSION, type Welcome } from "../../src/protocol.ts";
import type { MemoryPeer } from "../support/memory-socket.ts";

export type Hello = Extract<AgentFrame, { kind: "hello" }>;

export const NONCE = "bm9uY2Ugb2YgdGhlIHRlc3Q=";

export function challenge(peer: MemoryPeer, versions = { min: PROTOCOL_VERSION, max: PROTOCOL_VERSION }): void {
  peer.send({ kind: "challenge", protocolVersions: versions, coordinatorVersion: "9.9.9", nonce: NONCE });
}

/** Challenges and takes the hello, whose signature must be right. */
export async function takeHello(peer: MemoryPeer): Promise<Hello> {
  challenge(peer);
  const hello = await peer.expect("hello");
  const publicKey = Buffer.from(hello.publicKey, "base64");
  const signature = Buffer.from(hello.signature, "base64");
  if (!verifyMessage(publicKey, loginMessage({ nonce: NONCE, name: hello.name }), signature)) {
    throw new Error("the hello's signature is wrong");
  }
  return hello;
}

export function welcomeFrame(changes: Partial<Welcome["cache"]> = {}): CoordinatorFrameInput {
  return {
    kind: "welcome",
    agentId: "0123456789abcdfg",
    workspace: "default",
    cache: { name: "default", path: "/cache/default", publicKeys: [], ...changes },
    readCredential: "read-credential",
  };
}
