/**
 * How calls reach a coordinator: over HTTP (a port or the control socket), or handed to one that this process opened
 * itself because none runs on its data directory.
 */
import { connect } from "node:net";
import { z } from "zod";
import { followEventSchema } from "../../api/deployments.ts";
import { streamEventSchema } from "../../api/events.ts";
import { describeError, NixdeployError } from "../../errors.ts";
import { parseAnswer, readAnswerText } from "../../http/answer.ts";
import { createHttpClient, type HttpClient, type HttpClientOptions, type PutRequest } from "../../http/client.ts";
import type { ServerSentEvent } from "../../http/event-stream.ts";
import { failureOfAnswer } from "../../http/failure.ts";
import type { FollowMessage } from "../follow/follow.ts";
import type { StreamMessage } from "../follow/watch-events.ts";
import type { CacheReader } from "../nix-files/cache-file.ts";
import { readBounded } from "../read-bounded.ts";
import { type CallApi, formatApiPath } from "./api-call.ts";

export type HttpTransportOptions = HttpClientOptions & {
  /** Without a slash at its end. */
  readonly url: string;
  /** None is needed over the control socket. */
  readonly token?: string;
};

type EventsRequest = { readonly path: string; readonly lastEventId: string | null; readonly signal: AbortSignal };
type FileOptions = Parameters<CacheReader["readFile"]>[1];

export type HttpTransport = AsyncDisposable & {
  readonly call: CallApi;
  /** PUT of bytes; 409 is an answer too. Sent once. */
  putBody<T>(request: Pick<PutRequest<T>, "body" | "schema" | "signal"> & { readonly path: string }): Promise<{
    readonly status: number;
    readonly answer: T;
  }>;
  /** Null for a 404. @throws NixdeployError "remote" when it is larger than `bytesMax` */
  readFile(request: FileOptions & { readonly path: string }): Promise<Uint8Array | null>;
  openEvents(request: EventsRequest): AsyncIterable<FollowMessage>;
  /** The stream of all changes. */
  openChanges(request: EventsRequest): AsyncIterable<StreamMessage>;
};

export function createHttpTransport(options: HttpTransportOptions): HttpTransport {
  const http = createHttpClient(options);
  const { url, token } = options;
  return {
    async call({ path, query, schema, idempotencyKey, ...request }) {
      const once =
        idempotencyKey === undefined
          ? {}
          : { isIdempotent: true, patienceMs: RESTART_MAX_MS, headers: keyHeader(idempotencyKey) };
      const target = `${url}${formatApiPath({ path, ...(query === undefined ? {} : { query }) })}`;
      const { answer } = await http.requestJson({ ...request, ...once, url: target, token, schema });
      return answer;
    },
    putBody: ({ path, ...request }) =>
      http.putBody({ ...request, url: `${url}${path}`, token, acceptStatuses: [CONFLICT] }),
    readFile: ({ path, ...rest }) => readFile(http, { ...rest, url: `${url}${path}`, token }),
    async *openEvents({ path, ...rest }) {
      for await (const event of http.openEventStream({ ...rest, url: `${url}${path}`, token })) {
        const message = parseFollowMessage(event);
        if (message !== null) yield message;
      }
    },
    async *openChanges({ path, ...rest }) {
      for await (const { id, event, data } of http.openEventStream({ ...rest, url: `${url}${path}`, token })) {
        const parsed = streamEventSchema.safeParse({ event, data: parseJsonOrNull(data) });
        // One that this version does not know is passed over.
        if (parsed.success) yield { id, event: parsed.data };
      }
    },
    [Symbol.asyncDispose]: () => http[Symbol.asyncDispose](),
  };
}

/** Whoever has asked for a rollout does not know whether it exists: in this time a coordinator that restarts is back. */
const RESTART_MAX_MS = 60_000;
const keyHeader = (key: string) => ({ "idempotency-key": key });
const CONFLICT = 409;
const FILE_SILENCE_MAX_MS = 60_000;
const NOT_FOUND = 404;

/** The calls of a coordinator that takes requests in this process. */
export function createFetchCallApi(answerRequest: (request: Request) => Promise<Response>): CallApi {
  return async ({ method, path, query, body, schema, idempotencyKey, signal }) => {
    const url = `http://localhost${formatApiPath({ path, ...(query === undefined ? {} : { query }) })}`;
    const content = body === undefined ? {} : { body: JSON.stringify(body) };
    const once = idempotencyKey === undefined ? {} : keyHeader(idempotencyKey);
    const headers = { "content-type": "application/json", ...once };
    const response = await answerRequest(new Request(url, { method, headers, signal, ...content }));
    const contentType = response.headers.get("content-type") ?? "";
    const answer = { status: response.status, contentType, location: null, text: await response.text() };
    if (!response.ok) throw failureOfAnswer(answer, SOURCE_HERE);
    return parseAnswer(answer, schema, SOURCE_HERE);
  };
}

const SOURCE_HERE = "the data directory";

/**
 * Whether somebody listens on this Unix socket.
 * @throws NixdeployError "host" when this user may not ask
 */
export function probeSocket(path: string, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const socket = connect(path);
    const settle = (finish: () => void) => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      finish();
    };
    const onAbort = () => settle(() => reject(signal.reason));
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("connect", () => settle(() => resolve(true)));
    socket.once("error", (error: NodeJS.ErrnoException) =>
      settle(() => {
        if (["ENOENT", "ECONNREFUSED", "ENOTDIR"].includes(error.code ?? "")) return resolve(false);
        reject(
          new NixdeployError("host", `cannot connect to ${path}: ${describeError(error)}`, {
            hint: "Run this as the user that runs `nixdeploy serve`, or as root.",
            cause: error,
          }),
        );
      }),
    );
  });
}

async function readFile(
  http: HttpClient,
  { bytesMax, ...request }: FileOptions & { readonly url: string; readonly token: string | undefined },
): Promise<Uint8Array | null> {
  await using answer = await http.openBody({ silenceMaxMs: FILE_SILENCE_MAX_MS, ...request });
  const source = new URL(request.url).origin;
  if (answer.status === NOT_FOUND) return null;
  if (answer.status !== 200) {
    const contentType = answer.headers.get("content-type") ?? "";
    const text = await readAnswerText(answer.body, source);
    throw failureOfAnswer({ status: answer.status, contentType, location: null, text }, source);
  }
  const bytes = await readBounded(answer.body, bytesMax);
  if (bytes !== null) return bytes;
  throw new NixdeployError("remote", `cannot read a file from ${source}: it is larger than ${bytesMax} bytes`);
}

const EVENT_NAMES: ReadonlySet<string> = new Set(followEventSchema.options.map((option) => option.shape.event.value));

/** Null for an event that this version does not know. @throws NixdeployError "remote" when it has another shape */
function parseFollowMessage({ id, event, data }: ServerSentEvent): FollowMessage | null {
  if (!EVENT_NAMES.has(event)) return null;
  const parsed = followEventSchema.safeParse({ event, data: parseJsonOrNull(data) });
  if (parsed.success) return { id, event: parsed.data };
  throw new NixdeployError("remote", `cannot follow: the coordinator sent a ${event} event of another shape`, {
    details: [z.prettifyError(parsed.error)],
    hint: "Do the versions of nixdeploy here and there fit together?",
  });
}

function parseJsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // No schema takes null: it is refused as an event of another shape.
    return null;
  }
}
