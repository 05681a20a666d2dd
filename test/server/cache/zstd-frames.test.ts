import { describe, expect, test } from "bun:test";
import { randomFillSync } from "node:crypto";
import { constants, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { createZstdFrames } from "../../../src/server/cache/zstd-frames.ts";

const noise = (sizeBytes: number) => randomFillSync(new Uint8Array(sizeBytes));
const params = (entries: Record<number, number>) => ({ params: entries });
const skippable = Buffer.from("512a4d18030000000a0b0c", "hex");

const files: Readonly<Record<string, Uint8Array>> = {
  "an empty frame": zstdCompressSync(new Uint8Array(0)),
  "one byte": zstdCompressSync(new Uint8Array(1)),
  "a run of zeros": zstdCompressSync(new Uint8Array(300_000)),
  "raw blocks": zstdCompressSync(noise(300_000)),
  "compressed blocks": zstdCompressSync(Buffer.from("to be or not to be ".repeat(30_000))),
  "a checksum": zstdCompressSync(noise(1_000), params({ [constants.ZSTD_c_checksumFlag]: 1 })),
  "no content size": zstdCompressSync(noise(1_000), params({ [constants.ZSTD_c_contentSizeFlag]: 0 })),
  "two frames": Buffer.concat([zstdCompressSync(noise(100)), zstdCompressSync(noise(100))]),
  "a skippable frame": Buffer.concat([skippable, zstdCompressSync(noise(100)), skippable]),
};

function isComplete(file: Uint8Array, cutAt = file.length): boolean {
  const frames = createZstdFrames();
  frames.push(file.subarray(0, cutAt));
  frames.push(file.subarray(cutAt));
  return frames.complete;
}

describe("complete", () => {
  for (const [what, file] of Object.entries(files)) {
    test(what, () => {
      expect(isComplete(file)).toBe(true);
      fc.assert(fc.property(fc.integer({ min: 0, max: file.length }), (cutAt) => isComplete(file, cutAt)));
    });
  }

  test("byte by byte", () => {
    const frames = createZstdFrames();
    for (const byte of files["a checksum"] ?? []) frames.push(Uint8Array.of(byte));
    expect(frames.complete).toBe(true);
  });
});

describe("not complete", () => {
  test("nothing at all", () => expect(isComplete(new Uint8Array(0))).toBe(false));

  for (const [what, file] of Object.entries(files).filter(([, { length }]) => length < 2_000)) {
    test(`${what}, cut anywhere but between frames`, () => {
      const ends = [...Array(file.length).keys()].filter((length) => isComplete(file.subarray(0, length)));
      const between = what === "two frames" ? 1 : what === "a skippable frame" ? 2 : 0;
      expect(ends).toHaveLength(between);
    });
  }

  test("garbage behind a frame", () => {
    const frames = createZstdFrames();
    frames.push(zstdCompressSync(noise(100)));
    expect(() => frames.push(new Uint8Array(4))).toThrow("no zstd frame begins here");
  });

  test("less than a magic number behind a frame", () => {
    expect(isComplete(Buffer.concat([zstdCompressSync(noise(100)), new Uint8Array(3)]))).toBe(false);
  });

  const malformed = { "a reserved block type": "28b52ffd2001070000", "a block above 128 KiB": "28b52ffd2001fcffff" };
  for (const [what, hex] of Object.entries(malformed)) {
    test(what, () => expect(() => createZstdFrames().push(Buffer.from(hex, "hex"))).toThrow("block is malformed"));
  }
});
