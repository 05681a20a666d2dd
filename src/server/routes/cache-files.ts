/**
 * What vanilla Nix asks of a binary cache: GET and HEAD of nix-cache-info, narinfos and NARs below /cache/NAME/. These
 * are routes of Bun.serve, not of Hono: files leave by sendfile, and Range and HEAD are answered by the server itself.
 */
import { createHash } from "node:crypto";
import type { BunRequest, Server } from "bun";
import { parseCacheName } from "../../names.ts";
import { formatCacheInfo } from "../../nix/cache-info.ts";
import { formatHashNix32, parseFileHash } from "../../nix/hash.ts";
import { parseStorePathHash, STORE_DIR } from "../../nix/store-path.ts";
import { refuseLogin } from "../access/authentication.ts";
import { mayDo } from "../access/authorization.ts";
import type { BlobStore } from "../cache/blob-store.ts";
import { type CacheRow, findCache } from "../database/caches.ts";
import { findNar } from "../database/paths.ts";
import { formatProblem, notFound, problemResponse } from "../problem.ts";
import type { Attend } from "../requests/attend.ts";
import type { Visit } from "../requests/visit.ts";
import type { Services } from "../services.ts";

export type CacheFileRequest = BunRequest<"/cache/:cache/:file">;
type AnswerFile = (request: CacheFileRequest, server: Server<unknown>) => Promise<Response>;
/** By pattern, as Bun.serve takes them. */
export type CacheFileRoutes = Readonly<Record<"/cache/:cache/:file" | "/cache/:cache/nar/:file", AnswerFile>>;

const NAR_FILE = /^([0-9a-z]{52})\.nar\.zst$/;
const NARINFO_FILE = /^([0-9a-z]{32})\.narinfo$/;
/** Where our cache stands among several: after cache.nixos.org (40), so that what it has too comes from there. */
const PRIORITY = 41;
const NARINFO_MAX_AGE_S = 3600;
const NAR_MAX_AGE_S = 31_536_000;

export function createCacheFileRoutes(deps: {
  readonly services: Services;
  readonly blobs: BlobStore;
  readonly attend: Attend;
}): CacheFileRoutes {
  const { services, blobs, attend } = deps;
  const guarded =
    (answer: (request: CacheFileRequest, cache: CacheRow) => Promise<Response>) =>
    async (request: CacheFileRequest, { requestId, address }: Visit): Promise<Response> => {
      try {
        if (request.method !== "GET" && request.method !== "HEAD") {
          return formatProblem({ title: "Only GET and HEAD", status: 405 }, { allow: "GET, HEAD" });
        }
        const cache = await findReadableCache(services, request);
        if (cache !== null) return await answer(request, cache);
        const authorization = request.headers.get("authorization");
        return refuseLogin(services, { authorization, address, scheme: "Basic" });
      } catch (error) {
        return problemResponse(error, { log: services.log, requestId });
      }
    };
  const attended = (
    route: keyof CacheFileRoutes,
    answer: (request: CacheFileRequest, cache: CacheRow) => Promise<Response>,
  ): AnswerFile => {
    const answerGuarded = guarded(answer);
    return async (request, server) => {
      const peer = server.requestIP(request)?.address ?? null;
      return await attend(request, { control: false, peer }, async (visit) => {
        visit.route = route;
        return await answerGuarded(request, visit);
      });
    };
  };
  return {
    "/cache/:cache/:file": attended("/cache/:cache/:file", async (request, cache) => {
      const { file } = request.params;
      if (file === "nix-cache-info") return cacheInfo();
      const hashPart = parseName(NARINFO_FILE, file, parseStorePathHash);
      const text = hashPart === null ? null : await services.narInfos.find({ cacheId: cache.id, hashPart });
      return text === null ? absent() : narInfo(request, cache, text);
    }),
    "/cache/:cache/nar/:file": attended("/cache/:cache/nar/:file", async (request, cache) => {
      const fileHash = parseName(NAR_FILE, request.params.file, (name) => parseFileHash(`sha256:${name}`));
      if (fileHash === null) return absent();
      const nar = await findNar(services.database, { cacheId: cache.id, fileHash });
      if (nar === null) return absent();
      const headers = {
        "content-type": "application/x-nix-nar",
        "cache-control": `${visibility(cache)}, max-age=${NAR_MAX_AGE_S}, immutable`,
        "accept-ranges": "bytes",
        etag: `"${formatHashNix32(fileHash)}"`,
      };
      if (matchesEtag(request, headers.etag)) return new Response(null, { status: 304, headers });
      const file = blobs.open(fileHash);
      if (await file.exists()) {
        if (request.method === "GET") services.meters.servedBytes(bytesAsked(request, nar.file_size_bytes));
        return new Response(file, { headers });
      }
      services.log.error("a NAR file is missing", { cache: cache.name, fileHash });
      return absent();
    }),
  };
}

/** @returns null when the request has no credential that may read this cache and the cache is not public */
async function findReadableCache(services: Services, request: CacheFileRequest): Promise<CacheRow | null> {
  const cache = await findCache(services.database, readCacheName(request.params.cache));
  if (cache?.is_public === 1) return cache;
  const principal = await services.authenticator.authenticate(request.headers.get("authorization"));
  if (principal === null) return null;
  if (cache === null || !mayDo(principal, "read-cache", cache.workspace_id)) {
    throw notFound(`the cache ${request.params.cache}`);
  }
  return cache;
}

/** The part of a file's name that the pattern captures, parsed; null when there is no such thing. */
function parseName<Value>(pattern: RegExp, file: string, parse: (text: string) => Value): Value | null {
  const text = pattern.exec(file)?.[1];
  if (text === undefined) return null;
  try {
    return parse(text);
  } catch {
    // A name that nothing can have is the name of nothing.
    return null;
  }
}

function readCacheName(text: string) {
  try {
    return parseCacheName(text);
  } catch {
    throw notFound("a cache of that name");
  }
}

function cacheInfo(): Response {
  return new Response(formatCacheInfo({ storeDir: STORE_DIR, wantMassQuery: true, priority: PRIORITY }), {
    headers: { "content-type": "text/x-nix-cache-info" },
  });
}

function narInfo(request: CacheFileRequest, cache: CacheRow, text: string): Response {
  const etag = `"${createHash("sha256").update(text).digest("base64url").slice(0, 22)}"`;
  const headers = {
    "content-type": "text/x-nix-narinfo",
    "cache-control": `${visibility(cache)}, max-age=${NARINFO_MAX_AGE_S}`,
    etag,
  };
  return matchesEtag(request, etag) ? new Response(null, { status: 304, headers }) : new Response(text, { headers });
}

function absent(): Response {
  return new Response("not found\n", {
    status: 404,
    headers: { "content-type": "text/plain", "cache-control": "no-store" },
  });
}

/** How much of a file its answer has, as far as the request tells: one range, or all of it. */
function bytesAsked(request: Request, sizeBytes: number): number {
  const [, first = "", last = ""] = /^bytes=(\d*)-(\d*)$/.exec(request.headers.get("range") ?? "") ?? [];
  if (first === "") return last === "" ? sizeBytes : Math.min(Number(last), sizeBytes);
  const end = last === "" ? sizeBytes : Math.min(Number(last) + 1, sizeBytes);
  return Math.max(0, end - Number(first));
}

/** If-None-Match compares weakly (RFC 9110 §13.1.2): a proxy that compresses marks our tags as weak. */
function matchesEtag(request: Request, etag: string): boolean {
  const known = (request.headers.get("if-none-match") ?? "").split(",").map((tag) => tag.trim().replace(/^W\//, ""));
  return known.includes(etag) || known.includes("*");
}

/** A shared proxy must not keep what only its requester may read. */
function visibility(cache: CacheRow): "public" | "private" {
  return cache.is_public === 1 ? "public" : "private";
}
