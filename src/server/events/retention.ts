/** Forgets events that nobody is promised any more. The newest stays, so that its id is known. */
import { EVENTS_KEPT_MS } from "../../api/events.ts";
import { deleteEvents, findOldestEventMs } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type RecurringDeps, startRecurring } from "../recurring.ts";

const BATCH = 1_000;
/** Not more often: what is kept a little longer harms nobody. */
const PERIOD_MS = 3_600_000;

export function startEventRetention(deps: RecurringDeps & { readonly database: CoordinatorDatabase }): AsyncDisposable {
  return startRecurring(deps, {
    what: "forget old events",
    topics: [],
    run: async (signal) => {
      const nowMs = deps.clock.nowMs();
      const beforeMs = nowMs - EVENTS_KEPT_MS;
      let oldestMs = await findOldestEventMs(deps.database);
      for (let deleted = BATCH; deleted === BATCH && !signal.aborted && oldestMs !== null && oldestMs < beforeMs; ) {
        deleted = await deleteEvents(deps.database, { beforeMs, limit: BATCH });
        oldestMs = await findOldestEventMs(deps.database);
      }
      return Math.max(nowMs + PERIOD_MS, (oldestMs ?? nowMs) + EVENTS_KEPT_MS);
    },
  });
}
