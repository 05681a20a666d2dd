/**
 * `nix-cache-info`: what a binary cache says about itself.
 *
 * Read as leniently as Nix reads it (lines without a colon and unknown keys are skipped, the last line may lack its
 * end), because it is written by hand in many places. Whether the store directory suits is the caller's question.
 * Source: Nix `src/libstore/binary-cache-store.cc` (`BinaryCacheStore::init`).
 */
import { NixParseError, quoteExcerpt } from "./parse-error.ts";
import { STORE_DIR } from "./store-path.ts";

export type CacheInfo = {
  /** `/nix/store` when the file does not say. */
  readonly storeDir: string;
  /** Whether clients may ask for many paths at once; false when the file does not say. */
  readonly wantMassQuery: boolean;
  /** Lower is asked first; cache.nixos.org has 40. 0 when the file does not say. */
  readonly priority: number;
};

const CACHE_INFO_LENGTH_MAX = 16 * 1024;
const STORE_DIR_LENGTH_MAX = 256;

/** @throws NixParseError for an overlong file, a priority that is no integer, a store directory that is no path */
export function parseCacheInfo(text: string): CacheInfo {
  if (text.length > CACHE_INFO_LENGTH_MAX) {
    throw new NixParseError("nix-cache-info", `longer than ${CACHE_INFO_LENGTH_MAX} characters`);
  }
  const fields = new Map(text.split("\n").map(parseLine));
  return {
    storeDir: parseStoreDir(fields.get("StoreDir") ?? STORE_DIR),
    wantMassQuery: fields.get("WantMassQuery") === "1",
    priority: parsePriority(fields.get("Priority") ?? "0"),
  };
}

export function formatCacheInfo(info: CacheInfo): string {
  return `StoreDir: ${info.storeDir}\nWantMassQuery: ${info.wantMassQuery ? 1 : 0}\nPriority: ${info.priority}\n`;
}

function parseLine(line: string): readonly [key: string, value: string] {
  const colon = line.indexOf(":");
  return colon === -1 ? ["", line] : [line.slice(0, colon), line.slice(colon + 1).trim()];
}

function parseStoreDir(value: string): string {
  if (!/^\/[!-~]+$/.test(value) || value.length > STORE_DIR_LENGTH_MAX) {
    throw new NixParseError("nix-cache-info", `not an absolute path: ${quoteExcerpt(value)}`, { field: "StoreDir" });
  }
  return value;
}

function parsePriority(value: string): number {
  if (!/^-?[0-9]{1,9}$/.test(value)) {
    throw new NixParseError("nix-cache-info", `not an integer: ${quoteExcerpt(value)}`, { field: "Priority" });
  }
  // "-0" is 0.
  return Number(value) + 0;
}
