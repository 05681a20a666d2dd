/**
 * The one HTTP client: calls of an API, bodies and event streams by fetch, uploads by undici. Nothing else in the program
 * opens an HTTP connection (websockets have their own file).
 *
 * Bodies are fetched with `decompress: false`, so that what is counted and hashed is what was on the wire. Uploads are
 * undici's because it takes a body in pieces, with its length said before. Under Bun the name `undici` is a stub; the
 * real one is installed as `undici-real`, and loaded by the first upload: it takes 14 MB, which an agent need not have.
 *
 * Does not follow redirects of API calls (the token would go along), and does not judge the status of a body: its
 * reader knows what a 404 of a cache means. No error text holds a header, a query or a token.
 */
import { Readable } from "node:stream";
import type { Dispatcher } from "undici-real";
import type { z } from "zod";
import { type BackoffLimits, fullJitterMs } from "./backoff.ts";
import { NixdeployError } from "./errors.ts";
import type { ServerSentEvent } from "./event-stream.ts";
import { parseAnswer, readAnswerText } from "./http-answer.ts";
import type { BodyAnswer, BodyRequest } from "./http-body.ts";
import { type EventStreamRequest, readEventStream } from "./http-events.ts";
import {
  type Answer,
  failureOfAnswer,
  failureOfConnection,
  HttpFailure,
  nameSource,
  type Peer,
  silentFailure,
} from "./http-failure.ts";
import { type NetworkSettings, readNetworkSettings } from "./http-settings.ts";
import { createSilenceLimit, type SilenceLimit } from "./http-silence.ts";
import { type Logger, silentLogger } from "./log.ts";
import type { Clock, Random } from "./runtime.ts";

const CONNECT_TIMEOUT_MS = 10_000;
/** The silences after which a call is given up; a table in the README has them all. */
const CALL_SILENCE_MAX_MS = 30_000;
/** For a part of an upload: a few MB may wait in the system's buffers when the last byte has left our hands. */
const PUT_SILENCE_MAX_MS = 2 * 60_000;
/** From the request to the headers of a body. */
const HEADERS_SILENCE_MAX_MS = 30_000;
/** A body is handed to the system in such pieces: each one that is taken is progress. */
const SLICE_BYTES = 64 * 1024;
const ATTEMPTS_MAX = 4;
const BACKOFF: BackoffLimits = { baseMs: 250, maxMs: 4_000 };
const REDIRECTS_MAX = 5;
/** Of a proxy that passes on what is not encrypted, and answers in the server's place. */
const PROXY_LOGIN_STATUS = 407;
/**
 * Without it Bun's fetch looks into the environment by itself, and reads NO_PROXY in another way than we do. A bare
 * object, because its types do not know.
 */
const PAST_ALL_PROXIES: object = { proxy: false };

export type HttpClientOptions = {
  readonly userAgent: string;
  /** For proxies and certificate authorities (http-settings.ts). */
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
  /** May be sent again when the answer got lost. Default: for GET only. */
  readonly isIdempotent?: boolean;
};
export type PutRequest<T> = Call<T> & { readonly body: Uint8Array };
export type JsonAnswer<T> = { readonly status: number; readonly answer: T };

/**
 * Every call @throws NixdeployError: "unreachable" without an answer, in time or at all; the kind that the status
 * stands for (http-failure.ts); "remote" for an answer of another shape · the signal's reason when it is aborted.
 */
export type HttpClient = AsyncDisposable & {
  requestJson<T>(request: JsonRequest<T>): Promise<JsonAnswer<T>>;
  /** Uploads bytes; sent once. */
  putBody<T>(request: PutRequest<T>): Promise<JsonAnswer<T>>;
  /** Resolves when the headers are there, whatever the status. Follows redirects; the token stays with its origin. */
  openBody(request: BodyRequest): Promise<BodyAnswer>;
  /** Ends when the server ends the stream; throws "unreachable" when it breaks or falls silent. */
  openEventStream(request: EventStreamRequest): AsyncIterable<ServerSentEvent>;
};

export function createHttpClient(options: HttpClientOptions): HttpClient {
  const settings = readNetworkSettings(options.env);
  const connections = createConnections(settings, options.socketPath);
  const parts = { options, settings, connections };
  return {
    requestJson: (request) => requestJson(parts, request),
    putBody: ({ body, ...call }) => {
      const headers = { "content-type": "application/octet-stream" };
      return exchange(parts, { silenceMaxMs: PUT_SILENCE_MAX_MS, ...call, method: "PUT", headers, body });
    },
    openBody: (request) => openBody(parts, request),
    openEventStream: (request) => {
      const source = describePeer(parts, request.url).source;
      return readEventStream({ request, source, open: (body) => openBody(parts, body) });
    },
    [Symbol.asyncDispose]: () => connections.close(),
  };
}

type Parts = {
  readonly options: HttpClientOptions;
  readonly settings: NetworkSettings;
  readonly connections: ReturnType<typeof createConnections>;
};

/** One pool of connections for each way out: directly, or through a proxy. */
function createConnections({ findProxy, authorities }: NetworkSettings, socketPath: string | undefined) {
  const ca = authorities === null ? {} : { ca: authorities };
  const pools = new Map<string | null, Promise<Dispatcher>>();
  const createPool = async (proxy: string | null): Promise<Dispatcher> => {
    const { Agent, ProxyAgent } = await import("undici-real");
    return proxy === null || socketPath !== undefined
      ? new Agent({
          connect: { timeout: CONNECT_TIMEOUT_MS, ...ca, ...(socketPath === undefined ? {} : { socketPath }) },
        })
      : new ProxyAgent({ uri: proxy, requestTls: { timeout: CONNECT_TIMEOUT_MS, ...ca }, proxyTls: ca });
  };
  return {
    async poolFor(url: URL): Promise<Dispatcher> {
      const proxy = findProxy(url);
      const pool = pools.get(proxy) ?? createPool(proxy);
      pools.set(proxy, pool);
      return await pool;
    },
    async close(): Promise<void> {
      await Promise.all([...pools.values()].map(async (pool) => (await pool).destroy()));
    },
  };
}

async function requestJson<T>(parts: Parts, request: JsonRequest<T>): Promise<JsonAnswer<T>> {
  const { method, body, isIdempotent = method === "GET", signal } = request;
  const { clock, random, log = silentLogger } = parts.options;
  const outgoing = {
    ...request,
    headers: body === undefined ? {} : { "content-type": "application/json" },
    body: body === undefined ? null : JSON.stringify(body),
  };
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await exchange(parts, outgoing);
    } catch (error) {
      const mayRepeat = isIdempotent && error instanceof HttpFailure && error.isTransient;
      if (!mayRepeat || attempt === ATTEMPTS_MAX) {
        throw error;
      }
      log.debug("request failed, trying again", { reason: error.message, attempt });
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
  const outgoing = { url: new URL(call.url), method: call.method, headers, bytes };
  const isLarge = bytes !== null && bytes.length > SLICE_BYTES;
  const answer = await (isLarge ? sendInPieces(parts, outgoing, limit) : sendAtOnce(parts, outgoing, limit));
  limit.progressed();
  const peer = describePeer(parts, call.url);
  if (peer.isThroughProxy && answer.status === PROXY_LOGIN_STATUS) {
    throw failureOfConnection(new Error(`the proxy answered ${answer.status}`), peer);
  }
  const text = answer.body === null ? "" : await readAnswerText(limit.watch(answer.body), peer.source);
  const { status, contentType, location } = answer;
  return { status, contentType: contentType ?? "", location, text };
}

type OutgoingBytes = {
  readonly url: URL;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: Buffer | null;
};

type Incoming = {
  readonly status: number;
  readonly contentType: string | null;
  readonly location: string | null;
  readonly body: AsyncIterable<Uint8Array> | null;
};

async function sendAtOnce(parts: Parts, outgoing: OutgoingBytes, limit: SilenceLimit): Promise<Incoming> {
  const { url, method, headers, bytes } = outgoing;
  const response = await fetchOnce(parts, url, { method, headers, body: bytes, signal: limit.signal });
  return {
    status: response.status,
    contentType: response.headers.get("content-type"),
    location: response.headers.get("location"),
    body: response.body,
  };
}

async function sendInPieces(parts: Parts, outgoing: OutgoingBytes, limit: SilenceLimit): Promise<Incoming> {
  const { url, method, headers, bytes } = outgoing;
  const { request } = await import("undici-real");
  const answer = await request(url, {
    dispatcher: await parts.connections.poolFor(url),
    method,
    headers: { ...headers, ...(bytes === null ? {} : { "content-length": String(bytes.length) }) },
    body: bytes === null ? null : toSlices(bytes, limit),
    signal: limit.signal,
  });
  const header = (name: string) => [answer.headers[name] ?? null].flat()[0] ?? null;
  return {
    status: answer.statusCode,
    contentType: header("content-type"),
    location: header("location"),
    body: answer.body,
  };
}

function toBuffer(body: string | Uint8Array): Buffer {
  return typeof body === "string" ? Buffer.from(body) : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
}

/** So that one sees it move. */
function toSlices(bytes: Buffer, limit: SilenceLimit): Readable {
  function* slice() {
    for (let from = 0; from < bytes.length; from += SLICE_BYTES) {
      limit.progressed();
      yield bytes.subarray(from, from + SLICE_BYTES);
    }
  }
  return Readable.from(slice(), { objectMode: true, highWaterMark: 1 });
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
    const target = redirectTarget(response, url);
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

function redirectTarget({ status, headers }: Response, url: URL): URL | null {
  return [301, 302, 303, 307, 308].includes(status) ? URL.parse(headers.get("location") ?? "", url.href) : null;
}
