/** Which changes a webhook sends, how many in one delivery, and the bytes of it. Pure. */
import type { ChangeEvent } from "../../api/events.ts";
import { WEBHOOK_BATCH_MAX, WEBHOOK_EVENTS, type WebhookEvent, type WebhookPayload } from "../../api/webhooks.ts";
import { DEPLOYMENT_STATES, isTerminal } from "../../deployment.ts";
import type { WorkspaceName } from "../../names.ts";
import type { EventRow } from "../database/events.ts";

/** Of the changes in one delivery as they are stored; the first goes along whatever its size. */
export const BATCH_BYTES_MAX = 256 * 1024;

const ENDED: ReadonlySet<unknown> = new Set(DEPLOYMENT_STATES.filter(isTerminal));

/** As the row keeps them; "" stands for all. */
export function formatWebhookEvents(events: readonly WebhookEvent[] | null): string {
  return WEBHOOK_EVENTS.filter((event) => events?.includes(event)).join(",");
}

/** Null: all. A word that a later version wrote is passed over. */
export function parseWebhookEvents(text: string): WebhookEvent[] | null {
  return text === "" ? null : WEBHOOK_EVENTS.filter((event) => text.split(",").includes(event));
}

/** Of the changes in a delivery. We wrote it: a list of numbers. */
export function parseEventIds({ event_ids }: { readonly event_ids: string }): number[] {
  const ids: unknown = JSON.parse(event_ids);
  return Array.isArray(ids) ? ids.filter((id) => typeof id === "number") : [];
}

/** Whether a change is sent. @param wanted null: all are */
export function isWanted(row: Pick<EventRow, "kind" | "data">, wanted: readonly string[] | null): boolean {
  if (wanted === null || wanted.includes(row.kind)) return true;
  return row.kind === "deployment" && wanted.includes("outcome") && ENDED.has(stateOf(row.data));
}

function stateOf(json: string): unknown {
  const data: unknown = JSON.parse(json);
  return typeof data === "object" && data !== null && "state" in data ? data.state : undefined;
}

/**
 * The next delivery out of changes in order.
 * @returns what is in it, which may be nothing, and the last change that is dealt with by that
 */
export function takeBatch(
  rows: readonly EventRow[],
  { wanted, afterId }: { readonly wanted: readonly string[] | null; readonly afterId: number },
): { readonly batch: readonly EventRow[]; readonly throughId: number } {
  const batch: EventRow[] = [];
  let throughId = afterId;
  let bytes = 0;
  for (const row of rows) {
    if (isWanted(row, wanted)) {
      bytes += Buffer.byteLength(row.data);
      if (batch.length === WEBHOOK_BATCH_MAX || (batch.length > 0 && bytes > BATCH_BYTES_MAX)) break;
      batch.push(row);
    }
    throughId = row.id;
  }
  return { batch, throughId };
}

export function formatPayload(made: {
  readonly kind: "events" | "test";
  readonly workspace: WorkspaceName;
  readonly atMs: number;
  readonly events: readonly ChangeEvent[];
}): Uint8Array {
  const { kind, workspace, atMs, events } = made;
  const payload: WebhookPayload = {
    type: `nixdeploy.${kind}`,
    timestamp: new Date(atMs).toISOString(),
    data: { workspace, events: [...events] },
  };
  return Buffer.from(JSON.stringify(payload));
}
