/**
 * Says in the log of events which agents came and which are away. An agent that connects again within the time after which
 * silence counts as offline was never away for anybody, so that neither its daily renewal nor a restart of the coordinator
 * says anything. What was said last stands in the database.
 */
import type { AgentId } from "../../names.ts";
import { type Announced, announceAgents, listAnnouncedOnline, loadAgents } from "../database/agents.ts";
import { insertEvents, type NewEvent } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type RecurringDeps, startRecurring } from "../recurring.ts";
import { AGENTS_TOPIC, type AgentRegistry } from "./registry.ts";

/** A fleet that comes back wakes it thousands of times. */
const PAUSE_MS = 1_000;

type Deps = RecurringDeps & { readonly database: CoordinatorDatabase; readonly registry: AgentRegistry };

export function startPresence(deps: Deps): AsyncDisposable {
  let online: Set<AgentId> | null = null;
  let nextLookMs = 0;
  return startRecurring(deps, {
    what: "say which agents came and went",
    topics: [AGENTS_TOPIC],
    run: async () => {
      const nowMs = deps.clock.nowMs();
      if (nowMs < nextLookMs && nextLookMs - nowMs <= PAUSE_MS) return nextLookMs;
      nextLookMs = nowMs + PAUSE_MS;
      online ??= new Set(await listAnnouncedOnline(deps.database));
      const { came, gone, dueMs } = await compare(deps, online, nowMs);
      if (came.length + gone.length > 0) await announce(deps, { came, gone, nowMs });
      for (const id of came) online.add(id);
      for (const id of gone) online.delete(id);
      return dueMs;
    },
  });
}

type Compared = {
  readonly came: readonly AgentId[];
  readonly gone: readonly AgentId[];
  /** When the next of those that are silent counts as offline, epoch milliseconds. */
  readonly dueMs: number | null;
};

async function compare(deps: Deps, online: ReadonlySet<AgentId>, nowMs: number): Promise<Compared> {
  const came = deps.registry.ids().filter((id) => !online.has(id));
  const silent = [...online].filter((id) => deps.registry.find(id) === null);
  const gone: AgentId[] = [];
  const due: number[] = [];
  const rows = await loadAgents(deps.database, silent);
  for (const id of silent) {
    const row = rows.get(id);
    const offlineFromMs = row === undefined ? 0 : deps.registry.offlineFromMs({ lastSeenMs: row.last_seen_ms });
    if (offlineFromMs <= nowMs) gone.push(id);
    else due.push(offlineFromMs);
  }
  return { came, gone, dueMs: due.length === 0 ? null : due.reduce((a, b) => Math.min(a, b)) };
}

async function announce(
  deps: Deps,
  {
    came,
    gone,
    nowMs,
  }: { readonly came: readonly AgentId[]; readonly gone: readonly AgentId[]; readonly nowMs: number },
): Promise<void> {
  await deps.database.transaction().execute(async (transaction) => {
    const on = await announceAgents(transaction, { ids: came, isOnline: 1 });
    const off = await announceAgents(transaction, { ids: gone, isOnline: 0 });
    await insertEvents(transaction, [
      ...on.map((agent) => agentEvent(agent, { change: "online", atMs: nowMs })),
      ...off.map((agent) => agentEvent(agent, { change: "offline", atMs: nowMs })),
    ]);
  });
}

export function agentEvent(
  agent: Announced,
  { change, atMs }: { readonly change: string; readonly atMs: number },
): NewEvent {
  return {
    at_ms: atMs,
    workspace_id: agent.workspace_id,
    kind: "agent",
    rollout_id: null,
    deployment_id: null,
    agent_id: agent.id,
    data: JSON.stringify({ name: agent.name, change }),
  };
}
