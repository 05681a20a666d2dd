import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { createZstdDecompress, zstdDecompressSync } from "node:zlib";
import { compressZstd, gatherChunks } from "../../../src/nix/cache/compress.ts";

const MEBIBYTE = 1024 * 1024;

/** Half noise, half zeros, in chunks as a daemon sends them. */
async function* makeData(sizeBytes: number, chunkBytes = 64 * 1024): AsyncGenerator<Uint8Array> {
  let state = 1;
  for (let offset = 0; offset < sizeBytes; offset += chunkBytes) {
    const chunk = new Uint8Array(Math.min(chunkBytes, sizeBytes - offset));
    for (let index = 0; index < chunk.length / 2; index += 1) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      chunk[index] = state >>> 24;
    }
    yield chunk;
  }
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function sha256(source: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of source) hash.update(chunk);
  return hash.digest("hex");
}

describe("compressZstd", () => {
  test.each([1, 112, 65_536, MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1, 3 * MEBIBYTE])(
    "round-trips %d bytes",
    async (size) => {
      const compressed = await collect(compressZstd(makeData(size), { sizeBytes: size }));
      const expected = await collect(makeData(size));
      expect(zstdDecompressSync(compressed).equals(expected)).toBe(true);
    },
  );

  test("round-trips 40 MiB as a stream in flat memory", async () => {
    const size = 40 * MEBIBYTE;
    let yieldedMax = 0;
    async function* watched() {
      for await (const chunk of compressZstd(makeData(size), { sizeBytes: size })) {
        yieldedMax = Math.max(yieldedMax, chunk.length);
        yield chunk;
      }
    }
    // The first round pays for what stays: code, the compressor's window.
    expect(await sha256(Readable.from(watched()).pipe(createZstdDecompress()))).toBe(await sha256(makeData(size)));
    Bun.gc(true);
    const before = process.memoryUsage().rss;
    expect(await sha256(Readable.from(watched()).pipe(createZstdDecompress()))).toBe(await sha256(makeData(size)));
    Bun.gc(true);
    expect(process.memoryUsage().rss - before).toBeLessThan(30 * MEBIBYTE);
    expect(yieldedMax).toBeLessThanOrEqual(MEBIBYTE);
  }, 60_000);

  test("does not read ahead of a reader that has stopped", async () => {
    let readBytes = 0;
    async function* counted() {
      for await (const chunk of makeData(40 * MEBIBYTE)) {
        readBytes += chunk.length;
        yield chunk;
      }
    }
    const compressed = compressZstd(counted(), { sizeBytes: 40 * MEBIBYTE });
    await compressed.next();
    for (let turn = 0; turn < 200; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
    expect(readBytes).toBeLessThan(12 * MEBIBYTE);
    await compressed.return();
  });

  test("closes its source when the reader leaves early", async () => {
    let closed = false;
    async function* watched() {
      try {
        yield* makeData(20 * MEBIBYTE);
      } finally {
        closed = true;
      }
    }
    for await (const _ of compressZstd(watched(), { sizeBytes: 20 * MEBIBYTE })) break;
    expect(closed).toBe(true);
  });

  test("hands on what its source throws, and never a clean end", async () => {
    async function* broken() {
      yield* makeData(3 * MEBIBYTE);
      throw new Error("the disk is gone");
    }
    const run = collect(compressZstd(broken(), { sizeBytes: 4 * MEBIBYTE }));
    await expect(run).rejects.toThrow("the disk is gone");
  });

  test.each([-1, 1])("refuses a source that is off by %d bytes", async (by) => {
    const run = collect(compressZstd(makeData(2 * MEBIBYTE + by), { sizeBytes: 2 * MEBIBYTE }));
    await expect(run).rejects.toThrow();
  });

  test("finds repetitions far apart, and pledges the size", async () => {
    const block = await collect(makeData(4 * MEBIBYTE));
    async function* twice() {
      yield block;
      yield block;
    }
    const once = await collect(compressZstd(makeData(4 * MEBIBYTE), { sizeBytes: 4 * MEBIBYTE }));
    const both = await collect(compressZstd(twice(), { sizeBytes: 8 * MEBIBYTE }));
    expect(both.length).toBeLessThan(once.length * 1.05);
    // RFC 8878 §3.1.1.1: a frame header with the content size in 4 bytes has the flag 2 in its top bits.
    expect((both[4] ?? 0) >> 6).toBe(2);
  });
});

describe("gatherChunks", () => {
  test.each([
    [[], []],
    [[1], [1]],
    [[4], [4]],
    [
      [3, 3],
      [4, 2],
    ],
    [
      [9, 0, 1],
      [4, 4, 2],
    ],
    [
      [4, 4],
      [4, 4],
    ],
  ])("%p come out as %p", async (sizes, expected) => {
    async function* source() {
      let next = 0;
      for (const size of sizes) yield Uint8Array.from({ length: size }, () => next++);
    }
    const chunks: Uint8Array[] = [];
    for await (const chunk of gatherChunks(source(), 4)) chunks.push(chunk);
    expect(chunks.map((chunk) => chunk.length)).toEqual(expected);
    expect(chunks.flatMap((chunk) => [...chunk])).toEqual(Array.from({ length: sum(sizes) }, (_, index) => index));
  });
});

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
