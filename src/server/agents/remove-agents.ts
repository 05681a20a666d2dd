/**
 * Removing agents: from then on the key is refused with a message of its own, whatever token it brings, and the name is
 * free. The row stays, so that what was deployed to it and what was logged can still be read. What waits for it is
 * cancelled; what runs on it ends here with what is known, is asked to stop, and cannot prove itself without a login.
 */
import type { Clock } from "../../runtime.ts";
import type { Bus } from "../bus.ts";
import { deleteEnrolmentRequest } from "../database/agent-keys.ts";
import { type AgentRow, updateAgent } from "../database/agents.ts";
import { type DeploymentRow, findUnfinished } from "../database/deployments.ts";
import { insertEvents } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { applyEvent, rolloutTopic } from "../deployments/transition.ts";
import type { AgentRegistry } from "./registry.ts";

export type RemovalDeps = {
  readonly database: CoordinatorDatabase;
  readonly registry: AgentRegistry;
  readonly bus: Bus;
  readonly clock: Clock;
};

/** All or none. @param agents none of them removed already */
export async function removeAgents(deps: RemovalDeps, agents: readonly AgentRow[]): Promise<void> {
  const nowMs = deps.clock.nowMs();
  const ended = await deps.database.transaction().execute(async (transaction) => {
    const all: DeploymentRow[] = [];
    for (const agent of agents) all.push(...(await removeOne(transaction, agent, nowMs)));
    return all;
  });
  for (const row of ended) {
    deps.registry.progress.delete(row.id);
    deps.registry.find(row.agent_id)?.send({ kind: "cancel", deploymentId: row.id });
    deps.bus.publish(rolloutTopic(row.rollout_id));
  }
  for (const agent of agents) deps.registry.find(agent.id)?.close("this agent was removed");
}

async function removeOne(
  transaction: CoordinatorDatabase,
  agent: AgentRow,
  nowMs: number,
): Promise<readonly DeploymentRow[]> {
  const { id, workspace_id: workspaceId, name } = agent;
  await updateAgent(transaction, id, { removed_ms: nowMs });
  await deleteEnrolmentRequest(transaction, { workspaceId, name });
  await insertEvents(transaction, [
    {
      at_ms: nowMs,
      workspace_id: workspaceId,
      kind: "agent",
      rollout_id: null,
      deployment_id: null,
      agent_id: id,
      data: JSON.stringify({ name, change: "removed" }),
    },
  ]);
  const { queued, running, onDevice } = await findUnfinished(transaction, id);
  const live = [running, queued, ...onDevice].filter((row) => row !== null);
  const after: DeploymentRow[] = [];
  for (const row of live) after.push(await applyEvent(transaction, row, { event: { type: "removed" }, atMs: nowMs }));
  return after;
}
