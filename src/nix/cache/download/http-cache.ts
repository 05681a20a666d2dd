/**
 * A binary cache over HTTP, ours or anybody's: narinfos one by one, and NAR files with Range. Translates answers into the
 * words of `nar-source.ts`; trusts nothing that it passes on. The credential goes to the cache's own origin only, and a
 * foreign cache is never given one.
 */
import { describeError, NixdeployError } from "../../../errors.ts";
import type { BodyAnswer } from "../../../http/body.ts";
import type { HttpClient } from "../../../http/client.ts";
import { isWebPage } from "../../../http/failure.ts";
import type { CacheName } from "../../../names.ts";
import type { Clock, Random } from "../../../runtime.ts";
import { type NarInfo, parseNarInfo } from "../../narinfo.ts";
import { NixParseError } from "../../parse-error.ts";
import { type StorePath, storePathHash } from "../../store-path.ts";
import type { CacheReader, NarAnswer, NarRequest } from "./nar-source.ts";
import { resolveNarUrl } from "./nar-url.ts";
import { createPatience, DENIED_MAX_MS, FOREIGN_AWAY_MAX_MS, NO_PROGRESS_MAX_MS } from "./patience.ts";

export type HttpCacheOptions = {
  readonly name: CacheName;
  /** Without a slash at its end. */
  readonly url: string;
  /** Asked at every request: each login renews it. Null: a foreign cache. */
  readonly credential: (() => string) | null;
  readonly http: Pick<HttpClient, "openBody">;
  readonly clock: Clock;
  readonly random: Random;
};

/** What it takes to ask for a narinfo. */
export type NarInfoSource = Pick<HttpCacheOptions, "url" | "credential" | "http"> & { readonly silenceMaxMs?: number };

const NARINFO_BYTES_MAX = 4 * 1024 * 1024;
const NARINFO_SILENCE_MAX_MS = 30_000;

export function createHttpCache(options: HttpCacheOptions): CacheReader {
  const { name, url } = options;
  return {
    name,
    url,
    plan: null,
    findNarInfo: (storePath, signal) => findNarInfo(storePath, signal, options),
    openNar: (request) => openNar(request, options),
  };
}

async function findNarInfo(
  storePath: StorePath,
  signal: AbortSignal,
  options: HttpCacheOptions,
): Promise<NarInfo | null> {
  const isForeign = options.credential === null;
  const patience = createPatience({ ...options, signal, maxMs: isForeign ? FOREIGN_AWAY_MAX_MS : NO_PROGRESS_MAX_MS });
  const deniedPatience = createPatience({ ...options, signal, maxMs: DENIED_MAX_MS });
  for (;;) {
    const answer = await askNarInfo(storePath, signal, options);
    switch (answer.kind) {
      case "text":
        return readAnswered(answer.text, `the narinfo that ${options.url} sent`);
      case "absent":
        return null;
      case "denied":
        if (isForeign) return null;
        if (await deniedPatience.pause()) break;
        throw new NixdeployError("denied", `cannot ask ${options.url} for ${storePath}: it refuses our credential`);
      case "away":
        if (await patience.pause()) break;
        throw new NixdeployError("unreachable", `cannot ask ${options.url} for ${storePath}: ${answer.reason}`);
      default:
        answer satisfies never;
    }
  }
}

export type NarInfoAnswer =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "absent" }
  | { readonly kind: "denied" }
  | { readonly kind: "away"; readonly reason: string };

/** One try. @throws NixdeployError "remote" for an answer that is too large · the signal's reason */
export async function askNarInfo(
  storePath: StorePath,
  signal: AbortSignal,
  options: NarInfoSource,
): Promise<NarInfoAnswer> {
  try {
    await using answer = await options.http.openBody({
      url: `${options.url}/${storePathHash(storePath)}.narinfo`,
      token: options.credential?.(),
      // Bodies are taken as they are on the wire.
      headers: { "accept-encoding": "identity" },
      silenceMaxMs: options.silenceMaxMs ?? NARINFO_SILENCE_MAX_MS,
      signal,
    });
    const { status } = answer;
    if (status === 404 || status === 410) return { kind: "absent" };
    // A bucket answers 403 for what it does not have to whoever may not list it.
    if (status === 401 || status === 403) return { kind: "denied" };
    if (status !== 200 || isWebPage(answer.headers.get("content-type") ?? "")) {
      return { kind: "away", reason: `it answered with status ${status}` };
    }
    return { kind: "text", text: await readText(answer, options.url) };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof NixdeployError && error.kind !== "unreachable") throw error;
    return { kind: "away", reason: describeError(error) };
  }
}

async function readText(answer: BodyAnswer, url: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let lengthBytes = 0;
  for await (const chunk of answer.body) {
    lengthBytes += chunk.length;
    if (lengthBytes > NARINFO_BYTES_MAX)
      throw new NixdeployError("remote", `cannot use ${url}: a narinfo is too large`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** @throws NixdeployError("remote") when it is no narinfo */
export function readAnswered(text: string, what: string): NarInfo {
  try {
    return parseNarInfo(text);
  } catch (error) {
    if (!(error instanceof NixParseError)) throw error;
    throw new NixdeployError("remote", `cannot use ${what}: ${error.message}`, { cause: error });
  }
}

async function openNar(request: NarRequest, options: HttpCacheOptions): Promise<NarAnswer> {
  const { startByte, etag } = request;
  const answer = await options.http.openBody({
    url: resolveNarUrl({ cacheUrl: options.url, narUrl: request.narUrl }),
    token: options.credential?.(),
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
