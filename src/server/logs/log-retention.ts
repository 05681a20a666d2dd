/**
 * Deletes old logs: those of deployments that ended long ago, and those that have many newer ones of the same agent
 * behind them. The deployments stay, and say that their log has expired.
 *
 * In small steps, each a transaction of a few milliseconds: a fleet's logs of a day may be gigabytes, and nobody else is
 * to wait while they go. What a step does stands in the database, so that whoever is interrupted goes on from there.
 */
import type { AgentId } from "../../names.ts";
import { listAgentIds } from "../database/agents.ts";
import { deleteSomeLog, listLogsBehind, listLogsEndedBefore } from "../database/logs.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { listWorkspaces } from "../database/workspaces.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import { type RecurringDeps, startRecurring } from "../recurring.ts";
import { parseWorkspaceSettings } from "../workspaces/settings.ts";

export type LogRetention = {
  /** Since the deployment's end, where the workspace does not say otherwise. */
  readonly ageMaxMs: number;
  /** Deployments of an agent whose logs are kept, however young the others are. */
  readonly perAgentMax: number;
};

export const LOG_RETENTION_DEFAULT: LogRetention = { ageMaxMs: 90 * 24 * 3_600_000, perAgentMax: 100 };

const INTERVAL_MS = 6 * 3_600_000;
/** Logs that are looked for at once, and agents that are looked at. */
const PAGE = 100;
/** Of one transaction: up to a megabyte each. */
const CHUNKS_MAX = 16;

export type LogRetentionDeps = RecurringDeps & {
  readonly database: CoordinatorDatabase;
  readonly writes: WriteQueue;
};

export function startLogRetention(deps: LogRetentionDeps, kept = LOG_RETENTION_DEFAULT): AsyncDisposable {
  return startRecurring(deps, {
    what: "delete old logs",
    topics: [],
    run: async (signal) => {
      await deleteOldLogs(deps, { kept, signal });
      return deps.clock.nowMs() + INTERVAL_MS;
    },
  });
}

/** @returns how many logs. @throws the signal's reason, between two steps */
export async function deleteOldLogs(
  deps: Pick<LogRetentionDeps, "database" | "writes" | "clock">,
  { kept, signal }: { readonly kept: LogRetention; readonly signal: AbortSignal },
): Promise<number> {
  const deleteAll = async (ids: Awaited<ReturnType<typeof listLogsBehind>>) => {
    for (const id of ids) {
      const step = () => deps.writes.write((transaction) => deleteSomeLog(transaction, { id, chunksMax: CHUNKS_MAX }));
      while (!(await step())) signal.throwIfAborted();
      signal.throwIfAborted();
    }
    return ids.length;
  };
  let deleted = 0;
  for (const workspace of await listWorkspaces(deps.database)) {
    const ageMaxMs = parseWorkspaceSettings(workspace).logRetentionMs ?? kept.ageMaxMs;
    const query = { workspaceId: workspace.id, untilMs: deps.clock.nowMs() - ageMaxMs, limit: PAGE };
    for (let found = PAGE; found === PAGE; deleted += found) {
      found = await deleteAll(await listLogsEndedBefore(deps.database, query));
    }
  }
  let agents: readonly AgentId[] = [];
  do {
    agents = await listAgentIds(deps.database, { after: agents.at(-1) ?? null, limit: PAGE });
    for (const agentId of agents) {
      signal.throwIfAborted();
      const query = { agentId, newest: kept.perAgentMax, limit: PAGE };
      for (let found = PAGE; found === PAGE; deleted += found) {
        found = await deleteAll(await listLogsBehind(deps.database, query));
      }
    }
  } while (agents.length === PAGE);
  return deleted;
}
