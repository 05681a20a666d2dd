/**
 * Sends what webhooks have to send: one delivery after the other for each workspace, several workspaces at once. Wakes up
 * when something happened and when a try is due. A receiver that is slow or away holds up its own workspace alone, and
 * what waits for it waits in the database.
 */
import { describeError } from "../../errors.ts";
import type { Bus } from "../bus.ts";
import { ANY_TOPIC } from "../bus.ts";
import { findLastEventId } from "../database/counts.ts";
import { listWebhooks, type WebhookRow } from "../database/webhooks.ts";
import { startRecurring } from "../recurring.ts";
import { type DeliveryDeps, prepareDelivery, recordAttempt, sendDelivery } from "./deliveries.ts";

/** Between two looks, so that what happens together is sent together. */
const PAUSE_MS = 250;
/** Workspaces whose receivers are waited for at the same time: each holds one delivery in memory. */
export const AT_ONCE_MAX = 64;
/** Before the next workspace that waits has its turn. */
const TURN_DELIVERIES = 20;
/** After an error of our own, such as a full disk. */
const REST_MS = 60_000;

/** Something about a webhook changed: it may be due, or its turn is over. */
export const WEBHOOKS_TOPIC = "webhooks";

export type WebhookDeps = DeliveryDeps & { readonly bus: Bus };

export function startWebhooks(deps: WebhookDeps): AsyncDisposable {
  const turns = createTurns(deps);
  let nextLookMs = 0;
  const looking = startRecurring(deps, {
    what: "send webhooks",
    topics: [ANY_TOPIC],
    run: async () => {
      const nowMs = deps.clock.nowMs();
      // A clock that was set back must not stop it.
      if (nowMs < nextLookMs && nextLookMs - nowMs <= PAUSE_MS) return nextLookMs;
      nextLookMs = nowMs + PAUSE_MS;
      const lastId = await findLastEventId(deps.database);
      const waiting = (await listWebhooks(deps.database)).filter(({ workspace_id }) => !turns.isUnderWay(workspace_id));
      for (const webhook of turns.inOrder(waiting)) {
        if (turns.dueMs(webhook) <= nowMs) turns.begin(webhook, lastId);
      }
      const due = waiting.map((webhook) => turns.dueMs(webhook)).filter((dueMs) => dueMs > nowMs);
      return due.length === 0 ? null : Math.min(...due);
    },
  });
  return {
    async [Symbol.asyncDispose]() {
      turns.stop();
      await looking[Symbol.asyncDispose]();
      await turns.ended();
    },
  };
}

function createTurns(deps: WebhookDeps) {
  const stop = new AbortController();
  const underWay = new Map<string, Promise<void>>();
  /** The newest event of all when a workspace had nothing to send: until there is another one, it need not be asked. */
  const idleAt = new Map<string, number>();
  const restUntil = new Map<string, number>();
  let lastBegun = "";
  const run = async (workspaceId: string, lastId: number) => {
    idleAt.delete(workspaceId);
    restUntil.delete(workspaceId);
    try {
      if (await takeTurn(deps, workspaceId, stop.signal)) idleAt.set(workspaceId, lastId);
    } catch (error) {
      restUntil.set(workspaceId, deps.clock.nowMs() + REST_MS);
      if (!stop.signal.aborted) deps.log.error("cannot send a webhook", { reason: describeError(error) });
    } finally {
      underWay.delete(workspaceId);
    }
    deps.bus.publish(WEBHOOKS_TOPIC);
  };
  return {
    dueMs: ({ workspace_id, next_attempt_ms }: WebhookRow) =>
      Math.max(next_attempt_ms, restUntil.get(workspace_id) ?? 0),
    isUnderWay: (workspaceId: string) => underWay.has(workspaceId),
    /** Whoever comes behind the one that began last is first, so that all have their turn. */
    inOrder: (webhooks: readonly WebhookRow[]) => [
      ...webhooks.filter(({ workspace_id }) => workspace_id > lastBegun),
      ...webhooks.filter(({ workspace_id }) => workspace_id <= lastBegun),
    ],
    begin({ workspace_id: id, failing_since_ms }: WebhookRow, lastId: number) {
      const isIdle = failing_since_ms === null && idleAt.get(id) === lastId;
      if (stop.signal.aborted || isIdle || underWay.size >= AT_ONCE_MAX) return;
      lastBegun = id;
      underWay.set(id, run(id, lastId));
    },
    stop: () => stop.abort(new Error("the coordinator stops")),
    ended: async () => void (await Promise.all(underWay.values())),
  };
}

/** @returns whether nothing was left to be sent */
async function takeTurn(deps: WebhookDeps, workspaceId: string, signal: AbortSignal): Promise<boolean> {
  for (let turn = 0; turn < TURN_DELIVERIES && !signal.aborted; turn += 1) {
    const prepared = await prepareDelivery(deps, workspaceId);
    if (prepared.kind === "rest") return true;
    if (prepared.kind === "again") continue;
    const { delivery, webhook } = prepared;
    const attempt = await sendDelivery(deps, prepared, signal);
    // Its workspace was deleted meanwhile.
    if (attempt === null) return true;
    if (!(await recordAttempt(deps, { url: webhook.url, delivery, attempt }))) return false;
  }
  return false;
}
