/**
 * A cache of a coordinator, over HTTP: the plan call for the narinfos of a whole closure, and NAR files with Range.
 * Translates answers into the words of `nar-source.ts`; trusts nothing that it passes on.
 */
import { planAnswerSchema } from "../../../api/caches.ts";
import { NixdeployError } from "../../../errors.ts";
import type { BodyAnswer } from "../../../http/body.ts";
import type { HttpClient } from "../../../http/client.ts";
import { HttpFailure, isWebPage } from "../../../http/failure.ts";
import type { CacheName } from "../../../names.ts";
import type { Clock, Random } from "../../../runtime.ts";
import { type NarInfo, parseNarInfo } from "../../narinfo.ts";
import { NixParseError } from "../../parse-error.ts";
import type { StorePath } from "../../store-path.ts";
import type { CacheReader, NarAnswer, NarRequest } from "./nar-source.ts";
import { resolveNarUrl } from "./nar-url.ts";
import { createPatience, DENIED_MAX_MS } from "./patience.ts";

/** A coordinator that has to read 3,000 narinfos answers in well under a second; this is for slow lines. */
const PLAN_SILENCE_MAX_MS = 2 * 60_000;

export type CoordinatorCacheOptions = {
  /** Without a slash at its end. */
  readonly coordinatorUrl: string;
  readonly cacheName: CacheName;
  /** Below the coordinator's URL, such as `/cache/default`. */
  readonly cachePath: string;
  /** Asked at every request: each login renews it. */
  readonly credential: () => string;
  readonly http: Pick<HttpClient, "requestJson" | "openBody">;
  readonly clock: Clock;
  readonly random: Random;
};

export function createCoordinatorCache(options: CoordinatorCacheOptions): CacheReader {
  const url = `${options.coordinatorUrl}${options.cachePath}`;
  return {
    url,
    plan: (storePath, signal) => plan(storePath, signal, options),
    openNar: (request) => openNar(request, { ...options, url }),
  };
}

async function plan(
  storePath: StorePath,
  signal: AbortSignal,
  options: CoordinatorCacheOptions,
): Promise<readonly NarInfo[]> {
  const patience = createPatience({ ...options, signal });
  const deniedPatience = createPatience({ ...options, signal, maxMs: DENIED_MAX_MS });
  for (;;) {
    try {
      const { answer } = await options.http.requestJson({
        method: "POST",
        url: `${options.coordinatorUrl}/api/v1/caches/${encodeURIComponent(options.cacheName)}/plan`,
        token: options.credential(),
        body: { storePath },
        schema: planAnswerSchema,
        isIdempotent: true,
        silenceMaxMs: PLAN_SILENCE_MAX_MS,
        signal,
      });
      return answer.narInfos.map(readNarInfo);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof NixdeployError)) throw error;
      const isAway = error.kind === "unreachable" || (error instanceof HttpFailure && error.isForeign);
      const mayHeal = isAway ? patience : error.kind === "denied" ? deniedPatience : null;
      if (mayHeal === null || !(await mayHeal.pause())) throw error;
    }
  }
}

function readNarInfo(text: string): NarInfo {
  try {
    return parseNarInfo(text);
  } catch (error) {
    if (!(error instanceof NixParseError)) throw error;
    throw new NixdeployError("remote", `cannot use the plan that the cache sent: ${error.message}`, { cause: error });
  }
}

async function openNar(
  request: NarRequest,
  options: Pick<CoordinatorCacheOptions, "http" | "credential"> & { readonly url: string },
): Promise<NarAnswer> {
  const { startByte, etag } = request;
  const answer = await options.http.openBody({
    url: resolveNarUrl({ cacheUrl: options.url, narUrl: request.narUrl }),
    token: options.credential(),
    ...(startByte === 0 ? {} : { rangeStart: startByte }),
    ...(startByte === 0 || etag === null || etag.startsWith("W/") ? {} : { headers: { "if-range": etag } }),
    signal: request.signal,
  });
  const body = readAnswer(answer, startByte);
  if (body.kind !== "body") await answer[Symbol.asyncDispose]();
  return body;
}

function readAnswer(answer: BodyAnswer, asked: number): NarAnswer {
  const { status, headers } = answer;
  const etag = headers.get("etag");
  // We are logged in at a coordinator: whoever answers so stands between it and us, and may step aside again.
  if ((isWebPage(headers.get("content-type") ?? "") && status !== 404) || status === 407) {
    return { kind: "try-later", reason: `something before the cache answered with status ${status}` };
  }
  if (status === 200) {
    return {
      kind: "body",
      startByte: 0,
      sizeBytes: parseSize(headers.get("content-length")),
      etag,
      body: bytesOf(answer),
    };
  }
  if (status === 206) {
    const range = parseContentRange(headers.get("content-range"));
    if (range === null) return { kind: "refused", reason: "the cache answered 206 without a usable Content-Range" };
    return { kind: "body", ...range, etag, body: bytesOf(answer) };
  }
  if (status === 401) return { kind: "denied" };
  if (status === 408 || status === 425 || status === 429 || status >= 500) {
    return { kind: "try-later", reason: `the cache answered with status ${status}` };
  }
  const where = asked === 0 ? "" : ` when asked to continue at byte ${asked}`;
  return { kind: "refused", reason: `the cache answered with status ${status}${where}` };
}

async function* bytesOf(answer: BodyAnswer): AsyncGenerator<Uint8Array> {
  await using open = answer;
  yield* open.body;
}

function parseSize(text: string | null): number | null {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/** `bytes 100-199/200`, where the size may be `*`. */
function parseContentRange(text: string | null): { startByte: number; sizeBytes: number | null } | null {
  const [, start, size] = /^bytes (\d{1,15})-\d{1,15}\/(\d{1,15}|\*)$/.exec(text ?? "") ?? [];
  if (start === undefined || size === undefined) return null;
  return { startByte: Number(start), sizeBytes: size === "*" ? null : Number(size) };
}
