/** What is counted over all workspaces, for /metrics. Each costs what there is to do now, not what there ever was. */
import type { DeploymentState } from "../../deployment.ts";
import type { AgentId } from "../../names.ts";
import { jsonText } from "./dialect.ts";
import type { CoordinatorDatabase } from "./schema.ts";

export type StateCount = {
  readonly workspaceId: string;
  readonly state: DeploymentState;
  readonly count: number;
};

const LIST_MAX = 20_000;
/** All pairs of a workspace and a state. */
const COUNTS_MAX = 20_000;

/** Of deployments that have not ended. */
export async function countUnfinished(database: CoordinatorDatabase): Promise<readonly StateCount[]> {
  return await database
    .selectFrom("deployments")
    .select(({ fn }) => ["workspace_id as workspaceId", "state", fn.countAll<number>().as("count")])
    .where("finished_ms", "is", null)
    .groupBy(["workspace_id", "state"])
    .orderBy("workspace_id")
    .limit(COUNTS_MAX)
    .execute();
}

/** Changes of deployments between two events, by what they changed to. */
export async function countChanges(
  database: CoordinatorDatabase,
  between: { readonly afterId: number; readonly throughId: number; readonly states: readonly DeploymentState[] },
): Promise<readonly StateCount[]> {
  const state = jsonText("data", "state");
  const rows = await database
    .selectFrom("events")
    .select(({ fn }) => ["workspace_id as workspaceId", state.as("state"), fn.countAll<number>().as("count")])
    .where("id", ">", between.afterId)
    .where("id", "<=", between.throughId)
    .where("kind", "=", "deployment")
    .where(state, "in", between.states)
    .groupBy(["workspace_id", state])
    .orderBy("workspace_id")
    .limit(COUNTS_MAX)
    .execute();
  return rows.flatMap(({ state: text, ...row }) => {
    const known = between.states.find((candidate) => candidate === text);
    return known === undefined ? [] : [{ ...row, state: known }];
  });
}

/** The id of the newest event; 0 when there is none. */
export async function findLastEventId(database: CoordinatorDatabase): Promise<number> {
  const row = await database.selectFrom("events").select("id").orderBy("id", "desc").limit(1).executeTakeFirst();
  return row?.id ?? 0;
}

export type SeenAgent = { readonly id: AgentId; readonly workspaceId: string; readonly lastSeenMs: number };

/** Not those that were removed. */
export async function listSeenAgents(database: CoordinatorDatabase): Promise<readonly SeenAgent[]> {
  return await database
    .selectFrom("agents")
    .select(["id", "workspace_id as workspaceId", "last_seen_ms as lastSeenMs"])
    .where("removed_ms", "is", null)
    .orderBy("id")
    .limit(LIST_MAX)
    .execute();
}
