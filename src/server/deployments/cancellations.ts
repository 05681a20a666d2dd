/**
 * Cancelling: what waits is gone at once, what runs is asked to stop (its agent's word decides), and what the
 * coordinator would try again by itself is not. See the column "cancel" of `lifecycle.ts`.
 */
import { isTerminal } from "../../deployment.ts";
import { NixdeployError } from "../../errors.ts";
import type { DeploymentId } from "../../names.ts";
import type { Clock } from "../../runtime.ts";
import type { Bus } from "../bus.ts";
import { findAgent } from "../database/agents.ts";
import { type DeploymentRow, loadDeployments, loadUnfinished } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import type { Dispatcher } from "./dispatcher.ts";
import { findLatestTry, findTargets, type Target } from "./targets.ts";
import { applyEvents, rolloutTopic } from "./transition.ts";

export type CancellationDeps = {
  readonly database: CoordinatorDatabase;
  readonly writes: WriteQueue;
  readonly dispatcher: Dispatcher;
  readonly bus: Bus;
  readonly clock: Clock;
};

/**
 * @returns the deployments as they are now. @throws NixdeployError `refused` with every fault in its details when one
 * of the words names nothing that could be cancelled; nothing has been cancelled then
 */
export async function cancelDeployments(
  deps: CancellationDeps,
  request: { readonly words: readonly string[]; readonly workspaceIds: readonly string[] },
): Promise<readonly DeploymentRow[]> {
  const { targets, faults: unknown } = await findTargets(deps.database, request);
  const faults = [...unknown];
  const wanted = new Set<DeploymentId>();
  for (const target of targets) {
    const rows = await rowsOf(deps.database, target);
    const live = rows.filter((row) => !isTerminal(row.state) && row.started_on_device === 0);
    for (const row of live) wanted.add(row.id);
    if (live.length === 0) faults.push(...(await describeOver(deps.database, target, rows)));
  }
  if (faults.length > 0) {
    throw new NixdeployError("refused", "cannot cancel: nothing was cancelled", {
      details: faults,
      hint: "`nixdeploy status` shows what waits and what runs.",
    });
  }
  const atMs = deps.clock.nowMs();
  const rows = await deps.writes.write(async (transaction) => {
    // Some may have ended since.
    const now = new Map((await loadDeployments(transaction, [...wanted])).map((row) => [row.id, row]));
    const inOrder = [...wanted].map((id) => now.get(id)).filter((row) => row !== undefined);
    return await applyEvents(transaction, inOrder, { event: { type: "cancel" }, atMs });
  });
  for (const rolloutId of new Set(rows.map((row) => row.rollout_id))) deps.bus.publish(rolloutTopic(rolloutId));
  await deps.dispatcher.dispatchAll(rows.map((row) => row.agent_id));
  return rows;
}

/** Of what is named, the latest try; of an agent, whatever it has to do. */
async function rowsOf(database: CoordinatorDatabase, target: Target): Promise<readonly DeploymentRow[]> {
  if (target.kind === "agents") {
    const ids = target.agents.map(({ id }) => id);
    return [...(await loadUnfinished(database, ids)).values()].flatMap(({ queued, running, onDevice }) =>
      [running, queued, ...onDevice].filter((row) => row !== null),
    );
  }
  const latest: DeploymentRow[] = [];
  for (const row of target.kind === "deployment" ? [target.row] : target.rows) {
    latest.push(await findLatestTry(database, row));
  }
  return latest;
}

async function describeOver(
  database: CoordinatorDatabase,
  target: Target,
  rows: readonly DeploymentRow[],
): Promise<readonly string[]> {
  if (rows.length === 0) return [`${target.word}: nothing is queued or running`];
  const faults: string[] = [];
  for (const row of rows) {
    const name = (await findAgent(database, row.agent_id))?.name ?? row.agent_id;
    const why = isTerminal(row.state) ? `has ended: ${row.state}` : "was started on the device, and ends there";
    faults.push(`${name}: deployment ${row.id} ${why}`);
  }
  return faults;
}
