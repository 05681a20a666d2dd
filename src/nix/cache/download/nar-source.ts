/**
 * What the download engine needs of a cache, and nothing about HTTP clients: the seam between engine and network.
 */
import type { CacheName } from "../../../names.ts";
import type { NarInfo } from "../../narinfo.ts";
import type { SignatureVerifier } from "../../signature.ts";
import type { PublicKey } from "../../signing-key.ts";
import type { StorePath } from "../../store-path.ts";

export type NarRequest = {
  /** As the narinfo has it, relative to the cache. */
  readonly narUrl: string;
  /** The first byte wanted. */
  readonly startByte: number;
  /** What the first answer carried, so that a continuation comes from the same file; null at the start. */
  readonly etag: string | null;
  readonly signal: AbortSignal;
};

export type NarAnswer =
  | {
      readonly kind: "body";
      /** Position of the first byte of `body`: what was asked for, or 0 where the server does not do ranges. */
      readonly startByte: number;
      /** Of the whole file; null when the server does not say. */
      readonly sizeBytes: number | null;
      readonly etag: string | null;
      /** Throws when the connection breaks; a clean end is the end of the file. */
      readonly body: AsyncIterable<Uint8Array>;
    }
  /** 401: the credential is not valid (any more, or not yet). */
  | { readonly kind: "denied" }
  /** 408, 425, 429, 5xx. */
  | { readonly kind: "try-later"; readonly reason: string }
  /** Any other answer: asking again would not help. */
  | { readonly kind: "refused"; readonly reason: string };

export type CacheReader = {
  /** In its workspace, not what it calls itself. */
  readonly name: CacheName;
  /** The base URL, for checking the URLs of narinfos. */
  readonly url: string;
  /**
   * Every narinfo of the closure of a path, in one answer; null when the cache does not have the path. Waits while the
   * cache is away. Null instead of a function: a cache that knows no such call.
   * @throws NixdeployError
   */
  readonly plan: ((storePath: StorePath, signal: AbortSignal) => Promise<readonly NarInfo[] | null>) | null;
  /** One path as vanilla Nix asks for it; null when the cache does not have it. Waits as `plan` does. @throws NixdeployError */
  findNarInfo(storePath: StorePath, signal: AbortSignal): Promise<NarInfo | null>;
  /** One try. @throws when no answer arrives */
  openNar(request: NarRequest): Promise<NarAnswer>;
};

/** A cache with the keys that count for what it serves, and for nothing that another one does. */
export type ClosureSource = {
  readonly reader: CacheReader;
  readonly verifier: SignatureVerifier;
  /** The keys of the verifier, for messages. */
  readonly trustedKeys: readonly PublicKey[];
};
