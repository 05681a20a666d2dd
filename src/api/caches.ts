/** Caches in the REST API: their settings, and what push and agents need beyond what vanilla Nix asks. */
import { z } from "zod";
import { keyStatementSchema } from "../key-statement.ts";
import { keyVoucherSchema } from "../key-voucher.ts";
import { parseFileHash, parseNarHash } from "../nix/hash.ts";
import { parseStorePath, parseStorePathHash } from "../nix/store-path.ts";
import { parsedListWith, parsedWith, storePathSchema } from "../protocol.ts";
import { cacheName, count, cursor, workspaceName } from "./fields.ts";

/** GET /api/v1/caches/NAME, and the answer of POST and PATCH */
export const cacheSchema = z
  .object({
    name: cacheName,
    workspace: workspaceName,
    url: z.string(),
    publicKeys: z.array(z.string()),
    /** Of each public key, `SHA256:base64`. */
    keyFingerprints: z.array(z.string()).default([]),
    /** What its earlier keys have said of their successors, in order. */
    keyStatements: z.array(keyStatementSchema).default([]),
    public: z.boolean(),
    /** The one that agents and `push` use first; the others of the workspace come after it. */
    default: z.boolean(),
  })
  .meta({ id: "Cache" });
export type CacheDto = z.output<typeof cacheSchema>;

/** GET /api/v1/caches[?workspace=NAME], by workspace, the default of each first */
export const cacheListSchema = z.object({ caches: z.array(cacheSchema), next: cursor });

/** POST /api/v1/caches */
export const createCacheSchema = z
  .object({ name: cacheName, workspace: workspaceName.optional(), public: z.boolean().optional() })
  .meta({ id: "CreateCache" });

/** PATCH /api/v1/caches/NAME. Making one the default takes that from the one before. */
export const updateCacheSchema = z
  .object({ public: z.boolean().optional(), default: z.literal(true).optional() })
  .refine((change) => Object.values(change).some((value) => value !== undefined), "it changes nothing");

/** Answer of DELETE /api/v1/caches/NAME[?force=true]: how much was in it. */
export const deletedCacheSchema = z.object({ name: cacheName, paths: count });
export type DeletedCache = z.output<typeof deletedCacheSchema>;

/** Of one workspace: each is asked for what the ones before it lack. */
export const FOREIGN_CACHES_MAX = 16;
const CACHE_KEYS_MAX = 16;
const SUBSTITUTER_LENGTH_MAX = 1_000;
const PUBLIC_KEY_LENGTH_MAX = 256;

/** PUT /api/v1/workspaces/NAME/foreign-caches/CACHE */
export const saveForeignCacheSchema = z
  .object({
    url: z.string().max(SUBSTITUTER_LENGTH_MAX),
    /** `name:base64` */
    publicKeys: z.array(z.string().max(PUBLIC_KEY_LENGTH_MAX)).min(1).max(CACHE_KEYS_MAX),
  })
  .meta({ id: "SaveForeignCache" });

/** A cache of somebody else, from which agents fetch what ours lack. */
export const foreignCacheSchema = z
  .object({ name: cacheName, workspace: workspaceName, url: z.string(), publicKeys: z.array(z.string()) })
  .meta({ id: "ForeignCache" });
export type ForeignCacheDto = z.output<typeof foreignCacheSchema>;

/** GET /api/v1/foreign-caches[?workspace=NAME], by workspace, in the order in which they are asked */
export const foreignCacheListSchema = z.object({ foreignCaches: z.array(foreignCacheSchema), next: cursor });

/** PUT /api/v1/workspaces/NAME/key-vouchers/CACHE: signed by a key that the coordinator does not have */
export const saveKeyVoucherSchema = keyVoucherSchema.omit({ cache: true }).meta({ id: "SaveKeyVoucher" });

/** GET /api/v1/key-vouchers[?workspace=NAME] */
export const keyVoucherListSchema = z.object({
  keyVouchers: z.array(keyVoucherSchema.extend({ workspace: workspaceName }).meta({ id: "KeptKeyVoucher" })),
  next: cursor,
});
export type KeyVoucherDto = z.output<typeof keyVoucherListSchema>["keyVouchers"][number];

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
