/**
 * Trying again what came to nothing for want of contact alone: a deployment that was rolled back because nobody could
 * confirm it, while the version that is back did not reach the coordinator either.
 *
 *     rolled-back, fault contact ─► queued, not before 1 min ─► … ─► 5 min ─► … ─► 15 min ─► … ─► no more
 *
 * Each try is a rollout of its own, so that the first stays what it is, for whoever waits for it. Nothing is tried
 * again that was asked to stop, or that has a newer deployment behind it: those decide.
 */
import type { Fault } from "../../deployment.ts";
import type { Random } from "../../runtime.ts";
import { type DeploymentRow, findRollout, listDeployments } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { askedOf, expiryAgain, writeRollout } from "./start-rollout.ts";

const MINUTE_MS = 60_000;
/** Before the first, second and third time that it is tried again. */
export const REQUEUE_DELAYS_MS: readonly number[] = [MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS];
const DELAY_MAX_MS = Math.max(...REQUEUE_DELAYS_MS);

export type Requeue = { readonly attempt: number; readonly notBeforeMs: number };

/** @returns null when it is not tried again */
export function planRequeue(ended: {
  readonly before: Pick<DeploymentRow, "stop_requested" | "attempt" | "started_on_device">;
  readonly state: DeploymentRow["state"];
  readonly fault: Fault | null;
  readonly hasNewer: boolean;
  readonly nowMs: number;
}): Requeue | null {
  const { before, hasNewer, nowMs } = ended;
  const isWanted = before.stop_requested === null && !hasNewer && before.started_on_device === 0;
  const delayMs = REQUEUE_DELAYS_MS[before.attempt - 1];
  if (ended.state !== "rolled-back" || ended.fault !== "contact" || !isWanted || delayMs === undefined) return null;
  return { attempt: before.attempt + 1, notBeforeMs: nowMs + delayMs };
}

/**
 * How long a queued deployment must still wait, in milliseconds; 0 when it may go. A clock that was set back does not
 * make it wait for longer than any delay.
 */
export function waitMsOf({ not_before_ms }: Pick<DeploymentRow, "not_before_ms">, nowMs: number): number {
  const waitMs = (not_before_ms ?? 0) - nowMs;
  return waitMs <= 0 || waitMs > DELAY_MAX_MS ? 0 : waitMs;
}

/** In the transaction of the outcome. @param before the deployment as it was when its outcome came */
export async function requeueIfWanted(
  transaction: CoordinatorDatabase,
  ended: { readonly before: DeploymentRow; readonly after: DeploymentRow },
  { nowMs, random }: { readonly nowMs: number; readonly random: Random },
): Promise<void> {
  const { before, after } = ended;
  // Nearly always: asked before the database is.
  if (planRequeue({ before, state: after.state, fault: after.fault, hasNewer: false, nowMs }) === null) return;
  const [latest] = await listDeployments(transaction, { agentIds: [after.agent_id], limit: 1 });
  const hasNewer = latest?.number !== after.number;
  const plan = planRequeue({ before, state: after.state, fault: after.fault, hasNewer, nowMs });
  if (plan === null) return;
  const rollout = await findRollout(transaction, after.rollout_id);
  if (rollout === null) throw new Error(`deployment ${after.id} belongs to no rollout`);
  const count = `${before.attempt} of ${REQUEUE_DELAYS_MS.length}`;
  const wanted = {
    workspace_id: rollout.workspace_id,
    token_id: rollout.token_id,
    description: `tried again (${count}) because the coordinator was out of reach: deployment ${after.id}`,
    origin: rollout.origin,
    deployments: [
      {
        ...askedOf(after),
        retry_of: after.id,
        attempt: plan.attempt,
        not_before_ms: plan.notBeforeMs,
        lifts_quarantine: after.lifts_quarantine,
        expires_ms: expiryAgain(after, nowMs),
      },
    ],
  };
  await writeRollout(transaction, { wanted, nowMs, random });
}
