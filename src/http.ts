/**
 * The one HTTP client: calls of an API by undici, bodies and event streams by fetch. Nothing else in the program opens
 * an HTTP connection (websockets have their own file).
 *
 * fetch gets `decompress: false`, so that what is counted and hashed is what was on the wire. Under Bun the name
 * `undici` is a stub without agents; the real one is installed as `undici-real`.
 *
 * Does not follow redirects of API calls (the token would go along), and does not judge the status of a body: its
 * reader knows what a 404 of a cache means. No error text holds a header, a query or a token.
 */
import { Agent, type Dispatcher, ProxyAgent, request as requestByUndici } from "undici-real";
import type { z } from "zod";
import { type BackoffLimits, fullJitterMs } from "./backoff.ts";
import { NixdeployError } from "./errors.ts";
import type { ServerSentEvent } from "./event-stream.ts";
import { parseAnswer, readAnswerText } from "./http-answer.ts";
import type { BodyAnswer, BodyRequest } from "./http-body.ts";
import { type EventStreamRequest, readEventStream } from "./http-events.ts";
import { type Answer, failureOfAnswer, failureOfConnection, HttpFailure, silentFailure } from "./http-failure.ts";
import { type NetworkSettings, readNetworkSettings } from "./http-settings.ts";
import { type Logger, silentLogger } from "./log.ts";
import type { Clock, Random } from "./runtime.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const CALL_TIMEOUT_MS = 30_000;
/** For one part of an upload: 32 MiB over a line of half a megabit. */
const PUT_TIMEOUT_MS = 10 * 60_000;
/** From the request to the headers of a body. */
const HEADERS_TIMEOUT_MS = 30_000;
const ATTEMPTS_MAX = 4;
const BACKOFF: BackoffLimits = { baseMs: 250, maxMs: 4_000 };
const REDIRECTS_MAX = 5;

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
  /** For one try, from connecting to the last byte. */
  readonly timeoutMs?: number;
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
      return exchange(parts, { timeoutMs: PUT_TIMEOUT_MS, ...call, method: "PUT", headers, body });
    },
    openBody: (request) => openBody(parts, request),
    openEventStream: (request) => {
      const source = describeSource(parts, request.url);
      return readEventStream({ request, source, clock: options.clock, open: (body) => openBody(parts, body) });
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
  const pools = new Map<string | null, Dispatcher>();
  const createPool = (proxy: string | null): Dispatcher =>
    proxy === null || socketPath !== undefined
      ? new Agent({
          connect: { timeout: CONNECT_TIMEOUT_MS, ...ca, ...(socketPath === undefined ? {} : { socketPath }) },
        })
      : new ProxyAgent({ uri: proxy, requestTls: { timeout: CONNECT_TIMEOUT_MS, ...ca }, proxyTls: ca });
  return {
    poolFor(url: URL): Dispatcher {
      const proxy = findProxy(url);
      const pool = pools.get(proxy) ?? createPool(proxy);
      pools.set(proxy, pool);
      return pool;
    },
    async close(): Promise<void> {
      await Promise.all([...pools.values()].map((pool) => pool.destroy()));
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
  const { signal, timeoutMs = CALL_TIMEOUT_MS } = call;
  const source = describeSource(parts, call.url);
  const deadline = AbortSignal.timeout(timeoutMs);
  let answer: Answer;
  try {
    answer = await send(parts, call, AbortSignal.any([signal, deadline]));
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof NixdeployError) {
      throw error;
    }
    throw deadline.aborted ? silentFailure(source, timeoutMs) : failureOfConnection(error, source);
  }
  const isAccepted = Math.floor(answer.status / 100) === 2 || call.acceptStatuses?.includes(answer.status) === true;
  if (!isAccepted) {
    throw failureOfAnswer(answer, source);
  }
  return { status: answer.status, answer: parseAnswer(answer, call.schema, source) };
}

async function send<T>(parts: Parts, call: Outgoing<T>, signal: AbortSignal): Promise<Answer> {
  const url = new URL(call.url);
  const { statusCode, headers, body } = await requestByUndici(url, {
    dispatcher: parts.connections.poolFor(url),
    method: call.method,
    headers: { ...createHeaders(parts, call.token), accept: "application/json", ...call.headers },
    body: call.body,
    signal,
  });
  const text = await readAnswerText(body, describeSource(parts, call.url));
  const header = (value: string | string[] | undefined) => (Array.isArray(value) ? value[0] : value) ?? null;
  const contentType = header(headers["content-type"]) ?? "";
  return { status: statusCode, contentType, location: header(headers["location"]), text };
}

function createHeaders({ options }: Parts, token: string | undefined): Record<string, string> {
  return { "user-agent": options.userAgent, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) };
}

function describeSource({ options }: Parts, url: string): string {
  return options.socketPath ?? new URL(url).origin;
}

async function openBody(parts: Parts, request: BodyRequest): Promise<BodyAnswer> {
  const { signal } = request;
  const source = describeSource(parts, request.url);
  const stop = new AbortController();
  const headersArrived = new AbortController();
  parts.options.clock.sleep(HEADERS_TIMEOUT_MS, headersArrived.signal).then(
    () => stop.abort(silentFailure(source, HEADERS_TIMEOUT_MS)),
    // The headers arrived in time.
    () => {},
  );
  const fail = (error: unknown): never => {
    signal.throwIfAborted();
    throw stop.signal.reason instanceof NixdeployError ? stop.signal.reason : failureOfConnection(error, source);
  };
  try {
    const response = await fetchFollowing(parts, request, AbortSignal.any([signal, stop.signal]));
    return {
      status: response.status,
      headers: response.headers,
      body: readBody(response, fail),
      [Symbol.asyncDispose]: async () => stop.abort(new Error("the answer was disposed of")),
    };
  } catch (error) {
    return error instanceof NixdeployError ? Promise.reject(error) : fail(error);
  } finally {
    headersArrived.abort();
  }
}

async function* readBody(response: Response, fail: (error: unknown) => never): AsyncGenerator<Uint8Array> {
  try {
    yield* response.body ?? [];
  } catch (error) {
    fail(error);
  }
}

async function fetchFollowing(parts: Parts, request: BodyRequest, signal: AbortSignal): Promise<Response> {
  const { socketPath } = parts.options;
  const { authorities, findProxy } = parts.settings;
  let url = new URL(request.url);
  for (let redirects = 0; ; redirects += 1) {
    const isSameOrigin = url.origin === new URL(request.url).origin;
    const proxy = findProxy(url);
    const response = await fetch(url, {
      method: request.method ?? "GET",
      headers: {
        ...createHeaders(parts, isSameOrigin ? request.token : undefined),
        ...(request.rangeStart ? { range: `bytes=${request.rangeStart}-` } : {}),
        ...request.headers,
      },
      redirect: "manual",
      decompress: false,
      timeout: false,
      signal,
      ...(socketPath === undefined ? {} : { unix: socketPath }),
      ...(proxy === null || socketPath !== undefined ? {} : { proxy }),
      ...(authorities === null ? {} : { tls: { ca: authorities } }),
    });
    const target = redirectTarget(response, url);
    if (target === null) {
      return response;
    }
    await response.body?.cancel();
    if (redirects === REDIRECTS_MAX || (url.protocol === "https:" && target.protocol !== "https:")) {
      const why = redirects === REDIRECTS_MAX ? "it redirects too often" : "it redirects from https to http";
      throw new NixdeployError("remote", `cannot use ${describeSource(parts, request.url)}: ${why}`);
    }
    url = target;
  }
}

function redirectTarget({ status, headers }: Response, url: URL): URL | null {
  return [301, 302, 303, 307, 308].includes(status) ? URL.parse(headers.get("location") ?? "", url.href) : null;
}
