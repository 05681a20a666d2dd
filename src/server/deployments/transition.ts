/**
 * One transition of one deployment inside a transaction: row, pure `step`, row, event. Everyone who changes the state
 * of a deployment comes through here.
 */
import { isTerminal } from "../../deployment.ts";
import type { RolloutId } from "../../names.ts";
import { type DeploymentRow, insertEvent, updateDeployment } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type LifecycleEvent, step } from "./lifecycle.ts";

/** The topic on which followers of a rollout wait. */
export const rolloutTopic = (rolloutId: RolloutId): string => `rollout ${rolloutId}`;

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
  await insertEvent(transaction, {
    deployment_id: row.id,
    rollout_id: row.rollout_id,
    at_ms: atMs,
    state: change.state,
    reason: change.reason,
  });
  return { ...row, ...update };
}
