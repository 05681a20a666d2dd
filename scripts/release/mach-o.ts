/**
 * Code signatures in executables for macOS. macOS kills a program whose pages do not have the hashes that its signature
 * says; on arm64 it must have one, if only an ad hoc one, which names nobody. Bun makes such a one for arm64; for x64 it
 * leaves the signature of Bun itself, which no longer fits, and that is why we sign here.
 *
 * Knows the one form that it writes: a super blob with a code directory (version 0x20400) of SHA-256 hashes.
 * Sources: Apple `mach-o/loader.h`, `kern/cs_blobs.h`. All of the signature is big-endian.
 */
import { createHash } from "node:crypto";
import type { Processor } from "./executable.ts";

const MAGIC_64 = 0xfeedfacf;
const PROCESSORS: Readonly<Record<Processor, number>> = { x64: 0x01000007, arm64: 0x0100000c };
const HEADER_BYTES = 32;
const LC_SEGMENT_64 = 0x19;
const LC_CODE_SIGNATURE = 0x1d;

const SUPER_BLOB_MAGIC = 0xfade0cc0;
/** With an index of one entry. */
const SUPER_BLOB_BYTES = 20;
const DIRECTORY_MAGIC = 0xfade0c02;
const DIRECTORY_VERSION = 0x20400;
const DIRECTORY_BYTES = 88;
/** Ad hoc, and made by a linker: so that `codesign` replaces it without being asked to. */
const DIRECTORY_FLAGS = 0x20002;
const HASH_SHA256 = 2;
const HASH_BYTES = 32;
const PAGE_BITS = 12;
const PAGE_BYTES = 2 ** PAGE_BITS;
const MAIN_BINARY = 1n;
/** Apple silicon's, which both processors accept for segments. */
const SEGMENT_ALIGNMENT = 0x4000;

/** Offsets of load commands. */
type Commands = { readonly text: number; readonly linkEdit: number; readonly signature: number | null };

/** @throws Error that says what is not as it must be */
export function checkMachO(bytes: Buffer, machine: Processor): void {
  if (bytes.readUInt32LE(0) !== MAGIC_64) throw new Error("the executable is no 64-bit Mach-O file");
  const processor = bytes.readUInt32LE(4);
  if (processor !== PROCESSORS[machine]) throw new Error(`the executable is for processor ${processor}`);
  const { signature } = findCommands(bytes);
  if (signature === null) throw new Error("the executable is not signed");
  checkDirectory(bytes, bytes.readUInt32LE(signature + 8));
}

/** The executable with an ad hoc signature in the place of the one that it has. */
export function signAdHoc(executable: Buffer, identifier: string): Buffer {
  const { text, linkEdit, signature } = findCommands(executable);
  if (signature === null) throw new Error("the executable has no room for a signature");
  const codeBytes = executable.readUInt32LE(signature + 8);
  const identifierBytes = Buffer.from(`${identifier}\0`);
  const pageCount = Math.ceil(codeBytes / PAGE_BYTES);
  const blob = Buffer.alloc(SUPER_BLOB_BYTES + DIRECTORY_BYTES + identifierBytes.length + pageCount * HASH_BYTES);
  const signed = Buffer.concat([executable.subarray(0, codeBytes), blob]);
  // These are in pages that are hashed below.
  signed.writeUInt32LE(blob.length, signature + 12);
  const linkEditBytes = signed.length - Number(executable.readBigUInt64LE(linkEdit + 40));
  signed.writeBigUInt64LE(BigInt(linkEditBytes), linkEdit + 48);
  const mappedBytes = Math.ceil(linkEditBytes / SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT;
  signed.writeBigUInt64LE(BigInt(mappedBytes), linkEdit + 32);

  [SUPER_BLOB_MAGIC, blob.length, 1, 0, SUPER_BLOB_BYTES].forEach((word, index) => {
    blob.writeUInt32BE(word, 4 * index);
  });
  const directory = blob.subarray(SUPER_BLOB_BYTES);
  const hashOffset = DIRECTORY_BYTES + identifierBytes.length;
  const words = [DIRECTORY_MAGIC, directory.length, DIRECTORY_VERSION, DIRECTORY_FLAGS, hashOffset, DIRECTORY_BYTES];
  [...words, 0, pageCount, codeBytes].forEach((word, index) => {
    directory.writeUInt32BE(word, 4 * index);
  });
  directory.set([HASH_BYTES, HASH_SHA256, 0, PAGE_BITS], 36);
  directory.writeBigUInt64BE(executable.readBigUInt64LE(text + 40), 64);
  directory.writeBigUInt64BE(executable.readBigUInt64LE(text + 48), 72);
  directory.writeBigUInt64BE(MAIN_BINARY, 80);
  directory.set(identifierBytes, DIRECTORY_BYTES);
  for (let page = 0; page < pageCount; page += 1) {
    directory.set(hashPage(signed, page, codeBytes), hashOffset + page * HASH_BYTES);
  }
  signed.set(blob, codeBytes);
  return signed;
}

function findCommands(bytes: Buffer): Commands {
  const segments = new Map<string, number>();
  let signature: number | null = null;
  let command = HEADER_BYTES;
  for (let left = bytes.readUInt32LE(16); left > 0; left -= 1) {
    const kind = bytes.readUInt32LE(command);
    if (kind === LC_CODE_SIGNATURE) signature = command;
    if (kind === LC_SEGMENT_64) {
      segments.set(bytes.toString("latin1", command + 8, command + 24).replace(/\0.*$/s, ""), command);
    }
    command += bytes.readUInt32LE(command + 4);
  }
  const [text, linkEdit] = [segments.get("__TEXT"), segments.get("__LINKEDIT")];
  if (text === undefined || linkEdit === undefined) throw new Error("the executable lacks a segment");
  return { text, linkEdit, signature };
}

function checkDirectory(bytes: Buffer, blob: number): void {
  const directory = blob + bytes.readUInt32BE(blob + 16);
  const isKnown =
    bytes.readUInt32BE(blob) === SUPER_BLOB_MAGIC &&
    bytes.readUInt32BE(directory) === DIRECTORY_MAGIC &&
    bytes.readUInt32BE(directory + 36) === ((HASH_BYTES << 24) | (HASH_SHA256 << 16) | PAGE_BITS);
  if (!isKnown) throw new Error("the executable's signature has another form");
  const hashes = directory + bytes.readUInt32BE(directory + 16);
  const pageCount = bytes.readUInt32BE(directory + 28);
  const codeBytes = bytes.readUInt32BE(directory + 32);
  if (codeBytes !== blob || pageCount !== Math.ceil(codeBytes / PAGE_BYTES)) {
    throw new Error("the executable's signature covers only a part of it");
  }
  for (let page = 0; page < pageCount; page += 1) {
    const signed = bytes.subarray(hashes + page * HASH_BYTES, hashes + (page + 1) * HASH_BYTES);
    if (!hashPage(bytes, page, codeBytes).equals(signed)) {
      throw new Error(`the executable's page ${page} is not the one that was signed`);
    }
  }
}

function hashPage(bytes: Buffer, page: number, codeBytes: number): Buffer {
  const end = Math.min((page + 1) * PAGE_BYTES, codeBytes);
  return createHash("sha256")
    .update(bytes.subarray(page * PAGE_BYTES, end))
    .digest();
}
