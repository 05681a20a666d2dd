/**
 * What Nix knows about a valid store path, apart from its contents: the part that daemon and caches share.
 *
 * Source: Nix `src/libstore/path-info.hh` (`UnkeyedValidPathInfo`), without registration time and "ultimate".
 */
import type { NarHash } from "./hash.ts";
import type { StorePath } from "./store-path.ts";

export type PathInfo = {
  readonly storePath: StorePath;
  readonly narHash: NarHash;
  /** Of the uncompressed NAR; more than 0. */
  readonly narSizeBytes: number;
  /** Sorted bytewise, without duplicates; holds `storePath` itself when the path refers to itself. */
  readonly references: readonly StorePath[];
  /** The derivation that built it; null when unknown. Not covered by signatures. */
  readonly deriver: StorePath | null;
  /** Each `name:base64`, as written by whoever signed; not yet verified. */
  readonly signatures: readonly string[];
  /** Nix's content address, for example `fixed:r:sha256:…`; null for paths named by their inputs. */
  readonly contentAddress: string | null;
};
