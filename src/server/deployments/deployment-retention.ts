/**
 * Forgets rollouts that ended long ago, whole: one of which half is gone would tell a wrong story. A rollout stays while any
 * of its deployments has not ended, or ended within the time that its workspace says, or is one of its agent's newest, or
 * of the newest that left something on its device: what `rollback`, `retry`, drift and followers ask for is there.
 *
 * In steps of bounded size; a rollout that was half deleted when the coordinator was killed is gone on with.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { DeploymentId, RolloutId } from "../../names.ts";
import { deleteSomeLog } from "../database/logs.ts";
import {
  type AgedRollout,
  deleteDeployments,
  deleteEmptyRollout,
  type KeptOfAgent,
  listAgedDeployments,
  listAgedRollouts,
} from "../database/retention.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { listWorkspaces } from "../database/workspaces.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import { type RecurringDeps, startRecurring } from "../recurring.ts";
import { parseWorkspaceSettings } from "../workspaces/settings.ts";

export type DeploymentRetention = KeptOfAgent & {
  /** Since the end, where the workspace does not say otherwise. */
  readonly ageMaxMs: number;
};

/** `newestLive`: as many as a rollback looks at. */
export const DEPLOYMENT_RETENTION_DEFAULT: DeploymentRetention = {
  ageMaxMs: 400 * 24 * 3_600_000,
  newest: 100,
  newestLive: 20,
};

const INTERVAL_MS = 6 * 3_600_000;
const ROLLOUTS_AT_ONCE = 100;
const DEPLOYMENTS_AT_ONCE = 100;
const LOG_CHUNKS_AT_ONCE = 16;

export type DeploymentRetentionDeps = RecurringDeps & {
  readonly database: CoordinatorDatabase;
  readonly writes: WriteQueue;
};

type Sweep = { readonly kept: DeploymentRetention; readonly signal: AbortSignal };

export function startDeploymentRetention(
  deps: DeploymentRetentionDeps,
  kept = DEPLOYMENT_RETENTION_DEFAULT,
): AsyncDisposable {
  return startRecurring(deps, {
    what: "forget old rollouts",
    topics: [],
    run: async (signal) => {
      await deleteOldRollouts(deps, { kept, signal });
      return deps.clock.nowMs() + INTERVAL_MS;
    },
  });
}

/** @returns how many. @throws the signal's reason, between two steps */
export async function deleteOldRollouts(
  deps: Pick<DeploymentRetentionDeps, "database" | "writes" | "clock">,
  sweep: Sweep,
): Promise<number> {
  let deleted = 0;
  for (const workspace of await listWorkspaces(deps.database)) {
    const ageMaxMs = parseWorkspaceSettings(workspace).deploymentRetentionMs ?? sweep.kept.ageMaxMs;
    const untilMs = deps.clock.nowMs() - ageMaxMs;
    let page: readonly AgedRollout[] = [];
    do {
      const query = { workspaceId: workspace.id, untilMs, after: page.at(-1) ?? null, limit: ROLLOUTS_AT_ONCE };
      page = await listAgedRollouts(deps.database, query);
      for (const { id } of page) {
        const deployments = await listUnlessNeeded(deps.database, { rolloutId: id, untilMs, ...sweep });
        if (deployments === null) continue;
        await deleteRollout(deps, { id, deployments, signal: sweep.signal });
        deleted += 1;
      }
    } while (page.length === ROLLOUTS_AT_ONCE);
  }
  return deleted;
}

/** Null: one of them is needed. */
async function listUnlessNeeded(
  database: CoordinatorDatabase,
  { rolloutId, untilMs, kept, signal }: Sweep & { readonly rolloutId: RolloutId; readonly untilMs: number },
): Promise<readonly DeploymentId[] | null> {
  const ids: DeploymentId[] = [];
  for (let afterNumber = 0; ; ) {
    await nextTurn();
    signal.throwIfAborted();
    const query = { rolloutId, untilMs, kept, afterNumber, limit: DEPLOYMENTS_AT_ONCE };
    const rows = await listAgedDeployments(database, query);
    if (rows.some(({ isKept }) => isKept === 1)) return null;
    ids.push(...rows.map(({ id }) => id));
    const last = rows.at(-1);
    if (last === undefined || rows.length < DEPLOYMENTS_AT_ONCE) return ids;
    afterNumber = last.number;
  }
}

async function deleteRollout(
  { writes }: Pick<DeploymentRetentionDeps, "writes">,
  what: { readonly id: RolloutId; readonly deployments: readonly DeploymentId[]; readonly signal: AbortSignal },
): Promise<void> {
  for (let from = 0; from < what.deployments.length; from += DEPLOYMENTS_AT_ONCE) {
    const ids = what.deployments.slice(from, from + DEPLOYMENTS_AT_ONCE);
    for (const id of ids) {
      const step = () =>
        writes.write((transaction) => deleteSomeLog(transaction, { id, chunksMax: LOG_CHUNKS_AT_ONCE }));
      while (!(await step())) what.signal.throwIfAborted();
      what.signal.throwIfAborted();
    }
    await writes.write((transaction) => deleteDeployments(transaction, ids));
  }
  await writes.write((transaction) => deleteEmptyRollout(transaction, what.id));
}
