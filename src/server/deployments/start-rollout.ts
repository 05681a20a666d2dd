/**
 * Writes a rollout with its deployments, inside a transaction: what each is for, whether it may be offered yet, and
 * which earlier one it tries again. What waited for the same agents gives way. Checks nothing.
 */
import { NixdeployError } from "../../errors.ts";
import { drawId, parseDeploymentId, parseRolloutId, type RolloutId } from "../../names.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { Bus } from "../bus.ts";
import { findRemovedNames } from "../database/agents.ts";
import {
  type DeploymentRow,
  insertDeployments,
  insertRollout,
  loadUnfinished,
  type RolloutRow,
} from "../database/deployments.ts";
import { insertEvents, type NewEvent } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import type { Dispatcher } from "./dispatcher.ts";
import { claimKey, type Once } from "./once.ts";
import { applyEvents, deploymentEvent, QUEUE_TOPIC, rolloutTopic } from "./transition.ts";

/** Where nobody says how long a deployment may wait for its agent. */
export const EXPIRES_AFTER_DEFAULT_MS = 30 * 24 * 3_600_000;

/** What is asked of an agent; whoever tries a deployment again asks for the same. */
export type Asked = Pick<
  DeploymentRow,
  "agent_id" | "store_path" | "mode" | "rollback_script" | "policy" | "health_checks" | "closure_size_bytes"
>;

export function askedOf(row: DeploymentRow): Asked {
  const { agent_id, store_path, mode, rollback_script, policy, health_checks, closure_size_bytes } = row;
  return { agent_id, store_path, mode, rollback_script, policy, health_checks, closure_size_bytes };
}

/** What is known of a deployment before its agent has said anything. */
export const NOTHING_HAPPENED = {
  stop_requested: null,
  reason: null,
  previous_path: null,
  finished_ms: null,
  stalled_ms: null,
  offered_ms: null,
  late_outcome: null,
  late_reason: null,
  late_ms: null,
  fetched_bytes: null,
  exit_code: null,
  phase_ms: "{}",
  confirm_window_ms: null,
  unit_changes: null,
  log_bytes: 0,
  log_truncated: 0,
  log_expired: 0,
  journal_through: 0,
  fault: null,
} as const;

/** How a deployment came about, and for how long it may wait. */
export type Attempt = Pick<DeploymentRow, "retry_of" | "attempt" | "not_before_ms" | "lifts_quarantine" | "expires_ms">;

export const FIRST_ATTEMPT: Attempt = {
  ...{ retry_of: null, attempt: 1, not_before_ms: null, lifts_quarantine: 0, expires_ms: null },
};

/** When one that asks for the same expires, after as long a wait. */
export function expiryAgain(row: Pick<DeploymentRow, "created_ms" | "expires_ms">, nowMs: number): number {
  return nowMs + (row.expires_ms === null ? EXPIRES_AFTER_DEFAULT_MS : row.expires_ms - row.created_ms);
}

export type NewRollout = Pick<RolloutRow, "workspace_id" | "token_id" | "description" | "origin"> & {
  readonly deployments: readonly (Asked & Attempt)[];
};

export type WrittenRollout = {
  readonly rollout: RolloutRow;
  /** Rollouts in which something changed, this one among them. */
  readonly touched: ReadonlySet<RolloutId>;
};

export async function writeRollout(
  transaction: CoordinatorDatabase,
  made: { readonly wanted: NewRollout; readonly nowMs: number; readonly random: Random },
): Promise<WrittenRollout> {
  const { deployments, ...facts } = made.wanted;
  const { nowMs, random } = made;
  const rollout: RolloutRow = { id: parseRolloutId(drawId(random)), created_ms: nowMs, ...facts };
  const touched = new Set([rollout.id]);
  await requireAgents(transaction, deployments);
  await insertRollout(transaction, rollout);
  await insertEvents(transaction, [rolloutEvent(rollout, deployments.length)]);
  for (const row of await makeRoom(transaction, deployments, nowMs)) touched.add(row.rollout_id);
  await insertQueued(transaction, { rollout, deployments, random });
  return { rollout, touched };
}

/** That a rollout began, before anything of its deployments. */
export function rolloutEvent(rollout: RolloutRow, deployments: number): NewEvent {
  return {
    at_ms: rollout.created_ms,
    workspace_id: rollout.workspace_id,
    kind: "rollout",
    rollout_id: rollout.id,
    deployment_id: null,
    agent_id: null,
    data: JSON.stringify({ deployments, description: rollout.description }),
  };
}

/** Who was removed since the request was checked would never end what waits for it. @throws NixdeployError `conflict` */
async function requireAgents(transaction: CoordinatorDatabase, deployments: readonly Asked[]): Promise<void> {
  const ids = deployments.map(({ agent_id }) => agent_id);
  const removed = ids.length === 0 ? [] : await findRemovedNames(transaction, ids);
  if (removed.length === 0) return;
  throw new NixdeployError("conflict", `cannot start the rollout: ${removed[0]} was removed meanwhile`);
}

/** The same in a transaction of its own; followers and agents are told after it. */
export async function startRollout(
  deps: {
    readonly writes: WriteQueue;
    readonly dispatcher: Dispatcher;
    readonly bus: Bus;
    readonly clock: Clock;
    readonly random: Random;
  },
  { once, ...wanted }: NewRollout & { readonly once: Once | null },
): Promise<RolloutRow> {
  const { random } = deps;
  const nowMs = deps.clock.nowMs();
  const { rollout, touched } = await deps.writes.write(async (transaction) => {
    const written = await writeRollout(transaction, { wanted, nowMs, random });
    await claimKey(transaction, { once, rolloutId: written.rollout.id });
    return written;
  });
  for (const rolloutId of touched) deps.bus.publish(rolloutTopic(rolloutId));
  deps.bus.publish(QUEUE_TOPIC);
  await deps.dispatcher.dispatchAll(wanted.deployments.map(({ agent_id }) => agent_id));
  return rollout;
}

/** Those that waited give way; offers that nobody has accepted yet are asked back. */
async function makeRoom(
  transaction: CoordinatorDatabase,
  asked: readonly Asked[],
  nowMs: number,
): Promise<readonly DeploymentRow[]> {
  const unfinished = await loadUnfinished(
    transaction,
    asked.map(({ agent_id }) => agent_id),
  );
  const older = [...unfinished.values()].flatMap(({ queued, running }) =>
    [queued, running?.state === "offered" ? running : null].filter((row) => row !== null),
  );
  return await applyEvents(transaction, older, { event: { type: "supersede" }, atMs: nowMs });
}

async function insertQueued(
  transaction: CoordinatorDatabase,
  made: { readonly rollout: RolloutRow; readonly deployments: readonly (Asked & Attempt)[]; readonly random: Random },
): Promise<void> {
  const { rollout, random } = made;
  const rows = made.deployments.map(
    (deployment) =>
      ({
        ...NOTHING_HAPPENED,
        ...deployment,
        id: parseDeploymentId(drawId(random)),
        rollout_id: rollout.id,
        workspace_id: rollout.workspace_id,
        state: "queued",
        created_ms: rollout.created_ms,
        started_ms: null,
        started_on_device: 0,
      }) as const,
  );
  await insertDeployments(transaction, rows);
  await insertEvents(
    transaction,
    rows.map((row) => deploymentEvent(row, rollout.created_ms)),
  );
}
