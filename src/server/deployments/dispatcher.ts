/**
 * Brings deployments to agents: offers what is queued to an agent that is connected and free, asks one to stop, and
 * takes offers back when contact is lost. Everything is restated from the database, so calling it once too often is
 * harmless. What may not be offered yet has a timer while its agent is connected; who logs in gets a new one.
 */
import { z } from "zod";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { AgentId, DeploymentId } from "../../names.ts";
import { activationPolicySchema } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import type { AgentRegistry, LiveAgent } from "../agents/registry.ts";
import { type AgentTimers, createAgentTimers } from "../agents/timers.ts";
import type { Bus } from "../bus.ts";
import {
  type DeploymentRow,
  findDeployment,
  findQueued,
  findRunning,
  forgetJournal,
  listOffered,
  listRunningOnDevice,
} from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { waitMsOf } from "./requeue.ts";
import { applyEvent, QUEUE_TOPIC, rolloutTopic } from "./transition.ts";

export type Dispatcher = AsyncDisposable & {
  /** Sends what this agent should know now: a request to stop, or an offer. Does nothing when it is not connected. */
  dispatch(agentId: AgentId): Promise<void>;
  /** After a login: settles what the agent no longer knows, then dispatches. */
  welcome(agentId: AgentId, remembered: Remembered): Promise<void>;
  contactLost(agentId: AgentId): Promise<void>;
  /** At the coordinator's start: nobody is connected, so no offer stands. */
  recover(): Promise<void>;
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
  readonly registry: AgentRegistry;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly log: Logger;
};

export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const dispatch = async (agentId: AgentId) => {
    const agent = deps.registry.find(agentId);
    if (agent === null) return;
    const running = await deps.database.transaction().execute(async (transaction) => {
      const current = await findRunning(transaction, agentId);
      if (current !== null) return current;
      const queued = await findQueued(transaction, agentId);
      if (queued === null) return null;
      if (queued.expires_ms !== null && queued.expires_ms <= deps.clock.nowMs()) {
        deps.bus.publish(QUEUE_TOPIC);
        return null;
      }
      const waitMs = waitMsOf(queued, deps.clock.nowMs());
      if (waitMs > 0) {
        timers.set(agentId, waitMs);
        return null;
      }
      return await applyEvent(transaction, queued, { event: { type: "offer" }, atMs: deps.clock.nowMs() });
    });
    if (running === null) return;
    deps.bus.publish(rolloutTopic(running.rollout_id));
    restate(agent, running);
  };
  const timers: AgentTimers = createAgentTimers(deps.clock, async (agentId) => {
    await dispatch(agentId).catch((error: unknown) => {
      deps.log.error("cannot offer what was put off", { reason: describeError(error) });
    });
  });
  return {
    dispatch,
    async welcome(agentId, remembered) {
      await deps.database
        .transaction()
        .execute((transaction) => settleReturn(transaction, { ...remembered, agentId }, deps));
      await stopWhatIsOver(deps, agentId, remembered.inFlight);
      await dispatch(agentId);
    },
    async contactLost(agentId) {
      timers.clear(agentId);
      const row = await deps.database.transaction().execute(async (transaction) => {
        const running = await findRunning(transaction, agentId);
        return running === null ? null : await takeBack(transaction, running, deps);
      });
      if (row === null) return;
      deps.registry.progress.delete(row.id);
      deps.bus.publish(rolloutTopic(row.rollout_id));
      deps.bus.publish(QUEUE_TOPIC);
    },
    async recover() {
      await deps.database.transaction().execute(async (transaction) => {
        for (const row of await listOffered(transaction)) await takeBack(transaction, row, deps);
      });
    },
    [Symbol.asyncDispose]: () => timers[Symbol.asyncDispose](),
  };
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

/** It works on what has given way to a newer one, or was cancelled, while it was away: it must not go on with it. */
async function stopWhatIsOver(deps: DispatcherDeps, agentId: AgentId, inFlight: DeploymentId | null): Promise<void> {
  const row = inFlight === null ? null : await findDeployment(deps.database, inFlight);
  if (row === null || (row.state !== "superseded" && row.state !== "cancelled")) return;
  deps.registry.find(agentId)?.send({ kind: "cancel", deploymentId: row.id });
}

async function takeBack(
  transaction: CoordinatorDatabase,
  row: DeploymentRow,
  deps: DispatcherDeps,
): Promise<DeploymentRow> {
  const newerWaits = (await findQueued(transaction, row.agent_id)) !== null;
  return await applyEvent(transaction, row, {
    event: { type: "contact-lost", newerWaits },
    atMs: deps.clock.nowMs(),
  });
}

/**
 * An agent is back. What it does not know of is taken back or declared lost; what it is still fetching gives way to a
 * newer one that waits.
 */
async function settleReturn(
  transaction: CoordinatorDatabase,
  returned: Remembered & { readonly agentId: AgentId },
  deps: DispatcherDeps,
): Promise<void> {
  const known = new Set([returned.inFlight, ...(returned.unreported ?? [])]);
  for (const row of await listRunningOnDevice(transaction, returned.agentId)) {
    if (known.has(row.id)) continue;
    await applyEvent(transaction, row, {
      event: { type: "forgotten", newerWaits: false },
      atMs: deps.clock.nowMs(),
    });
    deps.bus.publish(rolloutTopic(row.rollout_id));
  }
  const running = await findRunning(transaction, returned.agentId);
  if (running === null) return;
  const newerWaits = (await findQueued(transaction, returned.agentId)) !== null;
  const forgotten = !known.has(running.id);
  if (!forgotten && !newerWaits) return;
  const row = await applyEvent(transaction, running, {
    event: forgotten ? { type: "forgotten", newerWaits } : { type: "supersede" },
    atMs: deps.clock.nowMs(),
  });
  // Should it be offered again, its journal begins anew.
  if (forgotten) await forgetJournal(transaction, row.id);
  if (row !== running) deps.bus.publish(rolloutTopic(row.rollout_id));
  deps.bus.publish(QUEUE_TOPIC);
}
