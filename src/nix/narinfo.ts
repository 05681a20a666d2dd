/**
 * Narinfos: what a binary cache says about one store path, in the file `<hash part>.narinfo`.
 *
 *   narinfo = { key ": " value "\n" }        (the last line ends in "\n" too)
 *
 * Unknown keys are ignored. Known ones may occur once, except `Sig`; Nix itself is as strict only for some. Nothing is
 * verified: URL, Compression, FileHash, FileSize, Deriver and CA are not even covered by the signature, and StorePath has
 * to be compared with the path that was asked for.
 * Source: Nix `src/libstore/nar-info.cc`.
 */
import { type FileHash, parseFileHash, parseNarHash } from "./hash.ts";
import { NixParseError, quoteExcerpt } from "./parse-error.ts";
import type { PathInfo } from "./path-info.ts";
import {
  compareStorePaths,
  parseStorePath,
  parseStorePathBaseName,
  type StorePath,
  storePathBaseName,
} from "./store-path.ts";

export type NarInfo = PathInfo & {
  /** Relative to the cache's base URL, or absolute. Unsigned: check it before use. */
  readonly url: string;
  /** As written, for example `zstd`; `bzip2` when the narinfo has none. Not necessarily one that we can read. */
  readonly compression: string;
  /** Of the file at `url`; null when not given. */
  readonly fileHash: FileHash | null;
  /** Of the file at `url`; null when not given, or given as 0. */
  readonly fileSizeBytes: number | null;
};

/** Enough for 16,000 references; the largest real ones have a few thousand. */
const NARINFO_LENGTH_MAX = 4 * 1024 * 1024;
const URL_LENGTH_MAX = 4096;
const SIGNATURES_MAX = 64;
/** An ed25519 signature needs about 110; leaves room for post-quantum ones, which are ignored. */
const SIGNATURE_LENGTH_MAX = 8192;
const SHORT_VALUE_LENGTH_MAX = 256;

const UNKNOWN_DERIVER = "unknown-deriver";
const DEFAULT_COMPRESSION = "bzip2";
/** Printable ASCII without the space. */
const WORD_PATTERN = /^[!-~]+$/;
const INTEGER_PATTERN = /^[0-9]{1,16}$/;

/** @throws NixParseError naming the field at fault */
export function parseNarInfo(text: string): NarInfo {
  const fields = parseFields(text);
  const fileSizeBytes = optional(fields, "FileSize", parseSize) ?? 0;
  return {
    storePath: required(fields, "StorePath", parseStorePath),
    url: required(fields, "URL", (value) => parseWord(value, URL_LENGTH_MAX)),
    compression:
      optional(fields, "Compression", (value) => parseWord(value, SHORT_VALUE_LENGTH_MAX)) ?? DEFAULT_COMPRESSION,
    fileHash: optional(fields, "FileHash", parseFileHash),
    fileSizeBytes: fileSizeBytes === 0 ? null : fileSizeBytes,
    narHash: required(fields, "NarHash", parseNarHash),
    narSizeBytes: required(fields, "NarSize", parseNarSize),
    references: optional(fields, "References", parseReferences) ?? [],
    deriver: optional(fields, "Deriver", (value) => (value === UNKNOWN_DERIVER ? null : parseStorePathBaseName(value))),
    signatures: parseSignatures(fields.get("Sig") ?? []),
    contentAddress: optional(fields, "CA", (value) => parseWord(value, SHORT_VALUE_LENGTH_MAX)),
  };
}

/**
 * The narinfo as Nix writes it: same keys, same order.
 * @throws RangeError for a value with a line break, which would forge other fields
 */
export function formatNarInfo(info: NarInfo): string {
  const lines: [key: string, value: string | number][] = [
    ["StorePath", info.storePath],
    ["URL", info.url],
    ["Compression", info.compression],
  ];
  if (info.fileHash !== null) {
    lines.push(["FileHash", info.fileHash]);
  }
  if (info.fileSizeBytes !== null) {
    lines.push(["FileSize", info.fileSizeBytes]);
  }
  lines.push(["NarHash", info.narHash], ["NarSize", info.narSizeBytes]);
  lines.push(["References", info.references.map(storePathBaseName).join(" ")]);
  if (info.deriver !== null) {
    lines.push(["Deriver", storePathBaseName(info.deriver)]);
  }
  lines.push(...info.signatures.map((signature): [string, string] => ["Sig", signature]));
  if (info.contentAddress !== null) {
    lines.push(["CA", info.contentAddress]);
  }
  return lines.map(([key, value]) => formatLine(key, value)).join("");
}

function formatLine(key: string, value: string | number): string {
  const line = `${key}: ${value}`;
  if (/[\r\n]/.test(line)) {
    throw new RangeError(`cannot format a narinfo: ${key} has a line break: ${quoteExcerpt(line)}`);
  }
  return `${line}\n`;
}

type Fields = ReadonlyMap<string, readonly string[]>;

function parseFields(text: string): Fields {
  if (text.length > NARINFO_LENGTH_MAX) {
    throw new NixParseError("narinfo", `longer than ${NARINFO_LENGTH_MAX} characters`);
  }
  if (!text.endsWith("\n")) {
    throw new NixParseError("narinfo", "the last line is cut off");
  }
  const fields = new Map<string, string[]>();
  for (const line of text.slice(0, -1).split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0 || line.charAt(colon + 1) !== " ") {
      throw new NixParseError("narinfo", `not "Key: value": ${quoteExcerpt(line)}`);
    }
    const key = line.slice(0, colon);
    const values = fields.get(key) ?? [];
    values.push(line.slice(colon + 2));
    fields.set(key, values);
  }
  return fields;
}

/** The value of a field, null when it is absent or empty. */
function optional<T>(fields: Fields, key: string, parse: (value: string) => T): T | null {
  const [value = "", ...more] = fields.get(key) ?? [];
  if (more.length > 0) {
    throw new NixParseError("narinfo", "given more than once", { field: key });
  }
  return value === "" ? null : parseField(key, value, parse);
}

function required<T extends string | number>(fields: Fields, key: string, parse: (value: string) => T): T {
  const value = optional(fields, key, parse);
  if (value === null) {
    throw new NixParseError("narinfo", "missing", { field: key });
  }
  return value;
}

function parseField<T>(key: string, value: string, parse: (value: string) => T): T {
  try {
    return parse(value);
  } catch (error) {
    throw error instanceof NixParseError
      ? new NixParseError("narinfo", error.reason, { field: key, cause: error })
      : error;
  }
}

function parseWord(value: string, lengthMax: number): string {
  if (value.length > lengthMax || !WORD_PATTERN.test(value)) {
    throw new NixParseError("word", `expected up to ${lengthMax} printable characters, got ${quoteExcerpt(value)}`);
  }
  return value;
}

function parseSize(value: string): number {
  const size = Number(value);
  if (!INTEGER_PATTERN.test(value) || !Number.isSafeInteger(size)) {
    throw new NixParseError("size", `not a size in bytes below 2^53: ${quoteExcerpt(value)}`);
  }
  return size;
}

function parseNarSize(value: string): number {
  const size = parseSize(value);
  if (size === 0) {
    throw new NixParseError("size", "no NAR has 0 bytes");
  }
  return size;
}

function parseReferences(value: string): readonly StorePath[] {
  const baseNames = new Set(value.split(" ").filter((baseName) => baseName !== ""));
  return [...baseNames].map(parseStorePathBaseName).sort(compareStorePaths);
}

function parseSignatures(values: readonly string[]): readonly string[] {
  if (values.length > SIGNATURES_MAX) {
    throw new NixParseError("narinfo", `more than ${SIGNATURES_MAX} signatures`, { field: "Sig" });
  }
  return values.map((value) => parseField("Sig", value, (word) => parseWord(word, SIGNATURE_LENGTH_MAX)));
}
