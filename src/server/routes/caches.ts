/** /api/v1/caches: what push and agents need beyond what vanilla Nix asks (see api/caches.ts). */
import { z } from "zod";
import {
  missingAnswerSchema,
  missingRequestSchema,
  planAnswerSchema,
  planRequestSchema,
  publishAnswerSchema,
  publishRequestSchema,
  UPLOAD_PART_BYTES_MAX,
  uploadAnswerSchema,
} from "../../api/caches.ts";
import { NixdeployError } from "../../errors.ts";
import { type FileHash, type NarHash, parseFileHash, parseNarHash } from "../../nix/hash.ts";
import { formatNarInfo } from "../../nix/narinfo.ts";
import { storePathHash } from "../../nix/store-path.ts";
import { publishPaths } from "../cache/publish.ts";
import type { StoredFile } from "../cache/uploads.ts";
import { type CacheRow, isCacheLive } from "../database/caches.ts";
import { findMissingPaths, insertNar } from "../database/paths.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import { findTargetCache, noteAct, type RouteContext } from "./context.ts";
import { BYTES, countParam, defineRoute, type Route } from "./route.ts";

const NAR_SIZE_BYTES_MAX = Number.MAX_SAFE_INTEGER;

export function createCacheRoutes(services: Services): readonly Route[] {
  return [...createReaderRoutes(services), ...createPushRoutes(services)];
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
    record: (file) => recordNar(services, { cache, narHash, narSizeBytes, ...file }),
  });
  switch (answer.kind) {
    case "wrong-offset":
      return context.json({ offset: answer.offset, complete: false }, 409);
    case "more":
      return context.json({ offset: answer.offset, complete: false });
    case "complete":
      return context.json({ offset: answer.offset, complete: true });
    default:
      return answer satisfies never;
  }
}

/** @throws NixdeployError `not-found` when the cache was deleted while the NAR came */
async function recordNar(
  services: Services,
  nar: StoredFile & { readonly cache: CacheRow; readonly narHash: NarHash; readonly narSizeBytes: number },
): Promise<void> {
  await services.database.transaction().execute(async (transaction) => {
    if (!(await isCacheLive(transaction, nar.cache.id))) throw notFound(`the cache ${nar.cache.name}`);
    await insertNar(transaction, {
      cache_id: nar.cache.id,
      file_hash: nar.fileHash,
      nar_hash: nar.narHash,
      nar_size_bytes: nar.narSizeBytes,
      file_size_bytes: nar.fileSizeBytes,
      compression: "zstd",
      created_ms: services.clock.nowMs(),
    });
  });
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
