/**
 * One login: dial → challenge → hello → welcome or refusal, each step with a deadline. Does not decide what a refusal
 * means, nor when to try again (`connection.ts`).
 */
import { NixdeployError } from "../../errors.ts";
import { decodeCoordinatorFrame } from "../../frames.ts";
import type { Labels } from "../../labels.ts";
import type { AgentName, DeploymentId } from "../../names.ts";
import {
  AGENT_CONNECT_PATH,
  type AgentFrameInput,
  type CoordinatorFrame,
  FRAME_BYTES_MAX,
  type MachineState,
  PROTOCOL_VERSION,
  type Welcome,
} from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import type { Identity } from "./identity.ts";
import type { DialMessageSocket, MessageSocket } from "./message-socket.ts";

/** Looks behind, so that a long row of slashes elsewhere costs one look each, not one for all behind it. */
const TRAILING_SLASHES = /(?<!\/)\/+$/;
const DIAL_MAX_MS = 30_000;
/** For each frame of the coordinator's side of the handshake. */
const ANSWER_MAX_MS = 20_000;

export type Refused = Extract<CoordinatorFrame, { kind: "refused" }>;

/** What the hello says besides the proof. */
export type HelloFacts = {
  readonly agentVersion: string;
  readonly system: string;
  readonly hostName: string;
  readonly nixVersion: string | null;
  readonly profile: string;
  /** Absent where only the agent itself knows: the coordinator keeps those that it has. */
  readonly labels?: Labels;
  readonly state: MachineState;
};

export type LoginOptions = {
  readonly coordinatorUrl: string;
  readonly name: AgentName;
  readonly identity: Identity;
  /** The key that is to take its place; null: none. */
  readonly next?: Identity | null;
  /** The agent token; null to log in by the key alone. */
  readonly enrolmentToken: string | null;
  readonly readFacts: () => Promise<HelloFacts>;
  /** Of which activation this login is the proof; asked when the challenge has come. */
  readonly readProof?: () => Promise<Proof | null>;
  readonly dial: DialMessageSocket;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

export type Proof = { readonly deploymentId: DeploymentId; readonly by: "agent" | "supervisor" };

export type LoginResult =
  | {
      readonly kind: "welcome";
      readonly welcome: Welcome;
      readonly socket: MessageSocket;
      readonly frames: FrameReader;
    }
  | { readonly kind: "refused"; readonly refusal: Refused };

/** The frames of a socket, decoded. */
export type FrameReader = {
  /** The next frame that this version knows; null at the end. Answers unknown ones with `error`. @throws NixdeployError("remote") */
  next(): Promise<CoordinatorFrame | null>;
};

/**
 * The socket of a welcome is the caller's, whatever becomes of the signal.
 * @throws NixdeployError("unreachable" | "remote") · the signal's reason. The socket is closed then.
 */
export async function login(options: LoginOptions): Promise<LoginResult> {
  const url = websocketUrl(options.coordinatorUrl);
  const { signal } = options;
  // Before the coordinator begins to wait for the hello: a Nix daemon may take its time to answer.
  const facts = await options.readFacts();
  using handshake = followUntilDisposed(signal);
  const socket = await options.dial({
    url,
    handshakeMaxMs: DIAL_MAX_MS,
    messageBytesMax: FRAME_BYTES_MAX,
    signal: handshake.signal,
  });
  const frames = createFrameReader(socket, url);
  try {
    const challenge = await expectFrame(options, frames, socket);
    if (challenge.kind !== "challenge") throw outOfTurn(url, challenge.kind);
    const { min, max } = challenge.protocolVersions;
    if (PROTOCOL_VERSION < min || PROTOCOL_VERSION > max) {
      socket.close();
      return { kind: "refused", refusal: versionRefusal(challenge) };
    }
    const proof = (await options.readProof?.()) ?? null;
    sendFrame(socket, composeHello(options, { nonce: challenge.nonce, facts, proof }));
    const answer = await expectFrame(options, frames, socket);
    if (answer.kind === "refused") {
      socket.close();
      return { kind: "refused", refusal: answer };
    }
    if (answer.kind !== "welcome") throw outOfTurn(url, answer.kind);
    return { kind: "welcome", welcome: answer, socket, frames };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** A socket that is logged in is its owner's to close: what the signal ends at once is the way there. */
function followUntilDisposed(signal: AbortSignal): Disposable & { readonly signal: AbortSignal } {
  const follower = new AbortController();
  const onAbort = () => follower.abort(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  return { signal: follower.signal, [Symbol.dispose]: () => signal.removeEventListener("abort", onAbort) };
}

/** `https://host/prefix` → `wss://host/prefix/api/v1/agent/connect`. */
export function websocketUrl(coordinatorUrl: string): string {
  const url = new URL(coordinatorUrl);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.pathname = `${url.pathname.replace(TRAILING_SLASHES, "")}${AGENT_CONNECT_PATH}`;
  url.search = "";
  url.hash = "";
  return url.href;
}

export function sendFrame(socket: MessageSocket, frame: AgentFrameInput): void {
  socket.send(JSON.stringify(frame));
}

function composeHello(
  { name, identity, next = null, enrolmentToken }: LoginOptions,
  { nonce, facts, proof }: { readonly nonce: string; readonly facts: HelloFacts; readonly proof: Proof | null },
): AgentFrameInput {
  return {
    kind: "hello",
    protocolVersion: PROTOCOL_VERSION,
    name,
    publicKey: identity.publicKey,
    signature: identity.signLogin({ nonce, name, proof: proof ?? undefined }),
    ...(enrolmentToken === null ? {} : { enrolmentToken }),
    ...(proof === null ? {} : { proof }),
    ...(next === null ? {} : { rotate: composeRotation({ name, nonce }, { identity, next }) }),
    ...facts,
  };
}

function composeRotation(
  login: { readonly name: string; readonly nonce: string },
  { identity, next }: { readonly identity: Identity; readonly next: Identity },
) {
  const claim = { ...login, publicKey: identity.publicKey, newPublicKey: next.publicKey };
  return { publicKey: next.publicKey, signature: identity.signRotation(claim), newSignature: next.signRotation(claim) };
}

function createFrameReader(socket: MessageSocket, url: string): FrameReader {
  const messages = socket.messages[Symbol.asyncIterator]();
  const next = async (): Promise<CoordinatorFrame | null> => {
    for (;;) {
      const message = await messages.next();
      if (message.done === true) return null;
      const decoded = decodeCoordinatorFrame(message.value);
      switch (decoded.kind) {
        case "frame":
          return decoded.frame;
        case "unknown":
          // A newer coordinator: it learns that this version does not take part, and goes on without.
          sendFrame(socket, { kind: "error", code: "unknown-kind", message: `unknown frame: ${decoded.frameKind}` });
          break;
        case "malformed":
          throw new NixdeployError("remote", `cannot understand ${url}: ${decoded.reason}`);
        default:
          decoded satisfies never;
      }
    }
  };
  return { next };
}

async function expectFrame(
  options: LoginOptions,
  frames: FrameReader,
  socket: MessageSocket,
): Promise<CoordinatorFrame> {
  const url = options.coordinatorUrl;
  const answered = new AbortController();
  let isLate = false;
  const deadline = options.clock
    .sleep(ANSWER_MAX_MS, AbortSignal.any([options.signal, answered.signal]))
    .then(() => {
      isLate = true;
      socket.destroy();
    })
    .catch(() => {
      // Answered in time, or the agent ends, which the socket learns by itself.
    });
  try {
    const frame = await frames.next();
    options.signal.throwIfAborted();
    if (frame !== null) return frame;
    const why = isLate
      ? `it did not answer for ${ANSWER_MAX_MS / 1_000} s`
      : `it ended the connection${socket.closeReason === "" ? "" : ` (${socket.closeReason})`}`;
    throw new NixdeployError("unreachable", `cannot log in to ${url}: ${why}`);
  } finally {
    answered.abort();
    await deadline;
  }
}

function versionRefusal(challenge: Extract<CoordinatorFrame, { kind: "challenge" }>): Refused {
  const { min, max } = challenge.protocolVersions;
  return {
    kind: "refused",
    code: "version",
    message: `the coordinator (${challenge.coordinatorVersion}) speaks versions ${min} to ${max} of the protocol, this agent version ${PROTOCOL_VERSION}`,
    hint: PROTOCOL_VERSION < min ? "Update nixdeploy on this device." : "Update the coordinator.",
  };
}

function outOfTurn(url: string, kind: string): NixdeployError {
  return new NixdeployError("remote", `cannot log in to ${url}: it sent "${kind}" out of turn`);
}
