/**
 * The connection to the coordinator as the agent sees it: text messages both ways, no library. Implemented over a real
 * websocket in `websocket.ts`, and in memory by tests.
 */

export type MessageSocket = {
  /** Queues a message. Does nothing on a closed socket: the end of `messages` tells. */
  send(text: string): void;
  /** In order, once. Ends when the socket is closed by either side or breaks. */
  readonly messages: AsyncIterable<string>;
  /** Bytes queued but not yet taken by the network. */
  readonly bufferedBytes: number;
  /** Why it ended, once it has; for the log. */
  readonly closeReason: string;
  /** Says goodbye; what was queued is still sent. */
  close(): void;
  /** Ends at once, for a peer that does not answer. */
  destroy(): void;
};

export type DialOptions = {
  /** ws:// or wss:// */
  readonly url: string;
  readonly handshakeMaxMs: number;
  /** A larger message ends the connection. */
  readonly messageBytesMax: number;
  /** Aborting destroys the socket, open or not. */
  readonly signal: AbortSignal;
};

/** @throws NixdeployError("unreachable") saying why · the signal's reason */
export type DialMessageSocket = (options: DialOptions) => Promise<MessageSocket>;
