/**
 * Follows the frames of a zstd file while it streams by, without decompressing it: says whether it stands exactly at
 * the end of a frame. Bun's decompressor ends in silence when its input breaks off or has garbage behind it, and a file
 * like that must never get a name. Checks the shape only; contents, checksums and window are the decompressor's.
 *
 * Grammar (RFC 8878 §3.1), repeated:
 *
 *     frame     = FD2FB528 descriptor [window] [dictionary id] [content size] block+ [checksum]
 *     block     = 3 bytes: last (1 bit), type (2), size (21), little-endian; then the bytes
 *     skippable = 184D2A5? size (4 bytes) bytes
 */

export type ZstdFrames = {
  /** @throws Error at the first byte that cannot follow */
  push(chunk: Uint8Array): void;
  /** At least one frame has passed, and nothing since. */
  readonly complete: boolean;
};

const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const SKIPPABLE_MAGIC_MASK = 0xfffffff0;
const BLOCK_BYTES_MAX = 128 * 1024;
const CHECKSUM_BYTES = 4;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;

/** What comes next: a number of bytes to look at, or to pass over. */
type Step =
  | { readonly kind: "look"; readonly bytes: number; readonly next: (bytes: Buffer) => Step }
  | { readonly kind: "pass"; readonly bytes: number; readonly next: () => Step };

export function createZstdFrames(): ZstdFrames {
  const held = Buffer.alloc(8);
  let step = startOfFrame;
  let done = 0;
  let frames = 0;
  return {
    push(chunk) {
      for (let offset = 0; offset < chunk.length || step.bytes === 0; ) {
        const length = Math.min(step.bytes - done, chunk.length - offset);
        if (step.kind === "look") held.set(chunk.subarray(offset, offset + length), done);
        offset += length;
        done += length;
        if (done < step.bytes) return;
        step = step.kind === "look" ? step.next(held) : step.next();
        done = 0;
        if (step === startOfFrame) frames += 1;
      }
    },
    get complete() {
      return frames > 0 && step === startOfFrame && done === 0;
    },
  };
}

const startOfFrame: Step = {
  kind: "look",
  bytes: 4,
  next(bytes) {
    const magic = bytes.readUInt32LE(0);
    if (magic === MAGIC) return { kind: "look", bytes: 1, next: afterDescriptor };
    if ((magic & SKIPPABLE_MAGIC_MASK) >>> 0 === SKIPPABLE_MAGIC) return { kind: "look", bytes: 4, next: skippable };
    throw new Error("no zstd frame begins here");
  },
};

function skippable(size: Buffer): Step {
  return { kind: "pass", bytes: size.readUInt32LE(0), next: () => startOfFrame };
}

function afterDescriptor(bytes: Buffer): Step {
  const descriptor = bytes.readUInt8(0);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const hasChecksum = (descriptor & 0x04) !== 0;
  const contentSizeFlag = descriptor >> 6;
  const contentSizeBytes = contentSizeFlag === 0 && isSingleSegment ? 1 : (CONTENT_SIZE_BYTES[contentSizeFlag] ?? 0);
  const rest = (isSingleSegment ? 0 : 1) + (DICTIONARY_ID_BYTES[descriptor & 3] ?? 0) + contentSizeBytes;
  return { kind: "pass", bytes: rest, next: () => block(hasChecksum) };
}

function block(hasChecksum: boolean): Step {
  return {
    kind: "look",
    bytes: 3,
    next(bytes) {
      const header = bytes.readUIntLE(0, 3);
      const isLast = (header & 1) === 1;
      const type = (header >> 1) & 3;
      const size = header >> 3;
      if (type === 3 || size > BLOCK_BYTES_MAX) throw new Error("a zstd block is malformed");
      const after = () => (isLast ? endOfFrame(hasChecksum) : block(hasChecksum));
      // Type 1 is one byte, repeated `size` times.
      return { kind: "pass", bytes: type === 1 ? 1 : size, next: after };
    },
  };
}

function endOfFrame(hasChecksum: boolean): Step {
  return hasChecksum ? { kind: "pass", bytes: CHECKSUM_BYTES, next: () => startOfFrame } : startOfFrame;
}
