/**
 * The agents that are connected right now: the only truth of the coordinator that is not in its database. Also answers
 * whether an agent that is silent counts as offline yet.
 */
import type { AgentId } from "../../names.ts";
import type { CoordinatorFrameInput, Progress } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";

export type Contact = "online" | "offline" | "unknown";

/** Silence after which an agent counts as offline, counted from the coordinator's start too. */
export const OFFLINE_AFTER_MS = 90_000;

/** The topic that says that an agent came or went. */
export const AGENTS_TOPIC = "agents";

export type LiveAgent = {
  readonly agentId: AgentId;
  readonly workspaceId: string;
  send(frame: CoordinatorFrameInput): void;
  close(reason: string): void;
};

export type ContactWatch = Disposable & {
  /** Since the call before. Whoever came and went is among them once. */
  take(): ReadonlySet<AgentId>;
};

export type AgentRegistry = {
  /** A second connection of the same agent replaces the first, which is closed. */
  enter(agent: LiveAgent): void;
  /** @returns false when another connection has taken its place already */
  leave(agent: LiveAgent): boolean;
  find(agentId: AgentId): LiveAgent | null;
  readonly online: number;
  /** All that are connected. */
  ids(): readonly AgentId[];
  /** Says who came or went, to somebody who knows ten thousand and cannot ask about each of them each time. */
  watch(): ContactWatch;
  /** How many are connected; workspaces without any may be left out. */
  readonly onlineByWorkspace: ReadonlyMap<string, number>;
  contact(agent: { readonly agentId: AgentId; readonly lastSeenMs: number }): Contact;
  /** When an agent that is silent now begins to count as offline, epoch milliseconds. */
  offlineFromMs(agent: { readonly lastSeenMs: number }): number;
  /** Progress of running downloads: lossy, in memory only. */
  readonly progress: Map<string, Progress>;
};

export function createAgentRegistry(clock: Clock): AgentRegistry {
  const live = new Map<AgentId, LiveAgent>();
  /** What each watch has not taken yet. */
  const watches = new Set<{ changed: Set<AgentId> }>();
  const onlineByWorkspace = new Map<string, number>();
  const count = ({ agentId, workspaceId }: LiveAgent, change: 1 | -1) => {
    onlineByWorkspace.set(workspaceId, (onlineByWorkspace.get(workspaceId) ?? 0) + change);
    for (const { changed } of watches) changed.add(agentId);
  };
  const startedMs = clock.nowMs();
  const offlineFromMs = (agent: { readonly lastSeenMs: number }) =>
    Math.max(agent.lastSeenMs, startedMs) + OFFLINE_AFTER_MS;
  return {
    enter(agent) {
      const before = live.get(agent.agentId);
      live.set(agent.agentId, agent);
      if (before === undefined) count(agent, 1);
      before?.close("another connection of the same agent took its place");
    },
    leave(agent) {
      if (live.get(agent.agentId) !== agent) return false;
      count(agent, -1);
      return live.delete(agent.agentId);
    },
    onlineByWorkspace,
    watch() {
      const watch = { changed: new Set<AgentId>() };
      watches.add(watch);
      return {
        take() {
          const { changed } = watch;
          watch.changed = new Set();
          return changed;
        },
        [Symbol.dispose]: () => void watches.delete(watch),
      };
    },
    find: (agentId) => live.get(agentId) ?? null,
    get online() {
      return live.size;
    },
    ids: () => [...live.keys()],
    contact(agent) {
      if (live.has(agent.agentId)) return "online";
      return clock.nowMs() < offlineFromMs(agent) ? "unknown" : "offline";
    },
    offlineFromMs,
    progress: new Map(),
  };
}
