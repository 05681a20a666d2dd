/**
 * The one HTTP client: calls of an API, bodies and event streams by fetch, uploads in pieces (pieces.ts). Nothing else in
 * the program opens an HTTP connection (websockets have their own file).
 *
 * Bodies are fetched with `decompress: false`, so that what is counted and hashed is what was on the wire.
 *
 * Does not follow redirects of API calls (the token would go along), and does not judge the status of a body: its
 * reader knows what a 404 of a cache means. No error text holds a header, a query or a token.
 */
import type { z } from "zod";
import { type BackoffLimits, fullJitterMs } from "../backoff.ts";
import { NixdeployError } from "../errors.ts";
import { type Logger, silentLogger } from "../log.ts";
import type { Clock, Random } from "../runtime.ts";
import { parseAnswer, readAnswerText } from "./answer.ts";
import type { BodyAnswer, BodyRequest } from "./body.ts";
import type { ServerSentEvent } from "./event-stream.ts";
import { type EventStreamRequest, readEventStream } from "./events.ts";
import {
  type Answer,
  failureOfAnswer,
  failureOfConnection,
  failureOfProxy,
  HttpFailure,
  nameSource,
  type Peer,
  silentFailure,
} from "./failure.ts";
import { createPieceSender, type Incoming, type OutgoingPieces, PIECE_BYTES, type PieceSender } from "./pieces.ts";
import { type NetworkSettings, readNetworkSettings } from "./settings.ts";
import { createSilenceLimit, type SilenceLimit } from "./silence.ts";

/** The silences after which a call is given up; docs/networks.md has them all. */
const CALL_SILENCE_MAX_MS = 30_000;
/** For a part of an upload: a few MB may wait in the system's buffers when the last byte has left our hands. */
const PUT_SILENCE_MAX_MS = 2 * 60_000;
/** From the request to the headers of a body. */
const HEADERS_SILENCE_MAX_MS = 30_000;
const ATTEMPTS_MAX = 4;
const BACKOFF: BackoffLimits = { baseMs: 250, maxMs: 4_000 };
const REDIRECTS_MAX = 5;
const PROXY_LOGIN_WANTED = 407;
/**
 * Without it Bun's fetch looks into the environment by itself, and reads NO_PROXY in another way than we do. A bare
 * object, because its types do not know.
 */
const PAST_ALL_PROXIES: object = { proxy: false };

export type HttpClientOptions = {
  readonly userAgent: string;
  /** For proxies and certificate authorities (settings.ts). */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  /** All connections go to this unix socket, whatever the URL says. */
  readonly socketPath?: string;
  readonly log?: Logger;
};

type Call<T> = {
  readonly url: string;
  readonly token?: string | undefined;
  /** What an accepted answer must look like; an empty body counts as null (`z.null()`). */
  readonly schema: z.ZodType<T>;
  /** Answers with these statuses are returned like the 2xx ones. */
  readonly acceptStatuses?: readonly number[];
  readonly signal: AbortSignal;
  /** For one try: how long nothing may move, of the request or of its answer. Default 30 s, for `putBody` 2 minutes. */
  readonly silenceMaxMs?: number;
};

export type JsonRequest<T> = Call<T> & {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Sent as JSON; undefined: no body. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** May be sent again when the answer got lost. Default: for GET only. */
  readonly isIdempotent?: boolean;
  /** For how long it is sent again once it may have been carried out, in milliseconds. Else, and by default: four tries. */
  readonly patienceMs?: number;
};
export type PutRequest<T> = Call<T> & { readonly body: Uint8Array };
export type PostRequest = {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** From the request to the head of its answer. */
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
};
/** The body of the answer is nobody's business; `redirectsTo` is an origin, null without a redirect. */
export type PostAnswer = { readonly status: number; readonly redirectsTo: string | null };
export type JsonAnswer<T> = { readonly status: number; readonly answer: T };

/**
 * Every call @throws NixdeployError: "unreachable" without an answer, in time or at all; the kind that the status
 * stands for (failure.ts); "remote" for an answer of another shape · the signal's reason when it is aborted.
 */
export type HttpClient = AsyncDisposable & {
  requestJson<T>(request: JsonRequest<T>): Promise<JsonAnswer<T>>;
  /** Uploads bytes; sent once. */
  putBody<T>(request: PutRequest<T>): Promise<JsonAnswer<T>>;
  /** Sends bytes to somebody who is no coordinator, once, without a token, and looks at the status of the answer alone. */
  postBody(request: PostRequest): Promise<PostAnswer>;
  /** Resolves when the headers are there, whatever the status. Follows redirects; the token stays with its origin. */
  openBody(request: BodyRequest): Promise<BodyAnswer>;
  /** Ends when the server ends the stream; throws "unreachable" when it breaks or falls silent. */
  openEventStream(request: EventStreamRequest): AsyncIterable<ServerSentEvent>;
};

export function createHttpClient(options: HttpClientOptions): HttpClient {
  const settings = readNetworkSettings(options.env);
  const pieces = createPieceSender(settings, options.socketPath);
  const parts = { options, settings, pieces };
  return {
    requestJson: (request) => requestJson(parts, request),
    putBody: ({ body, ...call }) => {
      const headers = { "content-type": "application/octet-stream" };
      return exchange(parts, { silenceMaxMs: PUT_SILENCE_MAX_MS, ...call, method: "PUT", headers, body });
    },
    postBody: (request) => postBody(parts, request),
    openBody: (request) => openBody(parts, request),
    openEventStream: (request) => {
      const source = describePeer(parts, request.url).source;
      return readEventStream({ request, source, open: (body) => openBody(parts, body) });
    },
    [Symbol.asyncDispose]: () => pieces.close(),
  };
}

type Parts = {
  readonly options: HttpClientOptions;
  readonly settings: NetworkSettings;
  readonly pieces: PieceSender;
};

async function requestJson<T>(parts: Parts, request: JsonRequest<T>): Promise<JsonAnswer<T>> {
  const { method, body, isIdempotent = method === "GET", patienceMs = 0, signal } = request;
  const { clock, random, log = silentLogger } = parts.options;
  const outgoing = {
    ...request,
    headers: { ...request.headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? null : JSON.stringify(body),
  };
  const begunMs = clock.monotonicMs();
  let mayHaveArrived = false;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await exchange(parts, outgoing);
    } catch (error) {
      const mayRepeat = isIdempotent && error instanceof HttpFailure && error.isTransient;
      if (mayRepeat) mayHaveArrived ||= error.mayHaveArrived;
      const leftMs = mayHaveArrived ? begunMs + patienceMs - clock.monotonicMs() : 0;
      if (!mayRepeat || (attempt >= ATTEMPTS_MAX && leftMs <= 0)) throw error;
      log.debug("request failed, trying again", { reason: error.message, attempt });
      if (attempt === ATTEMPTS_MAX) log.warn(`${error.message}; trying again for ${Math.ceil(leftMs / 1_000)} s`);
    }
    await clock.sleep(fullJitterMs(attempt - 1, random.fraction(), BACKOFF), signal);
  }
}

type Outgoing<T> = Call<T> & {
  readonly method: JsonRequest<T>["method"];
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array | null;
};

/** One try of one call. */
async function exchange<T>(parts: Parts, call: Outgoing<T>): Promise<JsonAnswer<T>> {
  const { signal, silenceMaxMs = CALL_SILENCE_MAX_MS } = call;
  const peer = describePeer(parts, call.url);
  using limit = limitSilence(parts, { peer, silenceMaxMs, signal });
  let answer: Answer;
  try {
    answer = await send(parts, call, limit);
  } catch (error) {
    signal.throwIfAborted();
    limit.signal.throwIfAborted();
    throw error instanceof NixdeployError ? error : failureOfConnection(error, peer);
  }
  const isAccepted = Math.floor(answer.status / 100) === 2 || call.acceptStatuses?.includes(answer.status) === true;
  if (!isAccepted) {
    throw failureOfAnswer(answer, peer.source);
  }
  return { status: answer.status, answer: parseAnswer(answer, call.schema, peer.source) };
}

async function send<T>(parts: Parts, call: Outgoing<T>, limit: SilenceLimit): Promise<Answer> {
  const bytes = call.body === null ? null : toBuffer(call.body);
  const headers = { ...createHeaders(parts, call.token), accept: "application/json", ...call.headers };
  const outgoing = { url: new URL(call.url), method: call.method, headers };
  const isLarge = bytes !== null && bytes.length > PIECE_BYTES;
  const answer = await (isLarge
    ? parts.pieces.send({ ...outgoing, bytes }, limit)
    : sendAtOnce(parts, { ...outgoing, bytes }, limit));
  limit.progressed();
  const peer = describePeer(parts, call.url);
  // Without TLS the proxy's own answers come like the server's.
  if (answer.status === PROXY_LOGIN_WANTED && peer.isThroughProxy) throw failureOfProxy(peer.source, answer.status);
  const text = answer.body === null ? "" : await readAnswerText(limit.watch(answer.body), peer.source);
  const { status, contentType, location } = answer;
  return { status, contentType: contentType ?? "", location, text };
}

async function sendAtOnce(
  parts: Parts,
  outgoing: Omit<OutgoingPieces, "bytes"> & { readonly bytes: Buffer | null },
  limit: SilenceLimit,
): Promise<Incoming> {
  const { url, method, headers, bytes } = outgoing;
  const response = await fetchOnce(parts, url, { method, headers, body: bytes, signal: limit.signal });
  return {
    status: response.status,
    contentType: response.headers.get("content-type"),
    location: response.headers.get("location"),
    body: response.body,
  };
}

function toBuffer(body: string | Uint8Array): Buffer {
  return typeof body === "string" ? Buffer.from(body) : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
}

type Silence = { readonly peer: Peer; readonly silenceMaxMs: number; readonly signal: AbortSignal };

function limitSilence({ options }: Parts, { peer, silenceMaxMs, signal }: Silence): SilenceLimit {
  const reason = () => silentFailure(peer.source, silenceMaxMs);
  return createSilenceLimit({ clock: options.clock, silenceMaxMs, reason, signal });
}

function createHeaders({ options }: Parts, token: string | undefined): Record<string, string> {
  return { "user-agent": options.userAgent, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) };
}

/** How messages name the other side. */
function describePeer({ options, settings }: Parts, url: string): Peer {
  if (options.socketPath !== undefined) return { source: options.socketPath, isThroughProxy: false };
  const target = new URL(url);
  return nameSource(target.origin, settings.findProxy(target));
}

async function postBody(parts: Parts, request: PostRequest): Promise<PostAnswer> {
  const { url, body, deadlineMs, signal } = request;
  const target = new URL(url);
  const peer = describePeer(parts, url);
  // Nothing is heard before the head of the answer, so this silence is the whole.
  using limit = limitSilence(parts, { peer, silenceMaxMs: deadlineMs, signal });
  const headers = { ...createHeaders(parts, undefined), ...request.headers };
  try {
    const sent = fetchOnce(parts, target, { method: "POST", headers, body: toBuffer(body), signal: limit.signal });
    const { status, headers: answered, body: answer } = await limit.waitFor(sent);
    await answer?.cancel();
    if (status === PROXY_LOGIN_WANTED && peer.isThroughProxy) throw failureOfProxy(peer.source, status);
    return { status, redirectsTo: redirectTarget({ status, headers: answered }, target)?.origin ?? null };
  } catch (error) {
    signal.throwIfAborted();
    limit.signal.throwIfAborted();
    throw error instanceof NixdeployError ? error : failureOfConnection(error, peer);
  }
}

async function openBody(parts: Parts, request: BodyRequest): Promise<BodyAnswer> {
  const { signal, silenceMaxMs } = request;
  const peer = describePeer(parts, request.url);
  const stop = new AbortController();
  const given = AbortSignal.any([signal, stop.signal]);
  using headers = limitSilence(parts, { peer, silenceMaxMs: HEADERS_SILENCE_MAX_MS, signal: given });
  const fail = (error: unknown): never => {
    signal.throwIfAborted();
    headers.signal.throwIfAborted();
    throw error instanceof NixdeployError ? error : failureOfConnection(error, peer);
  };
  try {
    const response = await fetchFollowing(parts, request, headers.signal);
    const limit = silenceMaxMs === undefined ? null : limitSilence(parts, { peer, silenceMaxMs, signal: given });
    return {
      status: response.status,
      headers: response.headers,
      body: readBody(response, limit, fail),
      async [Symbol.asyncDispose]() {
        limit?.[Symbol.dispose]();
        stop.abort(new Error("the answer was disposed of"));
      },
    };
  } catch (error) {
    return fail(error);
  }
}

async function* readBody(
  { body }: Response,
  limit: SilenceLimit | null,
  fail: (error: unknown) => never,
): AsyncGenerator<Uint8Array> {
  try {
    if (body !== null) yield* limit === null ? body : limit.watch(body);
  } catch (error) {
    fail(error);
  }
}

async function fetchFollowing(parts: Parts, request: BodyRequest, signal: AbortSignal): Promise<Response> {
  let url = new URL(request.url);
  for (let redirects = 0; ; redirects += 1) {
    const isSameOrigin = url.origin === new URL(request.url).origin;
    const response = await fetchOnce(parts, url, {
      method: request.method ?? "GET",
      headers: {
        ...createHeaders(parts, isSameOrigin ? request.token : undefined),
        ...(request.rangeStart ? { range: `bytes=${request.rangeStart}-` } : {}),
        ...request.headers,
      },
      decompress: false,
      signal,
    });
    const target = request.followRedirects === false ? null : redirectTarget(response, url);
    if (target === null) {
      return response;
    }
    await response.body?.cancel();
    if (redirects === REDIRECTS_MAX || (url.protocol === "https:" && target.protocol !== "https:")) {
      const why = redirects === REDIRECTS_MAX ? "it redirects too often" : "it redirects from https to http";
      throw new NixdeployError("remote", `cannot use ${describePeer(parts, request.url).source}: ${why}`);
    }
    url = target;
  }
}

/** With our settings of the network; nothing is followed. */
async function fetchOnce({ options, settings }: Parts, url: URL, init: BunFetchRequestInit): Promise<Response> {
  const { socketPath } = options;
  const { authorities, findProxy } = settings;
  const proxy = findProxy(url);
  return await fetch(url, {
    ...init,
    redirect: "manual",
    timeout: false,
    ...(socketPath === undefined ? {} : { unix: socketPath }),
    ...(proxy === null || socketPath !== undefined ? PAST_ALL_PROXIES : { proxy }),
    ...(authorities === null ? {} : { tls: { ca: authorities } }),
  });
}

function redirectTarget({ status, headers }: Pick<Response, "status" | "headers">, url: URL): URL | null {
  return [301, 302, 303, 307, 308].includes(status) ? URL.parse(headers.get("location") ?? "", url.href) : null;
}
