/**
 * The text that a signature of a store path covers.
 *
 *   "1;" store path ";" "sha256:<52 nix32>" ";" NAR size ";" references, full paths, sorted, joined by ","
 *
 * Source: Nix `src/libstore/path-info.cc` (`ValidPathInfo::fingerprint`).
 */
import type { PathInfo } from "./path-info.ts";
import { compareStorePaths } from "./store-path.ts";

/** ASCII. Whatever order the references come in, it is the same. */
export function formatFingerprint(info: PathInfo): string {
  const references = [...info.references].sort(compareStorePaths).join(",");
  return `1;${info.storePath};${info.narHash};${info.narSizeBytes};${references}`;
}
