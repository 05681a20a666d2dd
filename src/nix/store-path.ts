/**
 * Store paths: `/nix/store/<32 nix32>-<name>`.
 *
 *   path = "/nix/store/" hash "-" name
 *   hash = 32 nix32 characters (160 bits, so every such text is a hash)
 *   name = 1..211 of [0-9a-zA-Z+-._?=], neither "." nor "..", not beginning with ".-" or "..-"
 *
 * Only the store directory `/nix/store` is supported: closures cannot be moved between store directories. Whether
 * a path exists is not asked here, and how its hash is computed is not known here.
 * Source: Nix `src/libstore/path.cc`.
 */
import { NixParseError, quoteExcerpt } from "./parse-error.ts";

/** A full store path of valid form, without anything behind the name. */
export type StorePath = string & { readonly brand: "StorePath" };

/** The hash part of a store path, 32 characters: what narinfos are named after. */
export type StorePathHash = string & { readonly brand: "StorePathHash" };

/** Without a trailing slash. */
export const STORE_DIR = "/nix/store";

const STORE_PREFIX = `${STORE_DIR}/`;
const HASH_LENGTH = 32;
const NAME_LENGTH_MAX = 211;
const HASH_PATTERN = /^[0-9abcdfghijklmnpqrsvwxyz]{32}$/;
const NAME_PATTERN = /^[0-9a-zA-Z+\-._?=]+$/;
const FORBIDDEN_NAME_PATTERN = /^\.{1,2}(-|$)/;

/** @throws NixParseError unless `text` is exactly a store path (no trailing slash, no file inside) */
export function parseStorePath(text: string): StorePath {
  if (!text.startsWith(STORE_PREFIX)) {
    throw new NixParseError("store path", `not in ${STORE_DIR}: ${quoteExcerpt(text)}`);
  }
  return parseStorePathBaseName(text.slice(STORE_PREFIX.length));
}

/**
 * The store path from its last component, the spelling of references in narinfos.
 * @throws NixParseError unless `baseName` is `<hash>-<name>`
 */
export function parseStorePathBaseName(baseName: string): StorePath {
  const fault = describeBaseNameFault(baseName);
  if (fault !== null) {
    throw new NixParseError("store path", `${fault}: ${quoteExcerpt(baseName)}`);
  }
  return (STORE_PREFIX + baseName) as StorePath;
}

/** @throws NixParseError unless `text` is 32 nix32 characters */
export function parseStorePathHash(text: string): StorePathHash {
  if (!HASH_PATTERN.test(text)) {
    throw new NixParseError("store path hash", `expected 32 nix32 characters, got ${quoteExcerpt(text)}`);
  }
  return text as StorePathHash;
}

/** `<hash>-<name>`. */
export function storePathBaseName(path: StorePath): string {
  return path.slice(STORE_PREFIX.length);
}

/** The 32 characters before the first dash. */
export function storePathHash(path: StorePath): StorePathHash {
  return parseStorePathHash(path.slice(STORE_PREFIX.length, STORE_PREFIX.length + HASH_LENGTH));
}

/** What follows the hash part, for example `nixos-system-nuc-24.05`. */
export function storePathName(path: StorePath): string {
  return path.slice(STORE_PREFIX.length + HASH_LENGTH + 1);
}

/** Bytewise order, that of references in narinfos and fingerprints. Store paths are ASCII. */
export function compareStorePaths(a: StorePath, b: StorePath): number {
  if (a === b) {
    return 0;
  }
  return a < b ? -1 : 1;
}

/**
 * The store path that an absolute path is, or lies in: `/nix/store/x-y/bin/z` gives `/nix/store/x-y`.
 *
 * Null when there is none; also for a path with `.`, `..` or empty components, which could lead elsewhere.
 */
export function storePathContaining(absolutePath: string): StorePath | null {
  if (!absolutePath.startsWith(STORE_PREFIX)) {
    return null;
  }
  const [baseName = "", ...inside] = absolutePath.slice(STORE_PREFIX.length).split("/");
  const isPlain = inside.every((part, index) =>
    part === "" ? index === inside.length - 1 : part !== "." && part !== "..",
  );
  return isPlain && describeBaseNameFault(baseName) === null ? ((STORE_PREFIX + baseName) as StorePath) : null;
}

function describeBaseNameFault(baseName: string): string | null {
  const name = baseName.slice(HASH_LENGTH + 1);
  if (!HASH_PATTERN.test(baseName.slice(0, HASH_LENGTH)) || baseName.charAt(HASH_LENGTH) !== "-") {
    return "does not begin with 32 nix32 characters and a dash";
  }
  if (name.length === 0 || name.length > NAME_LENGTH_MAX) {
    return `the name has ${name.length} characters instead of 1 to ${NAME_LENGTH_MAX}`;
  }
  if (!NAME_PATTERN.test(name)) {
    return "the name has a character that is not of 0-9 a-z A-Z + - . _ ? =";
  }
  return FORBIDDEN_NAME_PATTERN.test(name) ? 'the name may not be or begin with "." or ".." before a dash' : null;
}
