/**
 * All changes in the workspaces that a caller may watch, as server-sent events. Everything comes from the database in the
 * order of its ids, so whoever was cut off goes on behind the last one he has seen. What he has missed and is not kept any
 * more he is told of (`gap`), instead of being left to believe that nothing happened.
 */
import type { Gap, StreamEvent } from "../../api/events.ts";
import type { WorkspaceName } from "../../names.ts";
import { ANY_TOPIC, type Subscription } from "../bus.ts";
import { findEventRange, loadWorkspaceEvents } from "../database/events.ts";
import type { Services } from "../services.ts";
import { eventsToDtos } from "./change-event.ts";

export type Watching = {
  /** Asked again and again: workspaces come and go, and so do rights. Null: the caller may watch no more. */
  readonly listWorkspaces: () => Promise<ReadonlyMap<string, WorkspaceName> | null>;
  /** Null: from now on. */
  readonly afterId: number | null;
  readonly signal: AbortSignal;
};

/** A comment this often keeps proxies from cutting a quiet stream, and finds out whether the token has expired. */
const HEARTBEAT_MS = 15_000;
/** Between two looks, however much happens: what comes meanwhile is sent together. */
const PAUSE_MS = 100;
const BATCH = 500;

export function streamEvents(services: Services, watching: Watching): Response {
  const hungUp = new AbortController();
  const signal = AbortSignal.any([watching.signal, hungUp.signal, services.stopping]);
  const texts = watch(services, { ...watching, signal });
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = await texts.next();
      if (next.done === true) controller.close();
      else controller.enqueue(encoder.encode(next.value));
    },
    async cancel() {
      hungUp.abort();
      await texts.return();
    },
  });
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no" },
  });
}

async function* watch(services: Services, watching: Watching): AsyncGenerator<string, void, undefined> {
  const { database } = services;
  using subscription = services.bus.subscribe(ANY_TOPIC);
  const range = await findEventRange(database);
  const gap = findGap(watching.afterId, range);
  if (gap !== null) yield formatEvent(gap.next - 1, { event: "gap", data: gap });
  let afterId = gap === null ? (watching.afterId ?? range.lastId) : gap.next - 1;
  yield formatEvent(afterId, { event: "position", data: { after: afterId } });
  for (;;) {
    const workspaces = await watching.listWorkspaces();
    if (workspaces === null) return;
    for (let rows = null; rows === null || rows.length === BATCH; ) {
      rows = await loadWorkspaceEvents(database, { workspaceIds: [...workspaces.keys()], afterId, limit: BATCH });
      afterId = rows.at(-1)?.id ?? afterId;
      const events = await eventsToDtos(database, rows, workspaces);
      if (events.length > 0) yield events.map((data) => formatEvent(data.id, { event: "change", data })).join("");
    }
    yield ": still here\n\n";
    await nextLook(services, subscription, watching.signal);
    if (watching.signal.aborted) return;
  }
}

/** What lies between the last event that was seen and the first that is there. Pure */
export function findGap(
  afterId: number | null,
  { firstId, lastId }: { readonly firstId: number; readonly lastId: number },
): Gap | null {
  // Whoever asks for all from the beginning misses nothing that he has been promised.
  if (afterId === null || afterId === 0) return null;
  if (afterId > lastId) return { after: afterId, next: lastId + 1, reason: "unknown" };
  return afterId + 1 < firstId ? { after: afterId, next: firstId, reason: "too-old" } : null;
}

async function nextLook({ clock }: Services, subscription: Subscription, signal: AbortSignal): Promise<void> {
  const deadline = new AbortController();
  const either = AbortSignal.any([signal, deadline.signal]);
  try {
    await clock.sleep(PAUSE_MS, signal);
    await Promise.race([subscription.changed(either), clock.sleep(HEARTBEAT_MS, either)]);
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    deadline.abort();
  }
}

function formatEvent(id: number, { event, data }: StreamEvent): string {
  return `id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
