/** Caches in the REST API: their settings, and what push and agents need beyond what vanilla Nix asks. */
import { z } from "zod";
import { keyStatementSchema } from "../key-statement.ts";
import { parseFileHash, parseNarHash } from "../nix/hash.ts";
import { parseStorePath, parseStorePathHash } from "../nix/store-path.ts";
import { parsedListWith, parsedWith, storePathSchema } from "../protocol.ts";
import { cacheName, count } from "./fields.ts";

/** GET /api/v1/caches/NAME, and the answer of PATCH */
export const cacheSchema = z
  .object({
    name: cacheName,
    url: z.string(),
    publicKeys: z.array(z.string()),
    /** Of each public key, `SHA256:base64`. */
    keyFingerprints: z.array(z.string()).default([]),
    /** What its earlier keys have said of their successors, in order. */
    keyStatements: z.array(keyStatementSchema).default([]),
    public: z.boolean(),
  })
  .meta({ id: "Cache" });
export type CacheDto = z.output<typeof cacheSchema>;

/** PATCH /api/v1/caches/NAME */
export const updateCacheSchema = z.object({ public: z.boolean() });

/** Hash parts in one `missing` call, and paths in one `paths` call. */
export const PATHS_PER_CALL_MAX = 5_000;
/** Of one path. */
const REFERENCES_MAX = 10_000;
/** One part of an upload; small enough for the strictest proxies. */
export const UPLOAD_PART_BYTES_MAX = 32 * 1024 * 1024;

/** POST /api/v1/caches/NAME/missing: which of these paths have no narinfo here? */
export const missingRequestSchema = z.object({
  hashParts: parsedListWith(parseStorePathHash, PATHS_PER_CALL_MAX),
});
export const missingAnswerSchema = z.object({ missing: parsedListWith(parseStorePathHash, PATHS_PER_CALL_MAX) });

/**
 * PUT /api/v1/caches/NAME/nars/NARHASH?upload=ID&offset=BYTES&narSize=BYTES[&fileHash=HASH]
 *
 * NARHASH and HASH are nix32, ID is 16 lower-case letters and digits that the client draws for one try of one NAR.
 * The body is the next part (up to {@link UPLOAD_PART_BYTES_MAX}) of the zstd-compressed NAR; the part that carries
 * `fileHash` is the last. The coordinator decompresses and checks while the parts arrive.
 * 200 with the new offset; 409 with the offset that it expects (0 when it does not know the upload, say after a
 * restart: the client starts this NAR anew); 422 when the bytes are not what they claim to be.
 */
export const uploadAnswerSchema = z.object({ offset: count, complete: z.boolean() });

/** POST /api/v1/caches/NAME/paths: publish narinfos; every reference is here already or in the same call. */
export const publishRequestSchema = z.object({
  paths: z
    .array(
      z.object({
        storePath: storePathSchema,
        narHash: parsedWith(parseNarHash),
        narSizeBytes: z.number().int().positive(),
        references: parsedListWith(parseStorePath, REFERENCES_MAX),
        deriver: storePathSchema.nullable(),
        /** `name:base64` signatures the path has already; the coordinator adds the cache's own. */
        signatures: z.array(z.string().max(256)).max(32),
        contentAddress: z.string().max(256).nullable(),
        /** Hash of the uploaded, compressed NAR. */
        fileHash: parsedWith(parseFileHash),
      }),
    )
    .min(1)
    .max(PATHS_PER_CALL_MAX),
});
export const publishAnswerSchema = z.object({ published: count });

/** POST /api/v1/caches/NAME/plan: all that an agent needs to fetch a closure, in one answer. */
export const planRequestSchema = z.object({ storePath: storePathSchema });
export const planAnswerSchema = z.object({
  /** narinfo texts of the whole closure, references first; URLs are relative to the cache. */
  narInfos: z.array(z.string()),
});
