/** Forgets events that nobody is promised any more. The newest stays, so that its id is known. */
import { EVENTS_KEPT_MS } from "../../api/events.ts";
import { AGENTS_TOPIC } from "../agents/registry.ts";
import { deleteEvents, findOldestEventMs } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { QUEUE_TOPIC } from "../deployments/transition.ts";
import { type RecurringDeps, startRecurring } from "../recurring.ts";

const BATCH = 1_000;
/** Not more often: what is kept a little longer harms nobody. */
const PERIOD_MS = 3_600_000;

export function startEventRetention(deps: RecurringDeps & { readonly database: CoordinatorDatabase }): AsyncDisposable {
  return startRecurring(deps, {
    what: "forget old events",
    // Whatever is written first is one of these.
    topics: [AGENTS_TOPIC, QUEUE_TOPIC],
    run: async (signal) => {
      const nowMs = deps.clock.nowMs();
      const beforeMs = nowMs - EVENTS_KEPT_MS;
      let oldestMs = await findOldestEventMs(deps.database);
      for (let deleted = BATCH; deleted === BATCH && !signal.aborted && oldestMs !== null && oldestMs < beforeMs; ) {
        deleted = await deleteEvents(deps.database, { beforeMs, limit: BATCH });
        oldestMs = await findOldestEventMs(deps.database);
      }
      return oldestMs === null ? null : Math.max(nowMs + PERIOD_MS, oldestMs + EVENTS_KEPT_MS);
    },
  });
}
