/**
 * tar.gz whose bytes depend on nothing but names, modes and contents: fixed time and owner, sorted, gzip without a time.
 *
 * Compressed by libdeflate, which gives the same bytes on every processor. ustar (POSIX.1-1988) without its prefix
 * field: names of at most 100 bytes, files of less than 8 GiB. Source: POSIX `pax`, "ustar Interchange Format"; RFC 1952.
 */
import { Buffer } from "node:buffer";

export type ArchiveEntry = {
  /** Relative, with slashes. */
  readonly name: string;
  readonly mode: 0o644 | 0o755;
  readonly contents: Uint8Array;
};

/** 1980-01-01T00:00:00Z, the first time that every archiver can tell. */
const MODIFIED_S = 315_532_800;
const BLOCK_BYTES = 512;
const NAME_BYTES_MAX = 100;
/** libdeflate's 6 is near its 9 in size and takes a third of the time. */
const LEVEL = 6;
const GZIP_OS_OFFSET = 9;
const GZIP_OS_UNKNOWN = 255;

/** @throws Error when a name cannot be told in ustar, or occurs twice */
export function createArchive(entries: readonly ArchiveEntry[]): Buffer {
  const sorted = [...entries].sort((left, right) => (left.name < right.name ? -1 : 1));
  const twice = sorted.find((entry, index) => entry.name === sorted[index + 1]?.name);
  if (twice !== undefined) throw new Error(`${twice.name} is twice in the archive`);
  const blocks = sorted.flatMap((entry) => [createHeader(entry), entry.contents, createPadding(entry.contents.length)]);
  const tar = Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK_BYTES)]);
  const gzip = Buffer.from(Bun.gzipSync(tar, { level: LEVEL, library: "libdeflate" }));
  // The time is 0 already; the operating system would be that of the machine that builds.
  gzip[GZIP_OS_OFFSET] = GZIP_OS_UNKNOWN;
  return gzip;
}

function createPadding(sizeBytes: number): Buffer {
  return Buffer.alloc((BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES);
}

function createHeader({ name, mode, contents }: ArchiveEntry): Buffer {
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw new Error(`the name ${name} is too long for the archive`);
  const header = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, offset: number, digits: number) =>
    header.write(`${value.toString(8).padStart(digits, "0")}\0`, offset, "latin1");
  header.write(name, 0, "utf8");
  octal(mode, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(contents.length, 124, 11);
  octal(MODIFIED_S, 136, 11);
  // The checksum is that of the header with spaces in its place; then comes the type, a plain file.
  header.write("        0", 148, "latin1");
  header.write("ustar\x0000root", 257, "latin1");
  header.write("root", 297, "latin1");
  const checksum = header.reduce((sum, byte) => sum + byte, 0);
  header.write(`${checksum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return header;
}
