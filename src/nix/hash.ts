/**
 * SHA-256 hashes of NARs and of the files of a cache, in all the spellings that Nix uses.
 *
 * In the program a hash is always the text that narinfos carry, `sha256:<52 nix32>`, so that equal hashes are equal
 * strings. No hashing happens here, and no other algorithm is accepted: Nix hashes NARs with SHA-256 only.
 *
 *   text  = "sha256:" digits | "sha256-" base64          (the second is SRI)
 *   digits = 52 nix32 | 64 hex | 44 base64               (told apart by length)
 *
 * Source: Nix `src/libutil/hash.cc` (`Hash::parseAnyPrefixed`).
 */
import { Buffer } from "node:buffer";
import { decodeBase64, encodeBase64 } from "./base64.ts";
import { decodeNix32, encodeNix32 } from "./nix32.ts";
import { NixParseError, quoteExcerpt } from "./parse-error.ts";

/** SHA-256 of an uncompressed NAR, `sha256:<52 nix32>`. Signed, and what makes a store object what it is. */
export type NarHash = string & { readonly brand: "NarHash" };

/** SHA-256 of a file of the cache as it is transferred (a compressed NAR), `sha256:<52 nix32>`. Not signed. */
export type FileHash = string & { readonly brand: "FileHash" };

const DIGEST_LENGTH = 32;
const PREFIX = "sha256:";
const SRI_PREFIX = "sha256-";
const NIX32_LENGTH = 52;
const HEX_LENGTH = 64;
const BASE64_LENGTH = 44;

/** @throws NixParseError unless `text` is a SHA-256 hash in one of the spellings above */
export function parseNarHash(text: string): NarHash {
  return canonicalText("NAR hash", decodeHash("NAR hash", text)) as NarHash;
}

/** @throws NixParseError unless `text` is a SHA-256 hash in one of the spellings above */
export function parseFileHash(text: string): FileHash {
  return canonicalText("file hash", decodeHash("file hash", text)) as FileHash;
}

/**
 * The hash from 64 hex digits without a prefix, the worker protocol's spelling.
 * @throws NixParseError on anything else
 */
export function narHashFromHex(hex: string): NarHash {
  return canonicalText("NAR hash", decodeHex("NAR hash", hex)) as NarHash;
}

/** @throws NixParseError unless `digest` has 32 bytes */
export function narHashFromDigest(digest: Uint8Array): NarHash {
  return canonicalText("NAR hash", digest) as NarHash;
}

/** @throws NixParseError unless `digest` has 32 bytes */
export function fileHashFromDigest(digest: Uint8Array): FileHash {
  return canonicalText("file hash", digest) as FileHash;
}

/** 64 lower-case hex digits, no prefix: the worker protocol. */
export function formatHashHex(hash: NarHash | FileHash): string {
  return Buffer.from(digestOf(hash)).toString("hex");
}

/** 52 nix32 characters, no prefix: the names of NAR files in a cache. */
export function formatHashNix32(hash: NarHash | FileHash): string {
  return hash.slice(PREFIX.length);
}

/** `sha256-<base64>`, as JSON of newer Nix versions and as web standards have it. */
export function formatHashSri(hash: NarHash | FileHash): string {
  return SRI_PREFIX + encodeBase64(digestOf(hash));
}

function digestOf(hash: NarHash | FileHash): Uint8Array {
  return decodeNix32(formatHashNix32(hash));
}

function canonicalText(format: string, digest: Uint8Array): string {
  if (digest.length !== DIGEST_LENGTH) {
    throw new NixParseError(format, `${digest.length} bytes instead of ${DIGEST_LENGTH}`);
  }
  return PREFIX + encodeNix32(digest);
}

function decodeHash(format: string, text: string): Uint8Array {
  const digits = text.slice(PREFIX.length);
  if (text.startsWith(SRI_PREFIX)) {
    return decodeBase64(digits, DIGEST_LENGTH);
  }
  if (!text.startsWith(PREFIX)) {
    throw new NixParseError(format, `expected "sha256:…" or "sha256-…", got ${quoteExcerpt(text)}`);
  }
  switch (digits.length) {
    case NIX32_LENGTH:
      return decodeNix32(digits);
    case HEX_LENGTH:
      return decodeHex(format, digits);
    case BASE64_LENGTH:
      return decodeBase64(digits, DIGEST_LENGTH);
    default:
      throw new NixParseError(format, `${digits.length} characters are no spelling of a SHA-256 hash`);
  }
}

function decodeHex(format: string, hex: string): Uint8Array {
  if (hex.length !== HEX_LENGTH || !/^[0-9a-fA-F]+$/.test(hex)) {
    throw new NixParseError(format, `expected ${HEX_LENGTH} hex digits, got ${quoteExcerpt(hex)}`);
  }
  return new Uint8Array(Buffer.from(hex, "hex"));
}
