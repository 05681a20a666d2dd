/**
 * Ends what waited too long for its agent, at the time that was recorded with it, whether or not the agent ever returns,
 * and at the coordinator's start if that time fell into its absence.
 *
 * | at its time        | its agent                 | it ends                                                         |
 * | ------------------ | ------------------------- | --------------------------------------------------------------- |
 * | queued             | any                       | expired                                                         |
 * | offered            | connected                 | not: it may be taken any moment, and no progress is marked      |
 * | offered            | silent for less than 90 s | not yet: it may be back                                         |
 * | offered            | offline                   | expired, or as what it was asked to stop for; see `late-outcome.ts` |
 * | fetching and later | any                       | not: the agent has taken it, and its word decides               |
 *
 * Should an offer come back into the queue, it expires then.
 */
import type { DeploymentId, RolloutId } from "../../names.ts";
import type { AgentRegistry } from "../agents/registry.ts";
import { loadAgents } from "../database/agents.ts";
import { chunksOf } from "../database/bulk.ts";
import {
  type DeploymentRow,
  findNextExpiry,
  listDue,
  listOverdueOffers,
  loadDeployments,
} from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type RecurringDeps, startRecurring } from "../recurring.ts";
import { applyEvents, QUEUE_TOPIC, rolloutTopic } from "./transition.ts";

/** In one transaction. */
const BATCH = 200;

type Deps = RecurringDeps & { readonly database: CoordinatorDatabase; readonly registry: AgentRegistry };

export function startExpirations(deps: Deps): AsyncDisposable {
  return startRecurring(deps, {
    what: "end deployments that waited too long",
    topics: [QUEUE_TOPIC],
    run: async (signal) => {
      const nowMs = deps.clock.nowMs();
      while (!signal.aborted && (await expireQueued(deps, nowMs)) === BATCH);
      const { gone, backByMs } = await findUnheard(deps, nowMs);
      for (const ids of chunksOf(gone, BATCH)) if (!signal.aborted) await expireUnheard(deps, ids, nowMs);
      const nextMs = await findNextExpiry(deps.database, nowMs);
      return backByMs === null || nextMs === null ? (backByMs ?? nextMs) : Math.min(backByMs, nextMs);
    },
  });
}

/** @returns how many */
async function expireQueued(deps: Deps, nowMs: number): Promise<number> {
  const rows = await deps.database.transaction().execute(async (transaction) => {
    const due = await listDue(transaction, { untilMs: nowMs, limit: BATCH });
    return await applyEvents(transaction, due, { event: { type: "expire" }, atMs: nowMs });
  });
  tellFollowers(deps, rows);
  return rows.length;
}

/** Overdue offers whose agents are offline; and when the next of the other silent ones will be, epoch milliseconds. */
async function findUnheard(
  { database, registry }: Deps,
  nowMs: number,
): Promise<{ readonly gone: readonly DeploymentId[]; readonly backByMs: number | null }> {
  const overdue = await listOverdueOffers(database, { untilMs: nowMs });
  const silent = overdue.filter((row) => registry.find(row.agent_id) === null);
  const agents = await loadAgents(database, [...new Set(silent.map((row) => row.agent_id))]);
  const gone: DeploymentId[] = [];
  let backByMs: number | null = null;
  for (const { id, agent_id } of silent) {
    const agent = agents.get(agent_id);
    const offlineFromMs = agent === undefined ? 0 : registry.offlineFromMs({ lastSeenMs: agent.last_seen_ms });
    if (offlineFromMs <= nowMs) gone.push(id);
    else backByMs = Math.min(backByMs ?? offlineFromMs, offlineFromMs);
  }
  return { gone, backByMs };
}

async function expireUnheard(deps: Deps, ids: readonly DeploymentId[], nowMs: number): Promise<void> {
  const rows = await deps.database.transaction().execute(async (transaction) => {
    const now = await loadDeployments(transaction, ids);
    // Who has come back since says itself what became of it.
    const unheard = now.filter((row) => deps.registry.find(row.agent_id) === null && row.state === "offered");
    return await applyEvents(transaction, unheard, { event: { type: "expire" }, atMs: nowMs });
  });
  tellFollowers(deps, rows);
}

function tellFollowers({ bus }: Deps, rows: readonly DeploymentRow[]): void {
  const touched = new Set<RolloutId>(rows.map((row) => row.rollout_id));
  for (const rolloutId of touched) bus.publish(rolloutTopic(rolloutId));
}
