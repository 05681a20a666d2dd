/**
 * Following a rollout as server-sent events. Everything sent comes from the database, in the order of its row ids, so a
 * client that was cut off goes on from `Last-Event-ID` and misses nothing, a restart of the coordinator included. The
 * bus only says when to look again.
 *
 * Event id: `<last event row>.<last log chunk>`. Besides changes, a deployment is sent again when its agent has been
 * silent long enough to count as offline, because a waiting `activate` ends on that.
 */
import type { FollowEvent } from "../../api/deployments.ts";
import { isTerminal } from "../../deployment.ts";
import type { DeploymentId, RolloutId } from "../../names.ts";
import { TOKENS_TOPIC } from "../access/authentication.ts";
import type { Subscription } from "../bus.ts";
import { deploymentToDto } from "../convert.ts";
import { findAgent } from "../database/agents.ts";
import { type DeploymentRow, findDeployment, loadRolloutDeployments } from "../database/deployments.ts";
import { loadRolloutEvents } from "../database/events.ts";
import { loadLogChunks } from "../database/logs.ts";
import type { Services } from "../services.ts";
import { rolloutTopic } from "./transition.ts";

type Following = { readonly rolloutId: RolloutId; readonly only: DeploymentId | null; readonly request: Request };
type Cursor = { eventId: number; chunkId: number };

const CURSOR = /^(\d{1,15})\.(\d{1,15})$/;
/** A comment this often keeps proxies from cutting a quiet stream, and finds out whether the token has expired. */
const HEARTBEAT_MS = 15_000;
const PROGRESS_INTERVAL_MS = 500;
const BATCH = 200;

export function followRollout(services: Services, following: Following): Response {
  const hungUp = new AbortController();
  const signal = AbortSignal.any([following.request.signal, hungUp.signal]);
  const events = follow(services, { ...following, signal });
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = await events.next();
      if (next.done === true) controller.close();
      else controller.enqueue(encoder.encode(next.value));
    },
    async cancel() {
      hungUp.abort();
      await events.return();
    },
  });
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no" },
  });
}

async function* follow(
  services: Services,
  following: Following & { readonly signal: AbortSignal },
): AsyncGenerator<string, void, undefined> {
  using subscription = services.bus.subscribe(rolloutTopic(following.rolloutId), TOKENS_TOPIC);
  const cursor = parseFollowCursor(following.request.headers.get("last-event-id"));
  const sentContact = new Map<DeploymentId, string>();
  const sentProgress = new Map<DeploymentId, number>();
  for (;;) {
    // In this order a row is never older than the events taken, and its log never shorter than the row.
    const changed = await takeEvents(services, following.rolloutId, cursor);
    const rows = await loadFollowed(services, following);
    yield* newLogs(services, following, cursor);
    yield* changedDeployments(services, { rows, changed, cursor, sentContact });
    yield* changedProgress(services, rows, sentProgress);
    if (rows.every((row) => isTerminal(row.state))) {
      yield formatEvent({ event: "end", data: {} }, cursor);
      return;
    }
    yield ": still here\n\n";
    await nextChange(services, { subscription, rows, signal: following.signal });
    if (following.signal.aborted || !(await stillAllowed(services, following.request))) return;
  }
}

async function loadFollowed(services: Services, following: Following): Promise<readonly DeploymentRow[]> {
  if (following.only === null) return await loadRolloutDeployments(services.database, following.rolloutId);
  const row = await findDeployment(services.database, following.only);
  return row === null ? [] : [row];
}

async function* newLogs(services: Services, following: Following, cursor: Cursor): AsyncGenerator<string> {
  const of = following.only === null ? { rolloutId: following.rolloutId } : { deploymentId: following.only };
  for (;;) {
    const chunks = await loadLogChunks(services.database, { of, afterId: cursor.chunkId, limit: BATCH });
    for (const chunk of chunks) {
      cursor.chunkId = chunk.id;
      const agent = await agentNameOf(services, chunk.deploymentId);
      if (agent === null) continue;
      const data = { deployment: chunk.deploymentId, agent, lines: [...chunk.lines] };
      yield formatEvent({ event: "log", data }, cursor);
    }
    if (chunks.length < BATCH) return;
  }
}

/** Moves the cursor behind the newest event. @returns the deployments that have changed since */
async function takeEvents(
  services: Services,
  rolloutId: RolloutId,
  cursor: Cursor,
): Promise<ReadonlySet<DeploymentId>> {
  const changed = new Set<DeploymentId>();
  for (;;) {
    const events = await loadRolloutEvents(services.database, { rolloutId, afterId: cursor.eventId, limit: BATCH });
    for (const event of events) {
      if (event.deployment_id !== null) changed.add(event.deployment_id);
      cursor.eventId = event.id;
    }
    if (events.length < BATCH) return changed;
  }
}

/** The first time round every deployment, later those with new events or another contact. */
async function* changedDeployments(
  services: Services,
  now: {
    readonly rows: readonly DeploymentRow[];
    readonly changed: ReadonlySet<DeploymentId>;
    readonly cursor: Cursor;
    readonly sentContact: Map<DeploymentId, string>;
  },
): AsyncGenerator<string> {
  for (const row of now.rows) {
    const dto = await deploymentToDto(services, row);
    if (!now.changed.has(row.id) && now.sentContact.get(row.id) === dto.contact) continue;
    now.sentContact.set(row.id, dto.contact);
    yield formatEvent({ event: "deployment", data: dto }, now.cursor);
  }
}

async function* changedProgress(
  services: Services,
  rows: readonly DeploymentRow[],
  sent: Map<DeploymentId, number>,
): AsyncGenerator<string> {
  for (const row of rows) {
    const progress = services.registry.progress.get(row.id);
    if (progress === undefined || sent.get(row.id) === progress.bytes) continue;
    sent.set(row.id, progress.bytes);
    const agent = await agentNameOf(services, row.id);
    if (agent === null) continue;
    const { paths, pathsTotal, bytes, bytesTotal } = progress;
    const data = { deployment: row.id, agent, paths, pathsTotal, bytes, bytesTotal };
    yield `event: progress\ndata: ${JSON.stringify(data)}\n\n`;
  }
}

/** Waits for a signal, the moment an agent counts as offline, the next heartbeat, or the follower to hang up. */
async function nextChange(
  services: Services,
  wait: { readonly subscription: Subscription; readonly rows: readonly DeploymentRow[]; readonly signal: AbortSignal },
): Promise<void> {
  const deadline = new AbortController();
  const signal = AbortSignal.any([wait.signal, deadline.signal]);
  const waitMs = await untilNextLook(services, wait.rows);
  try {
    await Promise.race([wait.subscription.changed(signal), services.clock.sleep(waitMs, signal)]);
  } catch (error) {
    if (!wait.signal.aborted) throw error;
  } finally {
    deadline.abort();
  }
}

async function untilNextLook(services: Services, rows: readonly DeploymentRow[]): Promise<number> {
  if (rows.some((row) => services.registry.progress.has(row.id))) return PROGRESS_INTERVAL_MS;
  let waitMs = HEARTBEAT_MS;
  for (const row of rows) {
    if (row.state !== "queued" || services.registry.find(row.agent_id) !== null) continue;
    const agent = await findAgent(services.database, row.agent_id);
    if (agent === null) continue;
    const left = services.registry.offlineFromMs({ lastSeenMs: agent.last_seen_ms }) - services.clock.nowMs();
    if (left >= 0) waitMs = Math.min(waitMs, left + 1);
  }
  return waitMs;
}

/** A token that is revoked wakes the stream, one that has expired ends it at the next look. */
async function stillAllowed(services: Services, request: Request): Promise<boolean> {
  const authorization = request.headers.get("authorization");
  return authorization === null || (await services.authenticator.authenticate(authorization)) !== null;
}

async function agentNameOf(services: Services, deploymentId: DeploymentId) {
  const row = await findDeployment(services.database, deploymentId);
  return row === null ? null : ((await findAgent(services.database, row.agent_id))?.name ?? null);
}

/** From `Last-Event-ID`; whatever is no cursor of ours means from the beginning. */
export function parseFollowCursor(text: string | null): Cursor {
  const [, eventId, chunkId] = CURSOR.exec(text ?? "") ?? [];
  return { eventId: Number(eventId ?? 0), chunkId: Number(chunkId ?? 0) };
}

export function formatFollowCursor(cursor: Cursor): string {
  return `${cursor.eventId}.${cursor.chunkId}`;
}

function formatEvent(event: FollowEvent, cursor: Cursor): string {
  const { event: name, data } = event;
  return `id: ${formatFollowCursor(cursor)}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}
