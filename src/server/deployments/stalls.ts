/**
 * Sees deployments that make no progress, although their agents may well be connected and answer pings: a daemon that
 * never answers, a disk that is stuck, a script that hangs where nobody looks. What counts as progress is what arrives
 * here: a new phase, a line of the journal, bytes of a download.
 *
 * | state        | stalled when nothing came for                 |
 * | ------------ | --------------------------------------------- |
 * | offered      | 2 min                                         |
 * | fetching     | 5 min                                         |
 * | activating   | the activation's time limit (30 min) and 2 min |
 * | rebooting    | 15 min                                        |
 * | confirming   | the confirm window ¹ and 2 min                |
 * | rolling-back | the activation's time limit (30 min) and 2 min |
 *
 * ¹ As the device says it, which may have a setting of its own; else as it was asked for, or 60 s.
 *
 * This marks it, tells its followers, and writes an event; it never changes the state, because the agent's word decides.
 * The mark goes as soon as anything moves. After a start of the coordinator everybody's time begins anew.
 */
import { ACTIVATION_TIMEOUT_DEFAULT_MS, CONFIRM_WINDOW_DEFAULT_MS } from "../../deployment.ts";
import type { DeploymentId } from "../../names.ts";
import { activationPolicySchema } from "../../protocol.ts";
import { AGENTS_TOPIC, type AgentRegistry } from "../agents/registry.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { listRunning, markStalled, type RunningDeployment } from "../database/stalls.ts";
import { type RecurringDeps, startRecurring } from "../recurring.ts";
import { RUNNING_TOPIC, rolloutTopic } from "./transition.ts";

const MINUTE_MS = 60_000;
const MARGIN_MS = 2 * MINUTE_MS;
/** While anything runs; so much later than its time a mark may come. */
const LOOK_MS = 30_000;

/** How long nothing may arrive of a deployment in this state, milliseconds; null: it does not run. Pure. */
export function patienceMs(row: Pick<RunningDeployment, "state" | "policy" | "confirm_window_ms">): number | null {
  const { state, policy, confirm_window_ms: windowMs } = row;
  switch (state) {
    case "offered":
      return 2 * MINUTE_MS;
    case "fetching":
      return 5 * MINUTE_MS;
    case "rebooting":
      return 15 * MINUTE_MS;
    case "activating":
    case "rolling-back":
      return (readPolicy(policy).activationTimeoutMs ?? ACTIVATION_TIMEOUT_DEFAULT_MS) + MARGIN_MS;
    case "confirming":
      return (windowMs ?? readPolicy(policy).confirmWindowMs ?? CONFIRM_WINDOW_DEFAULT_MS) + MARGIN_MS;
    case "queued":
    case "succeeded":
    case "failed":
    case "rolled-back":
    case "degraded":
    case "superseded":
    case "cancelled":
    case "expired":
      return null;
    default:
      return state satisfies never;
  }
}

const readPolicy = (json: string) => activationPolicySchema.parse(JSON.parse(json));

type Watched = { readonly seen: string; readonly sinceMs: number };
type Deps = RecurringDeps & { readonly database: CoordinatorDatabase; readonly registry: AgentRegistry };

export function startStallWatch(deps: Deps): AsyncDisposable {
  let watched = new Map<DeploymentId, Watched>();
  let nextLookMs = 0;
  return startRecurring(deps, {
    what: "look for deployments that make no progress",
    topics: [RUNNING_TOPIC, AGENTS_TOPIC],
    run: async () => {
      const nowMs = deps.clock.nowMs();
      // A rollout for thousands wakes it thousands of times. A clock that was set back does not make it wait.
      if (nowMs < nextLookMs && nextLookMs - nowMs <= LOOK_MS && watched.size > 0) return nextLookMs;
      const looked = await look(deps, { watched, nowMs });
      watched = looked.next;
      nextLookMs = nowMs + LOOK_MS;
      return looked.mayChange ? nextLookMs : null;
    },
  });
}

/** @returns what to compare with the next time; and whether time alone, or an agent that is connected, may change it */
async function look(
  deps: Deps,
  { watched, nowMs }: { readonly watched: ReadonlyMap<DeploymentId, Watched>; readonly nowMs: number },
): Promise<{ readonly next: Map<DeploymentId, Watched>; readonly mayChange: boolean }> {
  const next = new Map<DeploymentId, Watched>();
  let mayChange = false;
  for (const row of await listRunning(deps.database)) {
    const seen = describeProgress(deps.registry, row);
    const before = watched.get(row.id);
    const hasMoved = before?.seen !== seen;
    const sinceMs = hasMoved ? nowMs : before.sinceMs;
    next.set(row.id, { seen, sinceMs });
    // At the first look after a start nobody knows: a mark from before it stays until something moves.
    if (row.stalled_ms !== null && hasMoved && before !== undefined) await mark(deps, row, null);
    // Of one that is marked nothing comes before its agent does.
    if (row.stalled_ms === null || deps.registry.find(row.agent_id) !== null) mayChange = true;
    const limitMs = patienceMs(row);
    const isStalled = limitMs !== null && nowMs - sinceMs >= limitMs;
    if (row.stalled_ms === null && isStalled) await mark(deps, row, sinceMs);
  }
  return { next, mayChange };
}

/** Another text whenever something has arrived. */
function describeProgress(registry: AgentRegistry, row: RunningDeployment): string {
  const progress = registry.progress.get(row.id);
  const fetched = progress === undefined ? "" : `${progress.paths} ${progress.bytes}`;
  return `${row.state} ${row.journal_through} ${fetched}`;
}

async function mark(deps: Deps, row: RunningDeployment, stalledMs: number | null): Promise<void> {
  const isMarked = await deps.database
    .transaction()
    .execute((transaction) => markStalled(transaction, { row, stalledMs, atMs: deps.clock.nowMs() }));
  if (!isMarked) return;
  if (stalledMs !== null) {
    const since = new Date(stalledMs).toISOString();
    deps.log.warn("a deployment makes no progress", { id: row.id, state: row.state, since });
  }
  deps.bus.publish(rolloutTopic(row.rollout_id));
}
