/**
 * What the download engine needs of a cache, and nothing about HTTP clients: the seam between engine and network.
 */
import type { NarInfo } from "../../narinfo.ts";
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
  /** The base URL, for checking the URLs of narinfos. */
  readonly url: string;
  /**
   * Every narinfo of the closure of a path, in one answer. Waits while the cache is away.
   * @throws NixdeployError
   */
  plan(storePath: StorePath, signal: AbortSignal): Promise<readonly NarInfo[]>;
  /** One try. @throws when no answer arrives */
  openNar(request: NarRequest): Promise<NarAnswer>;
};
