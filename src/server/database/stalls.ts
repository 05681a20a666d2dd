/** Deployments that run, and whether they make progress: what `deployments/stalls.ts` compares and marks. */
import { sql } from "kysely";
import { type DeploymentRow, RUNNING_STATES } from "./deployments.ts";
import { insertEvents } from "./events.ts";
import type { CoordinatorDatabase } from "./schema.ts";

export type RunningDeployment = Pick<
  DeploymentRow,
  | "id"
  | "rollout_id"
  | "workspace_id"
  | "agent_id"
  | "state"
  | "policy"
  | "confirm_window_ms"
  | "journal_through"
  | "stalled_ms"
>;

/** Word for word as in the index: it is not used for values that are bound. */
const RUNNING_LITERALS = RUNNING_STATES.map((state) => sql.lit(state));
const COLUMNS = [
  "id",
  "rollout_id",
  "workspace_id",
  "agent_id",
  "state",
  "policy",
  "confirm_window_ms",
  "journal_through",
  "stalled_ms",
] as const;
/** Of as many agents as one coordinator is made for, each with one of ours and one of its own. */
const RUNNING_MAX = 40_000;

export async function listRunning(database: CoordinatorDatabase): Promise<readonly RunningDeployment[]> {
  const running = database.selectFrom("deployments").select(COLUMNS).where("state", "in", RUNNING_LITERALS);
  return await running.orderBy("number").limit(RUNNING_MAX).execute();
}

/**
 * Marks a deployment unless it has moved since it was looked at, and says so in the log of events.
 * @param change.stalledMs since when nothing came; null: something moves again. @returns whether it was marked
 */
export async function markStalled(
  transaction: CoordinatorDatabase,
  change: { readonly row: RunningDeployment; readonly stalledMs: number | null; readonly atMs: number },
): Promise<boolean> {
  const { row, stalledMs, atMs } = change;
  const { numUpdatedRows } = await transaction
    .updateTable("deployments")
    .set({ stalled_ms: stalledMs })
    .where("id", "=", row.id)
    .where("state", "=", row.state)
    .where("journal_through", "=", row.journal_through)
    .executeTakeFirstOrThrow();
  if (numUpdatedRows === 0n) return false;
  const since = stalledMs === null ? null : new Date(stalledMs).toISOString();
  await insertEvents(transaction, [
    {
      at_ms: atMs,
      workspace_id: row.workspace_id,
      kind: "progress",
      rollout_id: row.rollout_id,
      deployment_id: row.id,
      agent_id: row.agent_id,
      data: JSON.stringify({ state: row.state, stalledSince: since }),
    },
  ]);
  return true;
}

/** @returns how many deployments of these workspaces run and make no progress */
export async function countStalled(database: CoordinatorDatabase, workspaceIds: readonly string[]): Promise<number> {
  const row = await database
    .selectFrom("deployments")
    .select(({ fn }) => fn.countAll<number>().as("count"))
    .where("state", "in", RUNNING_LITERALS)
    .where("stalled_ms", "is not", null)
    .where("workspace_id", "in", workspaceIds)
    .executeTakeFirstOrThrow();
  return row.count;
}
