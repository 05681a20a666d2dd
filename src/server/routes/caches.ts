/** /api/v1/caches: settings of a cache, and what push and agents need beyond what vanilla Nix asks (see api/caches.ts). */

import { z } from "zod";
import {
  cacheSchema,
  missingAnswerSchema,
  missingRequestSchema,
  planAnswerSchema,
  planRequestSchema,
  publishAnswerSchema,
  publishRequestSchema,
  UPLOAD_PART_BYTES_MAX,
  updateCacheSchema,
  uploadAnswerSchema,
} from "../../api/caches.ts";
import { NixdeployError } from "../../errors.ts";
import { parseCacheName } from "../../names.ts";
import { type FileHash, type NarHash, parseFileHash, parseNarHash } from "../../nix/hash.ts";
import { formatNarInfo } from "../../nix/narinfo.ts";
import { storePathHash } from "../../nix/store-path.ts";
import { mayDo, type Right } from "../access/authorization.ts";
import { publishPaths } from "../cache/publish.ts";
import { rotateCacheKey } from "../cache/rotate-cache-key.ts";
import { cacheToDto } from "../convert.ts";
import { findMissingPaths, insertNar } from "../database/paths.ts";
import { type CacheRow, findCache, setCachePublic } from "../database/workspaces.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import { hintForRight, noteAct, type RouteContext } from "./context.ts";
import { BYTES, countParam, defineRoute, type Route } from "./route.ts";

const NAR_SIZE_BYTES_MAX = Number.MAX_SAFE_INTEGER;

export function createCacheRoutes(services: Services): readonly Route[] {
  return [...createSettingsRoutes(services), ...createReaderRoutes(services), ...createPushRoutes(services)];
}

function createSettingsRoutes(services: Services): readonly Route[] {
  const show = defineRoute({
    ...{ method: "GET", path: "/caches/:cache", right: "read-cache" },
    summary: "Say where a cache is, and which keys it signs with",
    answers: { 200: cacheSchema },
    async handle(context) {
      return context.json(await cacheToDto(await findTargetCache(services, context, "read-cache"), services));
    },
  });
  const change = defineRoute({
    ...{ method: "PATCH", path: "/caches/:cache", right: "administrate" },
    summary: "Change the settings of a cache",
    body: updateCacheSchema,
    answers: { 200: cacheSchema },
    async handle(context, { readBody }) {
      const cache = await findTargetCache(services, context, "administrate");
      const wanted = await readBody();
      await setCachePublic(services.database, { cacheId: cache.id, isPublic: wanted.public });
      noteAct(context, { effect: wanted.public ? "made public" : "made private" });
      services.log.info("cache changed", { cache: cache.name, public: wanted.public });
      return context.json(await cacheToDto({ ...cache, is_public: wanted.public ? 1 : 0 }, services));
    },
  });
  const rotate = defineRoute({
    ...{ method: "POST", path: "/caches/:cache/key-rotations", right: "administrate" },
    summary: "Give a cache another signing key, for which the old one vouches",
    answers: { 201: cacheSchema },
    async handle(context) {
      const cache = await findTargetCache(services, context, "administrate");
      const rotated = await rotateCacheKey(services, cache);
      services.narInfos.forgetSignatures(cache.id);
      const dto = await cacheToDto(rotated, services);
      noteAct(context, { effect: `new key ${dto.keyFingerprints.join(" ")}` });
      services.log.info("cache key rotated", { cache: cache.name, key: dto.publicKeys.join(" ") });
      return context.json(dto, 201);
    },
  });
  return [show, change, rotate];
}

function createReaderRoutes(services: Services): readonly Route[] {
  const missing = defineRoute({
    ...{ method: "POST", path: "/caches/:cache/missing", right: "read-cache", isNoAct: true },
    summary: "Say which of these paths have no narinfo here",
    body: missingRequestSchema,
    answers: { 200: missingAnswerSchema },
    async handle(context, { readBody }) {
      const cache = await findTargetCache(services, context, "read-cache");
      const { hashParts } = await readBody();
      return context.json({ missing: await findMissingPaths(services.database, { cacheId: cache.id, hashParts }) });
    },
  });
  const plan = defineRoute({
    ...{ method: "POST", path: "/caches/:cache/plan", right: "read-cache", isNoAct: true },
    summary: "Give the narinfos of a whole closure at once, references first",
    body: planRequestSchema,
    answers: { 200: planAnswerSchema },
    async handle(context, { readBody }) {
      const cache = await findTargetCache(services, context, "read-cache");
      const { storePath } = await readBody();
      const closure = await services.narInfos.closure({ cacheId: cache.id, hashPart: storePathHash(storePath) });
      if (!closure.some((info) => info.storePath === storePath)) throw notFound(`${storePath} in cache ${cache.name}`);
      return context.json({ narInfos: closure.map(formatNarInfo) });
    },
  });
  return [missing, plan];
}

function createPushRoutes(services: Services): readonly Route[] {
  const publish = defineRoute({
    ...{ method: "POST", path: "/caches/:cache/paths", right: "push" },
    summary: "Publish narinfos of uploaded NARs; each reference is here already or in the same call",
    body: publishRequestSchema,
    answers: { 201: publishAnswerSchema },
    async handle(context, { readBody }) {
      const cache = await findTargetCache(services, context, "push");
      const { paths } = await readBody();
      const published = await publishPaths(services, { cache, paths });
      noteAct(context, { effect: `${published} paths published` });
      services.log.info("paths published", { cache: cache.name, published });
      return context.json({ published }, 201);
    },
  });
  const upload = defineRoute({
    ...{ method: "PUT", path: "/caches/:cache/nars/:narHash", right: "push", isNoAct: true },
    summary: "Upload the next part of a zstd-compressed NAR; the part with `fileHash` is the last",
    query: z.object({
      upload: z.string("it is missing").regex(/^[0-9a-z]{16}$/, "it is no upload id"),
      offset: countParam({ fallback: 0, max: NAR_SIZE_BYTES_MAX }),
      narSize: countParam({ fallback: 0, max: NAR_SIZE_BYTES_MAX }),
      fileHash: z.string().optional(),
    }),
    body: BYTES,
    answers: { 200: uploadAnswerSchema, 409: uploadAnswerSchema },
    async handle(context, { query }) {
      const cache = await findTargetCache(services, context, "push");
      return await takeUploadPart(services, context, { ...query, cache });
    },
  });
  return [publish, upload];
}

type Part = {
  readonly cache: CacheRow;
  readonly upload: string;
  readonly offset: number;
  readonly narSize: number;
  readonly fileHash?: string | undefined;
};

async function takeUploadPart(services: Services, context: RouteContext, part: Part): Promise<Response> {
  const { cache, upload, offset, narSize: narSizeBytes } = part;
  const narHash = readHash(() => parseNarHash(`sha256:${context.req.param("narHash") ?? ""}`), "NarHash");
  const fileHash =
    part.fileHash === undefined ? null : readHash(() => parseFileHash(`sha256:${part.fileHash}`), "fileHash");
  if (narSizeBytes === 0) throw new NixdeployError("usage", "cannot take the part: `narSize` is missing");
  if (Number(context.req.header("content-length") ?? 0) > UPLOAD_PART_BYTES_MAX) {
    throw new NixdeployError("usage", `cannot take the part: it is larger than ${UPLOAD_PART_BYTES_MAX} bytes`);
  }
  const answer = await services.uploads.put({
    ...{ key: `${cache.id}/${upload}`, offset, narHash, narSizeBytes, fileHash },
    body: limited(context.req.raw.body ?? new Blob([]).stream(), services.meters),
  });
  switch (answer.kind) {
    case "wrong-offset":
      return context.json({ offset: answer.offset, complete: false }, 409);
    case "more":
      return context.json({ offset: answer.offset, complete: false });
    case "complete":
      await insertNar(services.database, {
        cache_id: cache.id,
        file_hash: answer.fileHash,
        nar_hash: narHash,
        nar_size_bytes: narSizeBytes,
        file_size_bytes: answer.offset,
        compression: "zstd",
        created_ms: services.clock.nowMs(),
      });
      return context.json({ offset: answer.offset, complete: true });
    default:
      return answer satisfies never;
  }
}

/** The body, ended by an error when it is longer than a part may be, whatever its Content-Length said. */
async function* limited(body: ReadableStream<Uint8Array>, meters: Meters): AsyncGenerator<Uint8Array> {
  let total = 0;
  for await (const chunk of body) {
    total += chunk.length;
    if (total > UPLOAD_PART_BYTES_MAX) {
      throw new NixdeployError("usage", `cannot take the part: it is larger than ${UPLOAD_PART_BYTES_MAX} bytes`);
    }
    meters.uploadedBytes(chunk.length);
    yield chunk;
  }
}

function readHash<Hash extends NarHash | FileHash>(parse: () => Hash, name: string): Hash {
  try {
    return parse();
  } catch (cause) {
    throw new NixdeployError("usage", `cannot take the part: ${name} is no sha256 in nix32`, { cause });
  }
}

/** @throws NixdeployError `not-found` when there is no such cache or the caller lacks the right in its workspace */
async function findTargetCache(services: Services, context: RouteContext, right: Right): Promise<CacheRow> {
  const name = context.req.param("cache") ?? "";
  const cache = await findCache(services.database, readCacheName(name));
  if (cache === null || !mayDo(context.get("principal"), right, cache.workspace_id)) {
    throw notFound(`the cache ${name}`, hintForRight(context, right));
  }
  noteAct(context, { workspaceId: cache.workspace_id, target: `cache ${cache.name}` });
  return cache;
}

function readCacheName(text: string) {
  try {
    return parseCacheName(text);
  } catch (cause) {
    throw new NixdeployError("usage", cause instanceof Error ? cause.message : String(cause), { cause });
  }
}
