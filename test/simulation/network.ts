/**
 * The network between devices and one coordinator, with all that it may do: frames are late, connections break, one side
 * notices and the other does not, what was under way on an old connection arrives after the new one is logged in.
 *
 *     agent ── up ──► coordinator     each direction in order, like TCP; each frame as late as the link is slow
 *     agent ◄─ down ─ coordinator
 *
 * A side that was not told finds out as in the real world: the agent by its own pings, the coordinator when nothing came
 * for as long as its listener waits (`PEER_SILENCE_MAX_MS`).
 */
import { createMessageQueue } from "../../src/agent/link/message-queue.ts";
import type { DialOptions, MessageSocket } from "../../src/agent/link/message-socket.ts";
import { NixdeployError } from "../../src/errors.ts";
import { PEER_SILENCE_MAX_MS } from "../../src/protocol.ts";
import type { Clock } from "../../src/runtime.ts";
import type { AgentSession, AgentSocket } from "../../src/server/agents/session.ts";
import type { SeededRandom } from "../support/seeded-random.ts";

/** Who hears at once that a connection broke. */
export type Break = "both" | "agent" | "coordinator" | "nobody";
export const BREAKS: readonly Break[] = ["both", "agent", "coordinator", "nobody"];

export type NetworkDeps = {
  readonly clock: Clock;
  readonly random: SeededRandom;
  /** Null while no coordinator listens. */
  readonly openSession: (socket: AgentSocket) => AgentSession | null;
};

export type Network = AsyncDisposable & {
  dial(device: string, options: DialOptions): Promise<MessageSocket>;
  /** @throws NixdeployError "unreachable" while there is no way */
  passThrough(device: string, signal: AbortSignal): Promise<void>;
  /** The device has no network, until it is mended. */
  isolate(device: string): void;
  /** Frames of this device are up to that late. */
  slow(device: string, latencyMaxMs: number): void;
  mend(): void;
  /** Breaks the connections of a device. */
  breakOff(device: string, told: Break): void;
  /** The coordinator's process is gone, with its ends of all connections. */
  coordinatorDied(told: "agent" | "nobody"): void;
};

type Link = {
  readonly device: string;
  /** Nothing passes any more. */
  isBroken: boolean;
  tellAgent(reason: string): void;
  tellCoordinator(): void;
  forgetCoordinator(): void;
  readonly lastHeardMs: number;
};

const LATENCY_MAX_MS = 40;
const HANDSHAKE_MAX_MS = 200;

export function createNetwork(deps: NetworkDeps): Network {
  const links = new Set<Link>();
  const isolated = new Set<string>();
  const latencies = new Map<string, number>();
  const over = new AbortController();
  const random = deps.random;
  const latencyMs = (device: string) => {
    const max = latencies.get(device);
    if (max !== undefined) return random.durationMs(1, max);
    return random.chance(0.5) ? 0 : random.below(LATENCY_MAX_MS);
  };
  const passThrough: Network["passThrough"] = async (device, signal) => {
    await deps.clock.sleep(random.below(HANDSHAKE_MAX_MS), signal);
    if (isolated.has(device)) throw new NixdeployError("unreachable", "cannot connect: the network is down");
  };
  const tellCoordinatorLater = async (link: Link) => {
    try {
      for (;;) {
        const waitMs = link.lastHeardMs + PEER_SILENCE_MAX_MS - deps.clock.monotonicMs();
        if (waitMs <= 0) break;
        await deps.clock.sleep(waitMs, over.signal);
      }
      link.tellCoordinator();
    } catch {
      // The end of the world.
    }
  };
  return {
    passThrough,
    async dial(device, options) {
      await passThrough(device, options.signal);
      const { link, socket } = createLink({ ...deps, device, latencyMs, options, over: over.signal });
      links.add(link);
      return socket;
    },
    isolate: (device) => void isolated.add(device),
    slow: (device, latencyMaxMs) => void latencies.set(device, latencyMaxMs),
    mend() {
      isolated.clear();
      latencies.clear();
    },
    breakOff(device, told) {
      for (const link of links) {
        if (link.device !== device || link.isBroken) continue;
        link.isBroken = true;
        if (told === "both" || told === "agent") link.tellAgent("the connection broke");
        if (told === "both" || told === "coordinator") link.tellCoordinator();
        else void tellCoordinatorLater(link);
      }
    },
    coordinatorDied(told) {
      for (const link of links) {
        link.isBroken = true;
        link.forgetCoordinator();
        if (told === "agent") link.tellAgent("the coordinator is gone");
      }
      links.clear();
    },
    async [Symbol.asyncDispose]() {
      over.abort(new Error("the network is gone"));
    },
  };
}

function createLink(
  deps: NetworkDeps & {
    readonly device: string;
    readonly options: DialOptions;
    readonly latencyMs: (device: string) => number;
    readonly over: AbortSignal;
  },
): { readonly link: Link; readonly socket: MessageSocket } {
  const { clock, device, options } = deps;
  const queue = createMessageQueue({ lengthMax: Number.MAX_SAFE_INTEGER, onFull: () => {}, onDrained: () => {} });
  let session: AgentSession | null = null;
  let isEnded = false;
  let closeReason = "";
  let lastHeardMs = clock.monotonicMs();
  const tellAgent = (reason: string) => {
    if (isEnded) return;
    isEnded = true;
    closeReason = reason;
    queue.end();
  };
  const tellCoordinator = () => {
    const told = session;
    session = null;
    void told?.closed();
  };
  const up = createPipe(deps, (text) => {
    if (session === null) return;
    lastHeardMs = clock.monotonicMs();
    void session.receive(text);
  });
  const down = createPipe(deps, (text) => {
    if (!isEnded) queue.push(text);
  });
  const link: Link = {
    device,
    isBroken: false,
    tellAgent,
    tellCoordinator,
    forgetCoordinator: () => {
      session = null;
    },
    get lastHeardMs() {
      return lastHeardMs;
    },
  };
  session = deps.openSession({
    send(text) {
      if (session === null) return false;
      if (!link.isBroken) down.push(text);
      return true;
    },
    close(_code, reason) {
      // What was sent before still arrives; whoever closes hears of it later, as with a websocket.
      if (!link.isBroken) down.end(() => tellAgent(reason));
      queueMicrotask(tellCoordinator);
    },
  });
  if (session === null) throw new NixdeployError("unreachable", "cannot connect: nothing listens there");
  const leave = () => {
    if (isEnded) return;
    tellAgent("closed by the agent");
    if (!link.isBroken) up.end(tellCoordinator);
  };
  options.signal.addEventListener("abort", leave, { once: true });
  session.open();
  const socket: MessageSocket = {
    send(text) {
      if (!isEnded && !link.isBroken) up.push(text);
    },
    messages: queue.messages,
    bufferedBytes: 0,
    get closeReason() {
      return closeReason;
    },
    close: leave,
    destroy: leave,
  };
  return { link, socket };
}

/** One direction: what is pushed comes out in order, each item late by its own latency. */
function createPipe(
  { clock, latencyMs, device, over }: Parameters<typeof createLink>[0],
  deliver: (text: string) => void,
) {
  let tail: Promise<void> = Promise.resolve();
  let lastDueMs = 0;
  const enqueue = (work: () => void) => {
    lastDueMs = Math.max(lastDueMs, clock.monotonicMs() + latencyMs(device));
    const dueMs = lastDueMs;
    tail = tail
      .then(async () => {
        const waitMs = dueMs - clock.monotonicMs();
        if (waitMs > 0) await clock.sleep(waitMs, over);
        work();
      })
      .catch(() => {
        // The end of the world.
      });
  };
  return {
    push: (text: string) => enqueue(() => deliver(text)),
    end: (then: () => void) => enqueue(then),
  };
}
