/** How many agents of a workspace were connected at once at most, month by month. */
import type { Selectable } from "kysely";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type AgentPeakRow = Selectable<Schema["agent_peaks"]>;

const LIST_MAX = 10_000;

/** Leaves a higher one as it is. */
export async function raiseAgentPeak(database: CoordinatorDatabase, row: AgentPeakRow): Promise<void> {
  await database
    .insertInto("agent_peaks")
    .values(row)
    .onConflict((conflict) =>
      conflict
        .columns(["workspace_id", "month"])
        .doUpdateSet({ peak: row.peak, at_ms: row.at_ms })
        .where("agent_peaks.peak", "<", row.peak),
    )
    .execute();
}

/** The newest month first. */
export async function listAgentPeaks(
  database: CoordinatorDatabase,
  workspaceIds: readonly string[],
): Promise<readonly AgentPeakRow[]> {
  return await database
    .selectFrom("agent_peaks")
    .selectAll()
    .where("workspace_id", "in", workspaceIds)
    .orderBy("month", "desc")
    .orderBy("workspace_id")
    .limit(LIST_MAX)
    .execute();
}
