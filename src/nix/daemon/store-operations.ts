/**
 * The requests and replies of the operations we use, field by field. No waiting for turns, no errors of the daemon:
 * that is `connection.ts`. Field order: Nix src/libstore/daemon.cc (performOp), the same from 1.34 to 1.38.
 */
import { formatHashHex, narHashFromHex } from "../hash.ts";
import type { PathInfo } from "../path-info.ts";
import { parseStorePath, type StorePath } from "../store-path.ts";
import type { ByteReader } from "./byte-reader.ts";
import { ProtocolError } from "./daemon-error.ts";
import { LIST_MAX_LENGTH, operations, TEXT_MAX_BYTES, WireEncoder } from "./wire.ts";

const TEXTS_LIMITS = { maxLength: LIST_MAX_LENGTH, textMaxBytes: TEXT_MAX_BYTES };

export function encodeQueryValidPaths(paths: readonly StorePath[]): Uint8Array {
  return new WireEncoder().int(operations.queryValidPaths).texts(paths).bool(false).finish(); // false: do not substitute
}

/** @returns those of `asked` that the daemon has */
export async function readValidPaths(reader: ByteReader, asked: readonly StorePath[]): Promise<StorePath[]> {
  const valid = new Set(await reader.readTexts({ ...TEXTS_LIMITS, maxLength: asked.length }));
  const known = asked.filter((path) => valid.delete(path));
  if (valid.size > 0) throw new ProtocolError("valid paths that nobody asked for");
  return known;
}

export function encodeQueryAllValidPaths(): Uint8Array {
  return new WireEncoder().int(operations.queryAllValidPaths).finish();
}

export async function readAllValidPaths(reader: ByteReader): Promise<StorePath[]> {
  return (await reader.readTexts(TEXTS_LIMITS)).map(parseStorePath);
}

export function encodeQueryPathInfo(path: StorePath): Uint8Array {
  return new WireEncoder().int(operations.queryPathInfo).text(path).finish();
}

/** A valid path, and where it came from. */
export type ValidPath = {
  readonly info: PathInfo;
  /** Built in this store: what Nix calls "ultimate". */
  readonly isBuiltHere: boolean;
};

/** @returns null when the path is not valid */
export async function readValidPath(reader: ByteReader, storePath: StorePath): Promise<ValidPath | null> {
  if (!(await reader.readBool())) return null;
  const deriver = await reader.readText(TEXT_MAX_BYTES);
  const narHash = narHashFromHex(await reader.readText(TEXT_MAX_BYTES));
  const references = (await reader.readTexts(TEXTS_LIMITS)).map(parseStorePath);
  await reader.readInt(); // registration time
  const narSizeBytes = await reader.readInt();
  const isBuiltHere = await reader.readBool();
  const signatures = await reader.readTexts(TEXTS_LIMITS);
  const contentAddress = await reader.readText(TEXT_MAX_BYTES);
  const info = {
    storePath,
    narHash,
    narSizeBytes,
    references: [...new Set(references)].sort(),
    deriver: deriver === "" ? null : parseStorePath(deriver),
    signatures,
    contentAddress: contentAddress === "" ? null : contentAddress,
  };
  return { info, isBuiltHere };
}

/** One request per path, back to back. */
export function encodeAddTempRoots(paths: readonly StorePath[]): Uint8Array {
  const requests = new WireEncoder();
  for (const path of paths) requests.int(operations.addTempRoot).text(path);
  return requests.finish();
}

/** @param linkPath absolute */
export function encodeAddIndirectRoot(linkPath: string): Uint8Array {
  return new WireEncoder().int(operations.addIndirectRoot).text(linkPath).finish();
}

/** The 1 that AddTempRoot and AddIndirectRoot answer. */
export async function readDone(reader: ByteReader): Promise<void> {
  const value = await reader.readInt();
  if (value !== 1) throw new ProtocolError(`${value} where 1 belongs`);
}

/** The reply is the NAR itself, without length or frames. */
export function encodeNarFromPath(path: StorePath): Uint8Array {
  return new WireEncoder().int(operations.narFromPath).text(path).finish();
}

/** What precedes the frames. The reply has no fields. */
export function encodeAddToStoreNar(info: PathInfo, options: { readonly checkSignatures: boolean }): Uint8Array {
  return new WireEncoder()
    .int(operations.addToStoreNar)
    .text(info.storePath)
    .text(info.deriver ?? "")
    .text(formatHashHex(info.narHash))
    .texts(info.references)
    .int(0) // registration time: now
    .int(info.narSizeBytes)
    .bool(false) // ultimate: not built here
    .texts(info.signatures)
    .text(info.contentAddress ?? "")
    .bool(false) // repair
    .bool(!options.checkSignatures)
    .finish();
}
