/**
 * Brings deployments to agents: offers what is queued to an agent that is connected and free, asks one to stop, and
 * settles at a login what the agent knows nothing of. Everything is restated from the database, so calling it once too
 * often is harmless. What may not be offered yet has a timer while its agent is connected; who logs in gets a new one.
 */
import { z } from "zod";
import type { DeploymentState } from "../../deployment.ts";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { AgentId, DeploymentId, RolloutId } from "../../names.ts";
import { activationPolicySchema } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import type { AgentRegistry, LiveAgent } from "../agents/registry.ts";
import { type AgentTimers, createAgentTimers } from "../agents/timers.ts";
import type { Bus } from "../bus.ts";
import { chunksOf } from "../database/bulk.ts";
import {
  type DeploymentRow,
  findDeployment,
  findUnfinished,
  forgetJournal,
  loadUnfinished,
} from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import { waitMsOf } from "./requeue.ts";
import { applyEvent, applyEvents, QUEUE_TOPIC, RUNNING_TOPIC, rolloutTopic } from "./transition.ts";

export type Dispatcher = AsyncDisposable & {
  /**
   * Sends what this agent should know now: a request to stop, or an offer. Does nothing when it is not connected. Never
   * throws: what cannot be offered, because the database takes nothing, is tried again in a while.
   */
  dispatch(agentId: AgentId): Promise<void>;
  /** The same to many, in few transactions. */
  dispatchAll(agentIds: readonly AgentId[]): Promise<void>;
  /** After a login: settles what the agent no longer knows, then dispatches. */
  welcome(agentId: AgentId, remembered: Remembered): Promise<void>;
  contactLost(agentId: AgentId): Promise<void>;
};

/** As they were recorded: what they are was checked then, and is checked again where they are carried out. */
const healthChecksSchema = z.array(z.unknown());

/** What an agent says in its login that it knows of. */
export type Remembered = {
  readonly inFlight: DeploymentId | null;
  /** Those it has a journal of besides. */
  readonly unreported?: readonly DeploymentId[] | undefined;
};

export type DispatcherDeps = {
  readonly database: CoordinatorDatabase;
  readonly writes: WriteQueue;
  readonly registry: AgentRegistry;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly log: Logger;
};

/** What people were told will not be done. */
const OVER: ReadonlySet<DeploymentState> = new Set(["superseded", "cancelled", "expired"]);
/** Agents of one transaction: between two, others get their turn. */
const DISPATCH_MAX = 500;
/** After a write that the database did not take. */
const RETRY_MS = 5_000;

export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const dispatchSome = async (agentIds: readonly AgentId[]) => {
    const { offered, running, later, isOverdue } = await deps.writes.write((transaction) =>
      offer(transaction, agentIds, deps),
    );
    if (isOverdue) deps.bus.publish(QUEUE_TOPIC);
    if (offered.length > 0) deps.bus.publish(RUNNING_TOPIC);
    for (const { agentId, waitMs } of later) timers.set(agentId, waitMs);
    for (const rolloutId of new Set(offered.map((row) => row.rollout_id))) deps.bus.publish(rolloutTopic(rolloutId));
    for (const row of [...running, ...offered]) {
      const agent = deps.registry.find(row.agent_id);
      if (agent !== null) restate(agent, row);
    }
  };
  const dispatchOrTryAgain = async (agentIds: readonly AgentId[]) => {
    try {
      await dispatchSome(agentIds);
    } catch (error) {
      // What waits is stored, and whoever asked for it is told so.
      deps.log.warn("cannot offer what waits; it is tried again", { reason: describeError(error) });
      for (const agentId of agentIds) timers.set(agentId, RETRY_MS);
    }
  };
  const dispatchAll = async (agentIds: readonly AgentId[]) => {
    const connected = agentIds.filter((agentId) => deps.registry.find(agentId) !== null);
    // Queued at once, so that the last does not wait behind what the first report meanwhile.
    await Promise.all([...chunksOf(connected, DISPATCH_MAX)].map(dispatchOrTryAgain));
  };
  const dispatch = async (agentId: AgentId) => {
    // Nearly every agent that has ended something has nothing else to do, and then nothing is written.
    const unfinished = await findUnfinished(deps.database, agentId).catch(() => "cannot be read" as const);
    if (unfinished === "cannot be read" || unfinished.queued !== null || unfinished.running !== null) {
      await dispatchAll([agentId]);
    }
  };
  const timers: AgentTimers = createAgentTimers(deps.clock, dispatch);
  return {
    dispatch,
    dispatchAll,
    async welcome(agentId, remembered) {
      // Nearly every agent that comes back has nothing to do, and then nothing is written.
      const { queued, running, onDevice } = await findUnfinished(deps.database, agentId);
      if (running !== null || onDevice.length > 0) {
        const returned = { ...remembered, agentId, nowMs: deps.clock.nowMs() };
        const touched = await deps.writes.write((transaction) => settleReturn(transaction, returned));
        for (const rolloutId of touched) deps.bus.publish(rolloutTopic(rolloutId));
        if (touched.size > 0) deps.bus.publish(QUEUE_TOPIC);
      }
      await stopWhatIsOver(deps, agentId, remembered.inFlight);
      if (queued !== null || running !== null) await dispatchAll([agentId]);
    },
    async contactLost(agentId) {
      timers.clear(agentId);
      const { running: row } = await findUnfinished(deps.database, agentId);
      if (row === null) return;
      deps.registry.progress.delete(row.id);
      deps.bus.publish(rolloutTopic(row.rollout_id));
      // An offer that waits for its agent's word may expire now.
      if (row.state === "offered") deps.bus.publish(QUEUE_TOPIC);
    },
    [Symbol.asyncDispose]: () => timers[Symbol.asyncDispose](),
  };
}

type Offers = {
  /** Told of already, and not ended. */
  readonly running: readonly DeploymentRow[];
  readonly offered: readonly DeploymentRow[];
  /** What waits and may not be offered yet. */
  readonly later: readonly { readonly agentId: AgentId; readonly waitMs: number }[];
  /** Something has waited for longer than it may. */
  readonly isOverdue: boolean;
};

/** Offers what waits for those of the agents that are free. */
async function offer(
  transaction: CoordinatorDatabase,
  agentIds: readonly AgentId[],
  deps: DispatcherDeps,
): Promise<Offers> {
  const nowMs = deps.clock.nowMs();
  const unfinished = [...(await loadUnfinished(transaction, agentIds)).values()];
  const running = unfinished.map((has) => has.running).filter((row) => row !== null);
  const free = unfinished.filter((has) => has.running === null);
  const waiting = free.map(({ queued }) => queued).filter((row) => row !== null);
  const inTime = waiting.filter((row) => row.expires_ms === null || row.expires_ms > nowMs);
  const due = inTime.filter((row) => waitMsOf(row, nowMs) === 0);
  const later = inTime
    .map((row) => ({ agentId: row.agent_id, waitMs: waitMsOf(row, nowMs) }))
    .filter(({ waitMs }) => waitMs > 0);
  const offered = await applyEvents(transaction, due, { event: { type: "offer" }, atMs: nowMs });
  return { running, offered, later, isOverdue: inTime.length < waiting.length };
}

/** Says again what stands in the database; the agent takes what it knows as news of nothing. */
function restate(agent: LiveAgent, row: DeploymentRow): void {
  if (row.stop_requested !== null) agent.send({ kind: "cancel", deploymentId: row.id });
  else if (row.state === "offered") {
    agent.send({
      kind: "offer",
      deploymentId: row.id,
      storePath: row.store_path,
      mode: row.mode,
      rollbackScript: row.rollback_script,
      policy: activationPolicySchema.parse(JSON.parse(row.policy)),
      healthChecks: healthChecksSchema.parse(JSON.parse(row.health_checks)),
      ...(row.lifts_quarantine === 1 ? { retry: true } : {}),
    });
  }
}

/** It works on what ended here while it was away (given way to a newer one, cancelled, expired): it must not go on with it. */
async function stopWhatIsOver(deps: DispatcherDeps, agentId: AgentId, inFlight: DeploymentId | null): Promise<void> {
  const row = inFlight === null ? null : await findDeployment(deps.database, inFlight);
  if (row === null || !OVER.has(row.state)) return;
  deps.registry.find(agentId)?.send({ kind: "cancel", deploymentId: row.id });
}

/**
 * An agent is back. What it does not know of is taken back or declared lost; what it is still fetching gives way to a
 * newer one that waits.
 * @returns the rollouts in which something changed
 */
async function settleReturn(
  transaction: CoordinatorDatabase,
  returned: Remembered & { readonly agentId: AgentId; readonly nowMs: number },
): Promise<ReadonlySet<RolloutId>> {
  const { nowMs: atMs } = returned;
  const known = new Set([returned.inFlight, ...(returned.unreported ?? [])]);
  const { queued, running, onDevice } = await findUnfinished(transaction, returned.agentId);
  const touched = new Set<RolloutId>();
  for (const row of onDevice) {
    if (known.has(row.id)) continue;
    await applyEvent(transaction, row, { event: { type: "forgotten", newerWaits: false }, atMs });
    touched.add(row.rollout_id);
  }
  if (running === null) return touched;
  const newerWaits = queued !== null;
  const forgotten = !known.has(running.id);
  if (!forgotten && !newerWaits) return touched;
  const row = await applyEvent(transaction, running, {
    event: forgotten ? { type: "forgotten", newerWaits } : { type: "supersede" },
    atMs,
  });
  // Should it be offered again, its journal begins anew.
  if (forgotten) await forgetJournal(transaction, row.id);
  if (row !== running) touched.add(row.rollout_id);
  return touched;
}
