/**
 * One connection from its welcome to its end: reads frames, delivers journals, pings, and gives up a coordinator that
 * is silent or acknowledges nothing. What offers and cancels mean is not decided here.
 */
import { NixdeployError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { DeploymentId } from "../../names.ts";
import {
  type AgentFrameInput,
  type CoordinatorFrame,
  type Offer,
  PEER_SILENCE_MAX_MS,
  PING_INTERVAL_MS,
  type ToldCaches,
} from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import type { DeploymentStore } from "../journal/deployment-store.ts";
import { type FrameReader, sendFrame } from "./login.ts";
import type { MessageSocket } from "./message-socket.ts";
import { createReporter, type Reporter } from "./reporter.ts";

/** What may be lost is not sent while so much waits in the socket. */
export const LOSSY_BUFFER_MAX_BYTES = 256 * 1024;

const GOODBYE_MAX_MS = 2_000;

export type SessionHandlers = {
  onOffer(offer: Offer): void;
  onCancel(deploymentId: DeploymentId): void;
  /** Before anything that came after it is looked at. @throws what ends the session */
  onCaches(told: ToldCaches): Promise<void>;
};

export type SessionOptions = {
  readonly socket: MessageSocket;
  readonly frames: FrameReader;
  readonly store: DeploymentStore;
  readonly handlers: SessionHandlers;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Aborted when the agent ends: the session says goodbye. */
  readonly signal: AbortSignal;
};

/** @returns why it ended, for the log. Never throws. */
export async function runSession(options: SessionOptions): Promise<string> {
  const { socket, store, clock } = options;
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, over.signal]);
  const send = (frame: AgentFrameInput) => sendFrame(socket, frame);
  const reporter = createReporter({ store, send, clock });
  const heard = { atMs: clock.monotonicMs() };
  const loops = [
    readFrames({ ...options, reporter }, heard),
    reporter.run(signal),
    keepAlive({ ...options, signal, send, reporter, heard }),
    waitForAbort(signal),
  ];
  const why = await Promise.race(loops).then(
    () => socket.closeReason || "the coordinator closed the connection",
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
  over.abort(new Error("the session is over"));
  const settled = Promise.allSettled(loops);
  if (options.signal.aborted) await sayGoodbye(socket, { settled, clock });
  socket.destroy();
  await settled;
  return why;
}

/** What was sent before still arrives; a coordinator that does not answer is not waited for long. */
async function sayGoodbye(
  socket: MessageSocket,
  { settled, clock }: { readonly settled: Promise<unknown>; readonly clock: Clock },
): Promise<void> {
  const answered = new AbortController();
  socket.close();
  const timeUp = clock.sleep(GOODBYE_MAX_MS, answered.signal).catch(() => {
    // Answered in time.
  });
  await Promise.race([settled, timeUp]);
  answered.abort(new Error("the connection is closed"));
  await timeUp;
}

type FrameOptions = SessionOptions & { readonly reporter: Reporter };

async function readFrames(options: FrameOptions, heard: { atMs: number }): Promise<void> {
  for (let frame = await options.frames.next(); frame !== null; frame = await options.frames.next()) {
    heard.atMs = options.clock.monotonicMs();
    await handleFrame(frame, options);
  }
}

async function handleFrame(frame: CoordinatorFrame, options: FrameOptions): Promise<void> {
  switch (frame.kind) {
    case "offer":
      options.handlers.onOffer(frame);
      break;
    case "cancel":
      options.handlers.onCancel(frame.deploymentId);
      break;
    case "caches":
      await options.handlers.onCaches(frame);
      break;
    case "acknowledge":
      await options.store.acknowledge(frame.deploymentId, frame.through);
      options.reporter.known(frame.deploymentId);
      break;
    case "pong":
      break;
    case "error":
      options.logger.warn(`the coordinator did not understand us: ${frame.message}`, { code: frame.code });
      break;
    case "challenge":
    case "welcome":
    case "refused":
      throw new NixdeployError("remote", `the coordinator sent "${frame.kind}" out of turn`);
    default:
      frame satisfies never;
  }
}

type KeepAliveOptions = SessionOptions & {
  readonly send: (frame: AgentFrameInput) => void;
  readonly reporter: Reporter;
  readonly heard: { readonly atMs: number };
};

async function keepAlive(options: KeepAliveOptions): Promise<never> {
  const { clock, reporter, heard } = options;
  let nowMs = clock.monotonicMs();
  let pingAtMs = nowMs + PING_INTERVAL_MS;
  for (;;) {
    const tiredAtMs = Math.min(heard.atMs, reporter.waitingSinceMs ?? nowMs) + PEER_SILENCE_MAX_MS;
    await clock.sleep(Math.max(0, Math.min(pingAtMs, tiredAtMs) - nowMs), options.signal);
    nowMs = clock.monotonicMs();
    if (nowMs - heard.atMs >= PEER_SILENCE_MAX_MS) {
      throw new NixdeployError("unreachable", `the coordinator was silent for ${PEER_SILENCE_MAX_MS / 1_000} s`);
    }
    if (reporter.waitingSinceMs !== null && nowMs - reporter.waitingSinceMs >= PEER_SILENCE_MAX_MS) {
      throw new NixdeployError("remote", `the coordinator acknowledged nothing for ${PEER_SILENCE_MAX_MS / 1_000} s`);
    }
    if (nowMs < pingAtMs) continue;
    options.send({ kind: "ping" });
    pingAtMs = nowMs + PING_INTERVAL_MS;
  }
}

function waitForAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
}
