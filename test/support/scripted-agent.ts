/**
 * An agent that does only what a test says: real frames, a real key, a memory socket into a coordinator in the same
 * process. It remembers what it was sent, and nothing else.
 */
import { decodeCoordinatorFrame } from "../../src/frames.ts";
import { loginMessage } from "../../src/login-message.ts";
import type { DeploymentId } from "../../src/names.ts";
import { publicKeyFromSeed, signMessage } from "../../src/nix/signature.ts";
import { type AgentFrameInput, type CoordinatorFrame, PROTOCOL_VERSION } from "../../src/protocol.ts";
import type { Coordinator } from "../../src/server/coordinator.ts";

export type AgentIdentity = { readonly name: string; readonly seed: Uint8Array };

type HelloFrame = Extract<AgentFrameInput, { kind: "hello" }>;
type ReportFrame = Extract<AgentFrameInput, { kind: "report" }>;
export type ReportEntryInput = ReportFrame["entries"][number];
export type FrameKind = CoordinatorFrame["kind"];

/** A connection; before `login` nothing but the challenge has passed. */
export type ScriptedAgent = {
  readonly identity: AgentIdentity;
  /** Everything the coordinator sent, oldest first. */
  readonly received: readonly CoordinatorFrame[];
  /** Why the coordinator closed the connection. */
  readonly closed: { readonly code: number; readonly reason: string } | null;
  readonly nonce: string;
  /** Sends the hello; what came back is in `received`. */
  login(hello?: Partial<HelloFrame>): Promise<void>;
  send(frame: AgentFrameInput): Promise<void>;
  sendText(text: string): Promise<void>;
  /** @returns through which entry the coordinator acknowledged */
  report(deploymentId: DeploymentId, entries: readonly ReportEntryInput[]): Promise<number>;
  /** The frames of one kind, oldest first. */
  framesOf<Kind extends FrameKind>(kind: Kind): Extract<CoordinatorFrame, { kind: Kind }>[];
  /** The connection breaks; the coordinator hears of it. */
  disconnect(): Promise<void>;
};

export function createAgentIdentity(name: string): AgentIdentity {
  return { name, seed: crypto.getRandomValues(new Uint8Array(32)) };
}

/** Opens a connection and takes the challenge. */
export function openScriptedAgent(coordinator: Coordinator, identity: AgentIdentity): ScriptedAgent {
  const received: CoordinatorFrame[] = [];
  let closed: ScriptedAgent["closed"] = null;
  let gone: Promise<void> | null = null;
  const session = coordinator.openAgentSession({
    send(text) {
      if (closed !== null || gone !== null) return false;
      const decoded = decodeCoordinatorFrame(text);
      if (decoded.kind !== "frame") throw new Error(`the coordinator sent what no agent understands: ${text}`);
      received.push(decoded.frame);
      return true;
    },
    close(code, reason) {
      closed ??= { code, reason };
      // As a websocket does: whoever closes hears of it later.
      queueMicrotask(() => {
        gone ??= session.closed();
      });
    },
  });
  session.open();
  const framesOf: ScriptedAgent["framesOf"] = (kind) =>
    received.filter((frame): frame is Extract<CoordinatorFrame, { kind: typeof kind }> => frame.kind === kind);
  const nonce = framesOf("challenge")[0]?.nonce ?? "";
  const send = async (frame: AgentFrameInput) => await session.receive(JSON.stringify(frame));
  return {
    identity,
    received,
    nonce,
    framesOf,
    send,
    sendText: (text) => session.receive(text),
    get closed() {
      return closed;
    },
    async login(hello = {}) {
      await send({ ...helloOf(identity, nonce), ...hello });
    },
    async report(deploymentId, entries) {
      const before = framesOf("acknowledge").length;
      await send({ kind: "report", deploymentId, entries: [...entries] });
      return framesOf("acknowledge")[before]?.through ?? -1;
    },
    async disconnect() {
      gone ??= session.closed();
      await gone;
    },
  };
}

/** A hello that signs this nonce. */
export function helloOf(identity: AgentIdentity, nonce: string): HelloFrame {
  const signature = signMessage(identity.seed, loginMessage({ nonce, name: identity.name }));
  return {
    kind: "hello",
    protocolVersion: PROTOCOL_VERSION,
    agentVersion: "0.0.0-test",
    name: identity.name,
    publicKey: Buffer.from(publicKeyFromSeed(identity.seed)).toString("base64"),
    signature: Buffer.from(signature).toString("base64"),
    system: "x86_64-linux",
    hostName: identity.name,
    nixVersion: "2.18.1",
    profile: "/nix/var/nix/profiles/test",
    state: machineState(null),
  };
}

/** What an agent says of a machine that has nothing yet. */
export function machineState(inFlight: DeploymentId | null): HelloFrame["state"] {
  return { profilePath: null, generation: null, currentPath: null, bootedPath: null, storeFreeBytes: null, inFlight };
}

/** Entries of a journal, numbered from `firstN`. */
export function numberEntries(entries: readonly EntryContent[], firstN = 1): ReportEntryInput[] {
  return entries.map((entry, index) => ({ ...entry, n: firstN + index, atMs: 0 }));
}

type WithoutNumber<Entry> = Entry extends unknown ? Omit<Entry, "n" | "atMs"> : never;
export type EntryContent = WithoutNumber<ReportEntryInput>;

export const logEntry = (text: string): EntryContent => ({ type: "log", stream: "out", text });

export const phaseEntry = (phase: Extract<ReportEntryInput, { type: "phase" }>["phase"]): EntryContent => ({
  type: "phase",
  phase,
  previousPath: null,
});

export const outcomeEntry = (
  outcome: Extract<ReportEntryInput, { type: "outcome" }>["outcome"],
  reason = `it ${outcome}`,
): Extract<EntryContent, { type: "outcome" }> => ({
  type: "outcome",
  outcome,
  reason,
  previousPath: null,
  fetchedBytes: 1_000,
  exitCode: 0,
  phaseMs: { fetching: 10, activating: 20 },
});
