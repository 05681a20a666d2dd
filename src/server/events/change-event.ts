/** Rows of the log of events as the API and webhooks show them, with the names of what they are about. */
import type { ChangeEvent } from "../../api/events.ts";
import type { WorkspaceName } from "../../names.ts";
import { loadAgents } from "../database/agents.ts";
import { loadDeployments } from "../database/deployments.ts";
import type { EventRow } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

/** In the same order. @param workspaces by id; what is of others is left out */
export async function eventsToDtos(
  database: CoordinatorDatabase,
  rows: readonly EventRow[],
  workspaces: ReadonlyMap<string, WorkspaceName>,
): Promise<readonly ChangeEvent[]> {
  const agents = await loadAgents(database, distinct(rows.map((row) => row.agent_id)));
  const deployments = await loadDeployments(database, distinct(rows.map((row) => row.deployment_id)));
  const paths = new Map(deployments.map((row) => [row.id, row.store_path]));
  return rows.flatMap((row): ChangeEvent[] => {
    const workspace = workspaces.get(row.workspace_id);
    if (workspace === undefined) return [];
    return [
      {
        id: row.id,
        at: new Date(row.at_ms).toISOString(),
        workspace,
        kind: row.kind,
        agent: row.agent_id === null ? null : (agents.get(row.agent_id)?.name ?? null),
        rollout: row.rollout_id,
        deployment: row.deployment_id,
        storePath: row.deployment_id === null ? null : (paths.get(row.deployment_id) ?? null),
        data: parseData(row.data),
      },
    ];
  });
}

function distinct<Value>(values: readonly (Value | null)[]): Value[] {
  return [...new Set(values.filter((value) => value !== null))];
}

/** We wrote it: an object of plain values. */
function parseData(json: string): Record<string, unknown> {
  const value: unknown = JSON.parse(json);
  return typeof value === "object" && value !== null ? { ...value } : {};
}
