/**
 * Where an upload goes, as the engine sees it: three calls of the coordinator's cache API (`src/api/`), without HTTP.
 * `client/coordinator.ts` is one over the network; tests have one in memory.
 */
import type { FileHash, NarHash } from "../../hash.ts";
import type { PathInfo } from "../../path-info.ts";
import type { StorePathHash } from "../../store-path.ts";

/** A piece of a compressed NAR. */
export type NarPart = {
  readonly narHash: NarHash;
  readonly narSizeBytes: number;
  /** 16 lower-case letters and digits, drawn for one try of one NAR. */
  readonly uploadId: string;
  /** Bytes of the compressed NAR before this part. */
  readonly offset: number;
  /** Of the whole compressed NAR; only the last part has it. */
  readonly fileHash: FileHash | null;
  readonly body: Uint8Array;
};

export type PartAnswer =
  /** Kept; `offset` is where the next part begins. */
  | { readonly kind: "stored"; readonly offset: number; readonly complete: boolean }
  /** Not kept: the part does not begin where the cache stands. 0: it does not know this upload. */
  | { readonly kind: "expects"; readonly offset: number };

export type UploadedPath = PathInfo & { readonly fileHash: FileHash };

export type UploadTarget = {
  /** Which of these the cache lacks. At most `PATHS_PER_CALL_MAX`. */
  findMissing(hashParts: readonly StorePathHash[], signal: AbortSignal): Promise<ReadonlySet<StorePathHash>>;
  /** @throws NixdeployError of kind "unreachable" when trying again may help; any other kind when it cannot */
  putPart(part: NarPart, signal: AbortSignal): Promise<PartAnswer>;
  /** Makes uploaded NARs paths of the cache; every reference is there already or among `paths`. */
  publish(paths: readonly UploadedPath[], signal: AbortSignal): Promise<void>;
};
