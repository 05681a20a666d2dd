/** Forgets tokens that were revoked, or expired, long ago, and that no agent and no rollout is known by any more. */
import { deleteDeadTokens } from "../database/retention.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type RecurringDeps, startRecurring } from "../recurring.ts";

/** As long as the audit log is kept by default, which names tokens by their ids. */
export const TOKENS_KEPT_MS = 400 * 24 * 3_600_000;
const INTERVAL_MS = 6 * 3_600_000;
const BATCH = 500;

export function startTokenRetention(deps: RecurringDeps & { readonly database: CoordinatorDatabase }): AsyncDisposable {
  return startRecurring(deps, {
    what: "forget old tokens",
    topics: [],
    run: async (signal) => {
      const nowMs = deps.clock.nowMs();
      const which = { beforeMs: nowMs - TOKENS_KEPT_MS, limit: BATCH };
      while (!signal.aborted && (await deleteDeadTokens(deps.database, which)) === BATCH);
      return nowMs + INTERVAL_MS;
    },
  });
}
