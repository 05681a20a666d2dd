/**
 * Following a rollout as server-sent events. Everything sent comes from the database, in the order of its row ids, so a
 * client that was cut off goes on from `Last-Event-ID` and misses nothing, a restart of the coordinator included. The
 * bus only says when to look again.
 *
 * Each state is told of, also one that had ended before anybody looked: as a `phase`, before the deployment as it is now.
 *
 * Event id: `<last event row>.<last log chunk>`, up to which everything has been sent. Besides changes, a deployment is sent
 * again when its agent has been silent long enough to count as offline, because a waiting `activate` ends on that.
 */
import type { DeploymentDto, FollowEvent } from "../../api/deployments.ts";
import { TOKENS_TOPIC } from "../access/authentication.ts";
import type { Subscription } from "../bus.ts";
import { deploymentsToDtos } from "../convert.ts";
import { loadAgents } from "../database/agents.ts";
import { type DeploymentRow, findRollout } from "../database/deployments.ts";
import { findEventRange } from "../database/events.ts";
import { findLastChunkId, loadLogChunks } from "../database/logs.ts";
import { findWorkspaceById } from "../database/workspaces.ts";
import type { Services } from "../services.ts";
import { type Cursor, type Followable, type Looked, look, type Passed, planPassed } from "./follow-look.ts";
import { FollowedDeployments } from "./followed.ts";
import { rolloutTopic } from "./transition.ts";

type Following = Followable & { readonly request: Request };
const CURSOR = /^(\d{1,15})\.(\d{1,15})$/;
/** A comment this often keeps proxies from cutting a quiet stream, and finds out whether the token has expired. */
const HEARTBEAT_MS = 15_000;
const PROGRESS_INTERVAL_MS = 500;
const PIECE_CHARACTERS = 64 * 1024;
/** Between two looks, milliseconds for each deployment that runs, so that one look is for many changes; and at most. */
const REST_MS_EACH = 1 / 40;
const REST_MAX_MS = 250;
/** So few are not worth a wait. */
const RESTLESS_MAX = 500;

export function followRollout(services: Services, following: Following): Response {
  const hungUp = new AbortController();
  const signal = AbortSignal.any([following.request.signal, hungUp.signal, services.stopping]);
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
  using followed = new FollowedDeployments(services);
  const cursor = await findCursor(services, following.request.headers.get("last-event-id"));
  for (let isFirst = true; ; isFirst = false) {
    const sent = { ...cursor };
    const { changes, rows } = await look(services, { following, followed, cursor, isFirst });
    const deployments = await deploymentsToDtos(services, rows);
    const news = planNews(deployments, changes, { followed, sentId: sent.eventId });
    await note(services, followed, { rows, deployments });
    // Its log is never shorter than what the row says.
    yield* newLogs(services, { following, followed, cursor: sent });
    cursor.chunkId = sent.chunkId;
    yield* inPieces(formatNews(news, cursor));
    yield* inPieces(changedProgress(followed));
    if (followed.liveCount === 0) {
      yield formatEvent({ event: "end", data: {} }, cursor);
      return;
    }
    yield ": still here\n\n";
    await nextChange(services, { subscription, followed, signal: following.signal });
    if (following.signal.aborted || !(await stillAllowed(services, following))) return;
  }
}

/** A database that was restored from a backup does not know the newest ids that it gave out: then, from the beginning. */
async function findCursor({ database }: Services, text: string | null): Promise<Cursor> {
  const { eventId, chunkId } = parseFollowCursor(text);
  const newest = { eventId: (await findEventRange(database)).lastId, chunkId: await findLastChunkId(database) };
  return { eventId: eventId <= newest.eventId ? eventId : 0, chunkId: chunkId <= newest.chunkId ? chunkId : 0 };
}

async function note(
  services: Services,
  followed: FollowedDeployments,
  now: { readonly rows: readonly DeploymentRow[]; readonly deployments: readonly DeploymentDto[] },
): Promise<void> {
  const agents = await loadAgents(services.database, [...new Set(now.rows.map((row) => row.agent_id))]);
  for (const [index, row] of now.rows.entries()) {
    const dto = now.deployments[index];
    const agent = agents.get(row.agent_id);
    if (dto === undefined || agent === undefined) continue;
    followed.note(row, dto, services.registry.offlineFromMs({ lastSeenMs: agent.last_seen_ms }));
  }
}

/** Up to what there is when it begins, so that a flood of lines does not hold up everything else. */
async function* newLogs(
  { database }: Services,
  now: {
    readonly following: Following;
    readonly followed: FollowedDeployments;
    readonly cursor: Cursor;
  },
): AsyncGenerator<string> {
  const { following, followed, cursor } = now;
  const of = following.only === null ? { rolloutId: following.rolloutId } : { deploymentId: following.only };
  const throughId = await findLastChunkId(database);
  while (cursor.chunkId < throughId) {
    const chunks = await loadLogChunks(database, { of, afterId: cursor.chunkId, throughId });
    if (chunks.length === 0) cursor.chunkId = throughId;
    for (const { id, deploymentId, linesJson } of chunks) {
      cursor.chunkId = id;
      const agent = followed.find(deploymentId)?.agent;
      if (agent === undefined) continue;
      const data = `{"deployment":${JSON.stringify(deploymentId)},"agent":${JSON.stringify(agent)},"lines":${linesJson}}`;
      yield `id: ${formatFollowCursor(cursor)}\nevent: log\ndata: ${data}\n\n`;
    }
  }
}

/** Thousands of events are not worth an enqueue each. */
function* inPieces(events: Iterable<string>): Generator<string> {
  let piece = "";
  for (const event of events) {
    piece += event;
    if (piece.length < PIECE_CHARACTERS) continue;
    yield piece;
    piece = "";
  }
  if (piece !== "") yield piece;
}

/** Something to send, and up to which event whoever has it knows everything. */
type News = { readonly eventId: number; readonly event: FollowEvent };

/** In the order of what happened, so that whoever is cut off after any of them misses none. Pure. */
function planNews(
  deployments: readonly DeploymentDto[],
  changes: Looked["changes"],
  known: { readonly followed: FollowedDeployments; readonly sentId: number },
): readonly News[] {
  const news = deployments.flatMap((data): News[] => {
    const own = changes.get(data.id) ?? [];
    const passed = planPassed(own, known.followed.find(data.id)?.state ?? "queued");
    const now: News = { eventId: own.at(-1)?.id ?? known.sentId, event: { event: "deployment", data } };
    return [...passed.map((each) => passedNews(data, each)), now];
  });
  return news.sort((a, b) => a.eventId - b.eventId);
}

function passedNews({ id, agent }: DeploymentDto, { state, atMs, eventId }: Passed): News {
  const data = { deployment: id, agent, state, at: new Date(atMs).toISOString() };
  return { eventId, event: { event: "phase", data } };
}

function* formatNews(news: readonly News[], { chunkId }: Cursor): Generator<string> {
  for (const { eventId, event } of news) yield formatEvent(event, { eventId, chunkId });
}

function* changedProgress(followed: FollowedDeployments): Generator<string> {
  for (const { of, progress } of followed.takeProgress()) {
    const { paths, pathsTotal, bytes, bytesTotal } = progress;
    const data = { deployment: of.id, agent: of.agent, paths, pathsTotal, bytes, bytesTotal };
    yield `event: progress\ndata: ${JSON.stringify(data)}\n\n`;
  }
}

/** Waits for a signal, the moment an agent counts as offline, the next heartbeat, or the follower to hang up. */
async function nextChange(
  { clock }: Services,
  wait: { readonly subscription: Subscription; readonly followed: FollowedDeployments; readonly signal: AbortSignal },
): Promise<void> {
  const deadline = new AbortController();
  const signal = AbortSignal.any([wait.signal, deadline.signal]);
  try {
    await Promise.race([wait.subscription.changed(signal), clock.sleep(untilNextLookMs(wait.followed), signal)]);
    const restMs = planRestMs(wait.followed.liveCount);
    if (restMs > 0) await clock.sleep(restMs, wait.signal);
  } catch (error) {
    if (!wait.signal.aborted) throw error;
  } finally {
    deadline.abort();
  }
}

function untilNextLookMs(followed: FollowedDeployments): number {
  if (followed.isDownloading) return PROGRESS_INTERVAL_MS;
  return Math.min(HEARTBEAT_MS, followed.untilNextOfflineMs() ?? HEARTBEAT_MS);
}

/** How long whoever follows so many that run lets changes gather before the next look, milliseconds. Pure. */
export function planRestMs(liveCount: number): number {
  return liveCount <= RESTLESS_MAX ? 0 : Math.min(REST_MAX_MS, liveCount * REST_MS_EACH);
}

/** A token that is revoked, or a workspace that is deleted, wakes the stream; an expiry ends it at the next look. */
async function stillAllowed(services: Services, { request, rolloutId }: Following): Promise<boolean> {
  const authorization = request.headers.get("authorization");
  if (authorization !== null && (await services.authenticator.authenticate(authorization)) === null) return false;
  const rollout = await findRollout(services.database, rolloutId);
  return rollout !== null && (await findWorkspaceById(services.database, rollout.workspace_id)) !== null;
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
