/**
 * What an agent says of a deployment that has ended here without its word: an offer that expired while it was out of
 * contact, or what a restored backup could not know to have begun. The state stays, because people were told of it; the
 * agent's word is kept beside it, once, and counts for what its machine runs.
 *
 * | ended here                                          | the device                                      |
 * | --------------------------------------------------- | ----------------------------------------------- |
 * | expired, superseded, cancelled: offered, not heard of | may have taken the offer before it was cut off |
 * | cancelled by a restore                              | may have begun after the backup was made        |
 * | degraded, because the agent knew nothing of it      | finishes what its supervisor had on record      |
 */
import type { DeploymentState, Outcome } from "../../deployment.ts";
import type { DeploymentRow } from "../database/deployments.ts";
import type { NewEvent } from "../database/events.ts";

export type LateOutcome = {
  readonly update: Pick<DeploymentRow, "late_outcome" | "late_reason" | "late_ms">;
  readonly event: NewEvent;
};

/** @returns null when the deployment goes on, or this was said before. Pure */
export function planLateOutcome(
  row: DeploymentRow,
  said: { readonly outcome: Outcome; readonly reason: string; readonly atMs: number },
): LateOutcome | null {
  if (row.finished_ms === null || row.late_outcome !== null) return null;
  const { outcome, reason, atMs } = said;
  return {
    update: { late_outcome: outcome, late_reason: reason, late_ms: atMs },
    event: {
      at_ms: atMs,
      workspace_id: row.workspace_id,
      kind: "late-outcome",
      rollout_id: row.rollout_id,
      deployment_id: row.id,
      agent_id: row.agent_id,
      data: JSON.stringify({ state: row.state, outcome, reason }),
    },
  };
}

/** What became of it on the machine, as far as is known. */
export function becameOf(row: Pick<DeploymentRow, "state" | "late_outcome">): DeploymentState {
  return row.late_outcome ?? row.state;
}
