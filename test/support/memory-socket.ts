/** A connection between an agent and whoever plays the coordinator, in memory. */
import { createMessageQueue } from "../../src/agent/link/message-queue.ts";
import type { DialMessageSocket, DialOptions, MessageSocket } from "../../src/agent/link/message-socket.ts";
import { decodeAgentFrame } from "../../src/frames.ts";
import type { AgentFrame, CoordinatorFrameInput } from "../../src/protocol.ts";

/** The coordinator's end. */
export type MemoryPeer = {
  readonly options: DialOptions;
  /** The agent's next frame; null when it has closed the connection. */
  next(): Promise<AgentFrame | null>;
  /** The next frame of this kind; others are passed over. @throws Error when the connection ends without one */
  expect<Kind extends AgentFrame["kind"]>(kind: Kind): Promise<Extract<AgentFrame, { kind: Kind }>>;
  send(frame: CoordinatorFrameInput): void;
  sendText(text: string): void;
  close(reason?: string): void;
  readonly isClosed: boolean;
};

/** Each connection that the agent dials is given to `accept`, which may refuse it by throwing. */
export function createMemoryDialer(accept: (peer: MemoryPeer) => void): DialMessageSocket {
  return async (options) => {
    options.signal.throwIfAborted();
    const { socket, peer } = createPair(options);
    accept(peer);
    return socket;
  };
}

function createPair(options: DialOptions): { socket: MessageSocket; peer: MemoryPeer } {
  const unbounded = { lengthMax: Number.MAX_SAFE_INTEGER, onFull: () => {}, onDrained: () => {} };
  const toAgent = createMessageQueue(unbounded);
  const toPeer = createMessageQueue(unbounded);
  const received = toPeer.messages[Symbol.asyncIterator]();
  let isClosed = false;
  let closeReason = "";
  const close = (reason = "") => {
    if (isClosed) return;
    isClosed = true;
    closeReason = reason;
    toAgent.end();
    toPeer.end();
  };
  options.signal.addEventListener("abort", () => close(), { once: true });
  const next = async () => {
    const message = await received.next();
    if (message.done === true) return null;
    const decoded = decodeAgentFrame(message.value);
    if (decoded.kind !== "frame") throw new Error(`the agent sent nonsense: ${message.value}`);
    return decoded.frame;
  };
  const socket: MessageSocket = {
    send: (text) => {
      if (!isClosed) toPeer.push(text);
    },
    messages: toAgent.messages,
    bufferedBytes: 0,
    get closeReason() {
      return closeReason;
    },
    close: () => close(),
    destroy: () => close(),
  };
  const peer: MemoryPeer = {
    options,
    next,
    async expect(kind) {
      for (let frame = await next(); frame !== null; frame = await next()) {
        if (isKind(frame, kind)) return frame;
      }
      throw new Error(`the connection ended before a frame of kind ${kind}`);
    },
    send: (frame) => peer.sendText(JSON.stringify(frame)),
    sendText: (text) => {
      if (!isClosed) toAgent.push(text);
    },
    close,
    get isClosed() {
      return isClosed;
    },
  };
  return { socket, peer };
}

function isKind<Kind extends AgentFrame["kind"]>(
  frame: AgentFrame,
  kind: Kind,
): frame is Extract<AgentFrame, { kind: Kind }> {
  return frame.kind === kind;
}
