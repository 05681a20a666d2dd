/**
 * Ends what waited too long for its agent: a queued deployment expires at the time that was recorded with it, whether or
 * not the agent ever returns, and at the coordinator's start if that time fell into its absence. What an agent has been
 * offered is not touched (it is the agent's); should the offer come back, it expires then.
 */
import type { RolloutId } from "../../names.ts";
import type { Clock } from "../../runtime.ts";
import type { Bus } from "../bus.ts";
import { findNextExpiry, listDue } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type RecurringDeps, startRecurring } from "../recurring.ts";
import { applyEvent, QUEUE_TOPIC, rolloutTopic } from "./transition.ts";

/** In one transaction. */
const BATCH = 200;

export function startExpirations(deps: RecurringDeps & { readonly database: CoordinatorDatabase }): AsyncDisposable {
  return startRecurring(deps, {
    what: "end deployments that waited too long",
    topics: [QUEUE_TOPIC],
    run: async (signal) => {
      while (!signal.aborted && (await expireSome(deps)) === BATCH);
      return await findNextExpiry(deps.database);
    },
  });
}

/** @returns how many */
async function expireSome(deps: {
  readonly database: CoordinatorDatabase;
  readonly clock: Clock;
  readonly bus: Bus;
}): Promise<number> {
  const atMs = deps.clock.nowMs();
  const touched = new Set<RolloutId>();
  const rows = await deps.database.transaction().execute(async (transaction) => {
    const due = await listDue(transaction, { untilMs: atMs, limit: BATCH });
    for (const row of due) await applyEvent(transaction, row, { event: { type: "expire" }, atMs });
    return due;
  });
  for (const row of rows) touched.add(row.rollout_id);
  for (const rolloutId of touched) deps.bus.publish(rolloutTopic(rolloutId));
  return rows.length;
}
