/** /api/v1/caches: settings of a cache, and what push and agents need beyond what vanilla Nix asks (see api.ts). */

import {
  missingRequestSchema,
  planRequestSchema,
  publishRequestSchema,
  UPLOAD_PART_BYTES_MAX,
  updateCacheSchema,
} from "../../api.ts";
import { NixdeployError } from "../../errors.ts";
import { parseCacheName } from "../../names.ts";
import { type FileHash, type NarHash, parseFileHash, parseNarHash } from "../../nix/hash.ts";
import { formatNarInfo } from "../../nix/narinfo.ts";
import { storePathHash } from "../../nix/store-path.ts";
import { mayDo, type Right } from "../access/authorization.ts";
import { publishPaths } from "../cache/publish.ts";
import { cacheToDto } from "../convert.ts";
import { findMissingPaths, insertNar } from "../database/paths.ts";
import { type CacheRow, findCache, setCachePublic } from "../database/workspaces.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import { createRouter, hintForRight, type RouteContext, readBody, readCount } from "./context.ts";

const NAR_SIZE_BYTES_MAX = Number.MAX_SAFE_INTEGER;

export function createCacheRoutes(services: Services) {
  const routes = createRouter();
  routes.get("/caches/:cache", async (context) => {
    return context.json(cacheToDto(await findTargetCache(services, context, "read-cache"), services));
  });
  routes.patch("/caches/:cache", async (context) => {
    const cache = await findTargetCache(services, context, "administrate");
    const change = await readBody(context, updateCacheSchema);
    await setCachePublic(services.database, { cacheId: cache.id, isPublic: change.public });
    services.log.info("cache changed", { cache: cache.name, public: change.public });
    return context.json(cacheToDto({ ...cache, is_public: change.public ? 1 : 0 }, services));
  });
  routes.post("/caches/:cache/missing", async (context) => {
    const cache = await findTargetCache(services, context, "read-cache");
    const { hashParts } = await readBody(context, missingRequestSchema);
    return context.json({ missing: await findMissingPaths(services.database, { cacheId: cache.id, hashParts }) });
  });
  routes.post("/caches/:cache/plan", async (context) => {
    const cache = await findTargetCache(services, context, "read-cache");
    const { storePath } = await readBody(context, planRequestSchema);
    const closure = await services.narInfos.closure({ cacheId: cache.id, hashPart: storePathHash(storePath) });
    if (!closure.some((info) => info.storePath === storePath)) throw notFound(`${storePath} in cache ${cache.name}`);
    return context.json({ narInfos: closure.map(formatNarInfo) });
  });
  routes.post("/caches/:cache/paths", async (context) => {
    const cache = await findTargetCache(services, context, "push");
    const { paths } = await readBody(context, publishRequestSchema);
    const published = await publishPaths(services, { cache, paths });
    services.log.info("paths published", { cache: cache.name, published });
    return context.json({ published }, 201);
  });
  routes.put("/caches/:cache/nars/:narHash", async (context) => {
    const cache = await findTargetCache(services, context, "push");
    return await takeUploadPart(services, context, cache);
  });
  return routes;
}

async function takeUploadPart(services: Services, context: RouteContext, cache: CacheRow): Promise<Response> {
  const upload = context.req.query("upload") ?? "";
  if (!/^[0-9a-z]{16}$/.test(upload))
    throw new NixdeployError("usage", "cannot take the part: `upload` is no upload id");
  const narHash = readHash(() => parseNarHash(`sha256:${context.req.param("narHash") ?? ""}`), "NarHash");
  const fileHashText = context.req.query("fileHash");
  const fileHash =
    fileHashText === undefined ? null : readHash(() => parseFileHash(`sha256:${fileHashText}`), "fileHash");
  const narSizeBytes = readCount(context, { name: "narSize", fallback: 0, max: NAR_SIZE_BYTES_MAX });
  if (narSizeBytes === 0) throw new NixdeployError("usage", "cannot take the part: `narSize` is missing");
  if (Number(context.req.header("content-length") ?? 0) > UPLOAD_PART_BYTES_MAX) {
    throw new NixdeployError("usage", `cannot take the part: it is larger than ${UPLOAD_PART_BYTES_MAX} bytes`);
  }
  const answer = await services.uploads.put({
    key: `${cache.id}/${upload}`,
    offset: readCount(context, { name: "offset", fallback: 0, max: NAR_SIZE_BYTES_MAX }),
    narHash,
    narSizeBytes,
    fileHash,
    body: limited(context.req.raw.body ?? new Blob([]).stream()),
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
async function* limited(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  let total = 0;
  for await (const chunk of body) {
    total += chunk.length;
    if (total > UPLOAD_PART_BYTES_MAX) {
      throw new NixdeployError("usage", `cannot take the part: it is larger than ${UPLOAD_PART_BYTES_MAX} bytes`);
    }
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
  return cache;
}

function readCacheName(text: string) {
  try {
    return parseCacheName(text);
  } catch (cause) {
    throw new NixdeployError("usage", cause instanceof Error ? cause.message : String(cause), { cause });
  }
}
