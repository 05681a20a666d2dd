/**
 * What is forgotten of the past: rollouts with their deployments, whole, and tokens that are good for nothing any more.
 * When, and how many at a time, is decided in `deployments/deployment-retention.ts` and `access/token-retention.ts`.
 */
import { sql } from "kysely";
import type { DeploymentId, RolloutId } from "../../names.ts";
import type { CoordinatorDatabase } from "./schema.ts";

export type AgedRollout = { readonly id: RolloutId; readonly created_ms: number };

/** Rollouts of a workspace that began before a time, oldest first. @param query.after behind this one */
export async function listAgedRollouts(
  database: CoordinatorDatabase,
  query: {
    readonly workspaceId: string;
    readonly untilMs: number;
    readonly after: AgedRollout | null;
    readonly limit: number;
  },
): Promise<readonly AgedRollout[]> {
  const { after } = query;
  let rows = database
    .selectFrom("rollouts")
    .select(["id", "created_ms"])
    .where("workspace_id", "=", query.workspaceId)
    .where("created_ms", "<", query.untilMs);
  if (after !== null) {
    rows = rows.where(({ eb, refTuple, tuple }) =>
      eb(refTuple("created_ms", "id"), ">", tuple(after.created_ms, after.id)),
    );
  }
  return await rows.orderBy("created_ms").orderBy("id").limit(query.limit).execute();
}

export type AgedDeployment = {
  readonly id: DeploymentId;
  readonly number: number;
  /** 1: it is still needed. */
  readonly isKept: number;
};

/** What is kept whatever its age. */
export type KeptOfAgent = {
  /** An agent's newest deployments. */
  readonly newest: number;
  /** Of those that left something on the device, which rollbacks and drift are told by. */
  readonly newestLive: number;
};

/** Deployments of a rollout in the order of their numbers, behind one of them. What an agent said late counts (`becameOf`). */
export async function listAgedDeployments(
  database: CoordinatorDatabase,
  query: {
    readonly rolloutId: RolloutId;
    readonly untilMs: number;
    readonly kept: KeptOfAgent;
    readonly afterNumber: number;
    readonly limit: number;
  },
): Promise<readonly AgedDeployment[]> {
  const { newest, newestLive } = query.kept;
  const { rows } = await sql<AgedDeployment>`
    select id, number,
      finished_ms is null
      or coalesce(late_ms, finished_ms) >= ${query.untilMs}
      or number >= coalesce(
        (select n.number from deployments n where n.agent_id = d.agent_id order by n.number desc limit 1 offset ${newest - 1}), 0)
      or (coalesce(late_outcome, state) in ('succeeded', 'degraded') and mode != 'dry-activate' and (
        select count(*) from (
          select 1 from deployments n where n.agent_id = d.agent_id and n.number > d.number
            and coalesce(n.late_outcome, n.state) in ('succeeded', 'degraded') and n.mode != 'dry-activate' limit ${newestLive}
        )) < ${newestLive})
      as isKept
    from deployments d
    where rollout_id = ${query.rolloutId} and number > ${query.afterNumber}
    order by number limit ${query.limit}`.execute(database);
  return rows;
}

/** Whose logs are gone already. What tried them again stays, and has tried nothing that is known. */
export async function deleteDeployments(transaction: CoordinatorDatabase, ids: readonly DeploymentId[]): Promise<void> {
  if (ids.length === 0) return;
  await transaction.updateTable("deployments").set({ retry_of: null }).where("retry_of", "in", ids).execute();
  await transaction.deleteFrom("deployments").where("id", "in", ids).execute();
}

/** Unless it has deployments. */
export async function deleteEmptyRollout(database: CoordinatorDatabase, id: RolloutId): Promise<void> {
  const own = database.selectFrom("deployments").select("id").where("rollout_id", "=", id);
  await database
    .deleteFrom("rollouts")
    .where("id", "=", id)
    .where(({ not, exists }) => not(exists(own)))
    .execute();
}

/**
 * Tokens that were revoked or expired before a time, some of them. Never one that something refers to, and never the first
 * admin token: without any, the next start would make one.
 * @returns how many there were
 */
export async function deleteDeadTokens(
  database: CoordinatorDatabase,
  which: { readonly beforeMs: number; readonly limit: number },
): Promise<number> {
  const { beforeMs, limit } = which;
  const { numAffectedRows = 0n } = await sql`
    delete from tokens where id in (
      select id from tokens t
      where (revoked_ms < ${beforeMs} or expires_ms < ${beforeMs})
        and id != coalesce((select id from tokens where kind = 'admin' order by created_ms, id limit 1), '')
        and not exists (select 1 from agents where admitted_by = t.id)
        and not exists (select 1 from rollouts where token_id = t.id)
        and not exists (select 1 from enrolment_requests where token_id = t.id)
      order by created_ms limit ${limit})`.execute(database);
  return Number(numAffectedRows);
}
