/**
 * Transitions of deployments inside a transaction: row, pure `step`, row, event. Everyone who changes the state of a
 * deployment comes through here.
 */
import { isTerminal } from "../../deployment.ts";
import type { RolloutId } from "../../names.ts";
import { changedColumns } from "../database/bulk.ts";
import { type DeploymentRow, updateDeployment, updateDeployments } from "../database/deployments.ts";
import { insertEvents, type NewEvent } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type LifecycleEvent, step } from "./lifecycle.ts";

/** The topic on which followers of a rollout wait. */
export const rolloutTopic = (rolloutId: RolloutId): string => `rollout ${rolloutId}`;

/** The topic that says that something was queued: it may be the next to expire. */
export const QUEUE_TOPIC = "queue";

/** The topic that says that something began to run. */
export const RUNNING_TOPIC = "running";

export type Happened = { readonly event: LifecycleEvent; readonly atMs: number };

/** What an event makes of a deployment. */
export type Transition = {
  /** The columns that change. */
  readonly update: Partial<DeploymentRow>;
  /** The line in the log of changes. */
  readonly event: NewEvent;
};

/** @returns null when the event changes nothing. Pure */
export function planTransition(row: DeploymentRow, { event, atMs }: Happened): Transition | null {
  const change = step({ state: row.state, stopRequested: row.stop_requested }, event);
  if (change === null) return null;
  return {
    update: changedColumns(row, {
      state: change.state,
      stop_requested: change.stopRequested,
      reason: change.reason ?? row.reason,
      started_ms: row.started_ms ?? (event.type === "phase" ? atMs : null),
      finished_ms: isTerminal(change.state) ? atMs : null,
      stalled_ms: null,
      // One that is queued again says that it knows nothing of the offer.
      offered_ms: event.type === "offer" ? atMs : change.state === "queued" ? null : row.offered_ms,
    }),
    event: deploymentEvent({ ...row, state: change.state, reason: change.reason }, atMs),
  };
}

/** @returns the row as it is now; the same object when the event changed nothing */
export async function applyEvent(
  transaction: CoordinatorDatabase,
  row: DeploymentRow,
  happened: Happened,
): Promise<DeploymentRow> {
  const transition = planTransition(row, happened);
  if (transition === null) return row;
  await updateDeployment(transaction, row.id, transition.update);
  await insertEvents(transaction, [transition.event]);
  return { ...row, ...transition.update };
}

/**
 * The same event to many deployments, in few statements.
 * @returns the rows as they are now, in the same order
 */
export async function applyEvents(
  transaction: CoordinatorDatabase,
  rows: readonly DeploymentRow[],
  happened: Happened,
): Promise<readonly DeploymentRow[]> {
  const planned = rows.map((row) => ({ row, transition: planTransition(row, happened) }));
  const alike = Map.groupBy(
    planned.filter(({ transition }) => transition !== null),
    ({ transition }) => JSON.stringify(transition?.update),
  );
  for (const group of alike.values()) {
    const [first] = group;
    const ids = group.map(({ row }) => row.id);
    if (first?.transition) await updateDeployments(transaction, ids, first.transition.update);
  }
  const transitions = planned.map(({ transition }) => transition).filter((transition) => transition !== null);
  await insertEvents(
    transaction,
    transitions.map(({ event }) => event),
  );
  return planned.map(({ row, transition }) => (transition === null ? row : { ...row, ...transition.update }));
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
