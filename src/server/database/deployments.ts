/** Rollouts and deployments. What may change into what is decided in `lifecycle.ts`. */
import { type Insertable, type Selectable, sql, type Updateable } from "kysely";
import { DEPLOYMENT_STATES, type DeploymentState, isTerminal } from "../../deployment.ts";
import type { AgentId, DeploymentId, RolloutId } from "../../names.ts";
import { insertRows, updateRow, updateRows } from "./bulk.ts";
import { compileOnce } from "./compiled.ts";
import { listed } from "./dialect.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type RolloutRow = Selectable<Schema["rollouts"]>;
export type DeploymentRow = Selectable<Schema["deployments"]>;

/** Everything but queued and terminal: the agent has been told. */
export const RUNNING_STATES = DEPLOYMENT_STATES.filter((state) => state !== "queued" && !isTerminal(state));
const ROLLOUT_DEPLOYMENTS_MAX = 10_000;
/** Word for word as in the indexes: they are not used for values that are bound. */
const QUEUED = sql.lit<DeploymentState>("queued");
const OFFERED = sql.lit<DeploymentState>("offered");

export async function insertRollout(database: CoordinatorDatabase, row: RolloutRow): Promise<void> {
  await database.insertInto("rollouts").values(row).execute();
}

export async function findRollout(database: CoordinatorDatabase, id: RolloutId): Promise<RolloutRow | null> {
  return (await database.selectFrom("rollouts").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
}

/** The newest first. */
export async function listLatestRollouts(
  database: CoordinatorDatabase,
  query: { readonly workspaceIds: readonly string[]; readonly limit: number },
): Promise<readonly RolloutRow[]> {
  return await database
    .selectFrom("rollouts")
    .selectAll()
    .where("workspace_id", "in", query.workspaceIds)
    .orderBy("created_ms", "desc")
    .orderBy("id", "desc")
    .limit(query.limit)
    .execute();
}

/** In this order. */
export async function insertDeployments(
  database: CoordinatorDatabase,
  rows: readonly Insertable<Schema["deployments"]>[],
): Promise<void> {
  await insertRows(database, "deployments", rows);
}

const selectById = compileOnce((database, { id }: { readonly id: DeploymentId }) =>
  database.selectFrom("deployments").selectAll().where("id", "=", id),
);

export async function findDeployment(database: CoordinatorDatabase, id: DeploymentId): Promise<DeploymentRow | null> {
  return (await selectById(database, { id }))[0] ?? null;
}

export async function updateDeployment(
  database: CoordinatorDatabase,
  id: DeploymentId,
  change: Updateable<Schema["deployments"]>,
): Promise<void> {
  await updateRow(database, "deployments", { id, change });
}

/** The same change to all of them. */
export async function updateDeployments(
  database: CoordinatorDatabase,
  ids: readonly DeploymentId[],
  change: Updateable<Schema["deployments"]>,
): Promise<void> {
  if (ids.length > 0) await updateRows(database, "deployments", { ids, change });
}

/** The agent has lost its journal of this deployment: what there is of it is dropped, numbers begin at 1 again. */
export async function forgetJournal(database: CoordinatorDatabase, id: DeploymentId): Promise<void> {
  await database.deleteFrom("log_chunks").where("deployment_id", "=", id).execute();
  await updateDeployment(database, id, { journal_through: 0, log_bytes: 0, log_truncated: 0 });
}

/** The deployments of a rollout, by the names of their agents. */
export async function loadRolloutDeployments(
  database: CoordinatorDatabase,
  rolloutId: RolloutId,
): Promise<readonly DeploymentRow[]> {
  return await database
    .selectFrom("deployments")
    .innerJoin("agents", "agents.id", "deployments.agent_id")
    .selectAll("deployments")
    .where("rollout_id", "=", rolloutId)
    .orderBy("agents.name")
    .limit(ROLLOUT_DEPLOYMENTS_MAX)
    .execute();
}

/** What an agent has to do, as far as it is known here. */
export type Unfinished = {
  /** Waits for the agent. */
  readonly queued: DeploymentRow | null;
  /** The agent has been told of it. */
  readonly running: DeploymentRow | null;
  /** Started on the device itself. */
  readonly onDevice: readonly DeploymentRow[];
};

const NOTHING_UNFINISHED: Unfinished = { queued: null, running: null, onDevice: [] };

const selectUnfinishedOf = compileOnce((database, { agentIds }: { readonly agentIds: string }) =>
  database
    .selectFrom("deployments")
    .selectAll()
    .where("agent_id", "in", listed<AgentId>(agentIds))
    .where("finished_ms", "is", null)
    .orderBy("number"),
);

/** @returns those of these agents that have anything to do */
export async function loadUnfinished(
  database: CoordinatorDatabase,
  agentIds: readonly AgentId[],
): Promise<ReadonlyMap<AgentId, Unfinished>> {
  const found = new Map<AgentId, Unfinished>();
  addUnfinished(found, await selectUnfinishedOf(database, { agentIds: JSON.stringify(agentIds) }));
  return found;
}

const selectUnfinished = compileOnce((database, { agentId }: { readonly agentId: AgentId }) =>
  database
    .selectFrom("deployments")
    .selectAll()
    .where("agent_id", "=", agentId)
    .where("finished_ms", "is", null)
    .orderBy("number"),
);

/** The same of one agent. */
export async function findUnfinished(database: CoordinatorDatabase, agentId: AgentId): Promise<Unfinished> {
  const found = new Map<AgentId, Unfinished>();
  addUnfinished(found, await selectUnfinished(database, { agentId }));
  return found.get(agentId) ?? NOTHING_UNFINISHED;
}

function addUnfinished(found: Map<AgentId, Unfinished>, rows: readonly DeploymentRow[]): void {
  for (const row of rows) {
    const { agent_id } = row;
    const before = found.get(agent_id) ?? NOTHING_UNFINISHED;
    if (row.state === "queued") found.set(agent_id, { ...before, queued: row });
    else if (row.started_on_device === 0) found.set(agent_id, { ...before, running: row });
    else found.set(agent_id, { ...before, onDevice: [...before.onDevice, row] });
  }
}

/** @returns how many an agent announced since a time, counted up to `max` */
export async function countAnnounced(
  database: CoordinatorDatabase,
  query: { readonly agentId: AgentId; readonly sinceMs: number; readonly max: number },
): Promise<number> {
  const all = database.selectFrom("deployments").select("id").where("agent_id", "=", query.agentId);
  const rows = await all
    .where("started_on_device", "=", 1)
    .where("created_ms", ">=", query.sinceMs)
    .orderBy("number", "desc")
    .limit(query.max)
    .execute();
  return rows.length;
}

/** What tries this one again, the latest if there are several. */
export async function findRetry(database: CoordinatorDatabase, id: DeploymentId): Promise<DeploymentRow | null> {
  const query = database.selectFrom("deployments").selectAll().where("retry_of", "=", id);
  return (await query.orderBy("number", "desc").limit(1).executeTakeFirst()) ?? null;
}

/** Queued ones that have waited for as long as they may, the longest overdue first. */
export async function listDue(
  database: CoordinatorDatabase,
  query: { readonly untilMs: number; readonly limit: number },
): Promise<readonly DeploymentRow[]> {
  const queued = database.selectFrom("deployments").selectAll().where("state", "=", QUEUED);
  return await queued
    .where("expires_ms", "<=", query.untilMs)
    .orderBy("expires_ms")
    .orderBy("number")
    .limit(query.limit)
    .execute();
}

/** Offers that have waited for their agent's word for as long as they may. */
export async function listOverdueOffers(
  database: CoordinatorDatabase,
  { untilMs }: { readonly untilMs: number },
): Promise<readonly Pick<DeploymentRow, "id" | "agent_id">[]> {
  return await database
    .selectFrom("deployments")
    .select(["id", "agent_id"])
    .where("state", "=", OFFERED)
    .where("expires_ms", "<=", untilMs)
    .orderBy("expires_ms")
    .orderBy("number")
    .limit(ROLLOUT_DEPLOYMENTS_MAX)
    .execute();
}

/** When the next of those that are queued, or of the offers that are not overdue, expires; null when none does. */
export async function findNextExpiry(database: CoordinatorDatabase, nowMs: number): Promise<number | null> {
  const all = database.selectFrom("deployments").select("expires_ms").orderBy("expires_ms").limit(1);
  const queued = all.where("state", "=", QUEUED).where("expires_ms", "is not", null);
  const offered = all.where("state", "=", OFFERED).where("expires_ms", ">", nowMs);
  const next = [await queued.executeTakeFirst(), await offered.executeTakeFirst()];
  const times = next.map((row) => row?.expires_ms ?? null).filter((time) => time !== null);
  return times.length === 0 ? null : Math.min(...times);
}

export type RetryRow = Pick<DeploymentRow, "id" | "rollout_id" | "state" | "not_before_ms">;

const selectRetries = compileOnce((database, { ids }: { readonly ids: string }) =>
  database
    .selectFrom("deployments")
    .select(["id", "rollout_id", "state", "not_before_ms", "retry_of"])
    .where("retry_of", "in", listed<DeploymentId>(ids))
    .orderBy("number"),
);

/** What tries these again, the latest of each. */
export async function loadRetries(
  database: CoordinatorDatabase,
  ids: readonly DeploymentId[],
): Promise<ReadonlyMap<DeploymentId, RetryRow>> {
  const found = new Map<DeploymentId, RetryRow>();
  if (ids.length === 0) return found;
  for (const row of await selectRetries(database, { ids: JSON.stringify(ids) })) {
    if (row.retry_of !== null) found.set(row.retry_of, row);
  }
  return found;
}

const selectListed = compileOnce((database, { ids }: { readonly ids: string }) =>
  database.selectFrom("deployments").selectAll().where("id", "in", listed<DeploymentId>(ids)),
);

/** In no order; those that exist. */
export async function loadDeployments(
  database: CoordinatorDatabase,
  ids: readonly DeploymentId[],
): Promise<readonly DeploymentRow[]> {
  return ids.length === 0 ? [] : await selectListed(database, { ids: JSON.stringify(ids) });
}

/** Everything that has not begun to touch its machine, of every agent. */
export async function listNotBegun(database: CoordinatorDatabase): Promise<readonly DeploymentRow[]> {
  const waiting = ["queued", "offered", "fetching"] as const;
  return await database.selectFrom("deployments").selectAll().where("state", "in", waiting).orderBy("number").execute();
}

/** Newest first, of some agents or of all agents of some workspaces. `beforeNumber`: older than that one. */
export async function listDeployments(
  database: CoordinatorDatabase,
  query: ({ readonly agentIds: readonly AgentId[] } | { readonly workspaceIds: readonly string[] }) & {
    readonly beforeNumber?: number | null;
    readonly limit: number;
  },
): Promise<readonly DeploymentRow[]> {
  const everything = database.selectFrom("deployments").selectAll();
  const before = query.beforeNumber ?? null;
  const all = before === null ? everything : everything.where("number", "<", before);
  const rows =
    "agentIds" in query
      ? all.where("agent_id", "in", query.agentIds)
      : all.where("workspace_id", "in", query.workspaceIds);
  return await rows.orderBy("number", "desc").limit(query.limit).execute();
}

/** The latest deployment of each agent. */
export async function loadLatestDeployments(
  database: CoordinatorDatabase,
  agentIds: readonly AgentId[],
): Promise<ReadonlyMap<AgentId, DeploymentRow>> {
  const rows = await database
    .selectFrom("deployments")
    .selectAll()
    .where("number", "in", (query) =>
      query
        .selectFrom("deployments")
        .select(({ fn }) => fn.max("number").as("number"))
        .where("agent_id", "in", agentIds)
        .groupBy("agent_id"),
    )
    .execute();
  return new Map(rows.map((row) => [row.agent_id, row]));
}

/** Deployments that ended live, newest first, and whether one runs, wherever it was started. */
export type RecentDeployments = { readonly live: readonly DeploymentRow[]; readonly isRunning: boolean };

/** See `becameOf` in `deployments/late-outcome.ts`. */
const BECAME = sql<DeploymentState>`coalesce(late_outcome, state)`;
const ENDED_MS = sql<number>`coalesce(late_ms, finished_ms)`;
/** More than anybody tries between two that are permanent. */
const LIVE_MAX = 20;

/** What the latest deployments left on agents' machines. By their ends: one that was announced late has ended early. */
export async function loadRecentDeployments(
  database: CoordinatorDatabase,
  agentIds: readonly AgentId[],
): Promise<(agentId: AgentId) => RecentDeployments> {
  const ofAgents = database.selectFrom("deployments").where("agent_id", "in", agentIds);
  const running = await ofAgents.select("agent_id").where("state", "in", RUNNING_STATES).execute();
  const ended = ofAgents.where(BECAME, "in", ["succeeded", "degraded"]).where("mode", "!=", "dry-activate");
  const live = await database
    .selectFrom(
      ended
        .selectAll()
        .select(({ fn }) =>
          fn
            .agg<number>("row_number")
            .over((over) => over.partitionBy("agent_id").orderBy(ENDED_MS, "desc").orderBy("number", "desc"))
            .as("place"),
        )
        .as("ranked"),
    )
    .selectAll()
    .where("place", "<=", LIVE_MAX)
    .orderBy("place")
    .execute();
  const liveOf = Map.groupBy(live, (row) => row.agent_id);
  const isRunning = new Set(running.map((row) => row.agent_id));
  return (agentId) => ({ live: liveOf.get(agentId) ?? [], isRunning: isRunning.has(agentId) });
}

/** @returns how many deployments of these workspaces are in one of these states */
export async function countDeployments(
  database: CoordinatorDatabase,
  query: { readonly workspaceIds: readonly string[]; readonly states: readonly DeploymentRow["state"][] },
): Promise<number> {
  const row = await database
    .selectFrom("deployments")
    .select(({ fn }) => fn.countAll<number>().as("count"))
    .where("workspace_id", "in", query.workspaceIds)
    .where("state", "in", query.states)
    .executeTakeFirstOrThrow();
  return row.count;
}
