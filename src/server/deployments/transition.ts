/**
 * One transition of one deployment inside a transaction: row, pure `step`, row, event. Everyone who changes the state
 * of a deployment comes through here.
 */
import { isTerminal } from "../../deployment.ts";
import type { RolloutId } from "../../names.ts";
import { type DeploymentRow, updateDeployment } from "../database/deployments.ts";
import { insertEvent, type NewEvent } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type LifecycleEvent, step } from "./lifecycle.ts";

/** The topic on which followers of a rollout wait. */
export const rolloutTopic = (rolloutId: RolloutId): string => `rollout ${rolloutId}`;

/** The topic that says that something was queued: it may be the next to expire. */
export const QUEUE_TOPIC = "queue";

/** @returns the row as it is now; the same object when the event changed nothing */
export async function applyEvent(
  transaction: CoordinatorDatabase,
  row: DeploymentRow,
  happened: { readonly event: LifecycleEvent; readonly atMs: number },
): Promise<DeploymentRow> {
  const change = step({ state: row.state, stopRequested: row.stop_requested }, happened.event);
  if (change === null) return row;
  const { atMs } = happened;
  const update = {
    state: change.state,
    stop_requested: change.stopRequested,
    reason: change.reason ?? row.reason,
    started_ms: row.started_ms ?? (happened.event.type === "phase" ? atMs : null),
    finished_ms: isTerminal(change.state) ? atMs : null,
  };
  await updateDeployment(transaction, row.id, update);
  await insertEvent(transaction, deploymentEvent({ ...row, state: change.state, reason: change.reason }, atMs));
  return { ...row, ...update };
}

/** What happened to a deployment, for whoever follows it or all changes: its state since then, and why. */
export function deploymentEvent(
  row: Pick<DeploymentRow, "id" | "rollout_id" | "workspace_id" | "agent_id" | "state" | "reason">,
  atMs: number,
): NewEvent {
  return {
    at_ms: atMs,
    workspace_id: row.workspace_id,
    kind: "deployment",
    rollout_id: row.rollout_id,
    deployment_id: row.id,
    agent_id: row.agent_id,
    data: JSON.stringify({ state: row.state, reason: row.reason }),
  };
}
