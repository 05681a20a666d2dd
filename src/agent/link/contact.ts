/**
 * What the agent knows from its latest welcome, shared between the connection, which renews it, and the work, which
 * needs it: where the cache is, and the credential to read it. Also the way to send what may be lost.
 */
import type { AgentFrameInput, Progress, Welcome } from "../../protocol.ts";
import { type ChangeSignal, createChangeSignal } from "../journal/change-signal.ts";

/** Frames that nobody resends. */
export type LossyFrame = Extract<AgentFrameInput, { kind: "progress" | "state" }>;

export type Contact = {
  /** The latest one, also while the connection is down; null before the first. */
  readonly welcome: Welcome | null;
  /** Waits for the first welcome. @throws the signal's reason */
  firstWelcome(signal: AbortSignal): Promise<Welcome>;
  readonly isConnected: boolean;
  /** Sends if there is a connection with room, else forgets. @returns whether it was sent */
  send(frame: LossyFrame): boolean;
  /** For the connection: a login succeeded, and this is how to send on it. */
  established(welcome: Welcome, send: (frame: LossyFrame) => boolean): void;
  /** For the connection: what the welcome said has changed. */
  renewed(welcome: Welcome): void;
  /** For the connection: it ended. */
  lost(): void;
};

export type ProgressSender = (progress: Omit<Progress, "kind" | "deploymentId">) => void;

export function createContact(): Contact {
  const changes: ChangeSignal = createChangeSignal();
  let welcome: Welcome | null = null;
  let sendNow: ((frame: LossyFrame) => boolean) | null = null;
  return {
    get welcome() {
      return welcome;
    },
    async firstWelcome(signal) {
      for (;;) {
        const { version } = changes;
        if (welcome !== null) return welcome;
        await changes.waitAfter(version, signal);
      }
    },
    get isConnected() {
      return sendNow !== null;
    },
    send: (frame) => sendNow?.(frame) ?? false,
    established(newWelcome, send) {
      welcome = newWelcome;
      sendNow = send;
      changes.changed();
    },
    renewed(newWelcome) {
      welcome = newWelcome;
    },
    lost() {
      sendNow = null;
    },
  };
}
