/**
 * zstd for NARs on their way into a cache: level 3 with long-distance matching, pull-driven, memory flat.
 *
 * The window is 16 MiB: large enough to find the repetitions of a NAR, small enough for every reader (zstd itself
 * refuses windows beyond 128 MiB, and a device has to hold the window while it unpacks). The size is pledged, so
 * that small NARs get small windows. One compressor uses one thread; who wants more runs several at once
 * (Bun's streaming compressor loses output when zstd's own workers are switched on).
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { constants, createZstdCompress } from "node:zlib";

export const ZSTD_LEVEL = 3;
export const ZSTD_WINDOW_LOG = 24;

/** Few large writes: each one is a round trip to the thread pool, and 1 MiB measured twice as fast as 256 KiB. */
const WRITE_BYTES = 1024 * 1024;
const READ_BYTES = 256 * 1024;

export type CompressOptions = {
  /** Exactly what `source` is going to yield; more than 0. */
  readonly sizeBytes: number;
};

/**
 * `source` as one zstd frame.
 * @throws what `source` throws; or zlib's error when `source` does not yield `sizeBytes` bytes. Nothing that was
 *   yielded before may be taken for a complete frame then.
 */
export async function* compressZstd(
  source: AsyncIterable<Uint8Array>,
  options: CompressOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const compressor = createZstdCompress({
    chunkSize: READ_BYTES,
    pledgedSrcSize: options.sizeBytes,
    params: {
      [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL,
      [constants.ZSTD_c_windowLog]: ZSTD_WINDOW_LOG,
      [constants.ZSTD_c_enableLongDistanceMatching]: 1,
    },
  });
  const input = Readable.from(gatherChunks(source, Math.min(WRITE_BYTES, options.sizeBytes)), {
    objectMode: true,
    highWaterMark: 1,
  });
  const feeding = pipeline(input, compressor);
  // Awaited below; until then a failure must not count as unhandled.
  feeding.catch(() => {});
  try {
    for await (const chunk of compressor) yield chunk;
    await feeding;
  } finally {
    compressor.destroy();
    // Either thrown above already, or the reader has gone and nobody wants it.
    await feeding.catch(() => {});
  }
}

/**
 * The same bytes in chunks of `chunkBytes`, the last one smaller. Each chunk is a buffer of its own, unless `nextBuffer`
 * gives another one, as large as a chunk, that nobody uses any more.
 */
export async function* gatherChunks(
  source: AsyncIterable<Uint8Array>,
  chunkBytes: number,
  nextBuffer: () => Uint8Array = () => new Uint8Array(chunkBytes),
): AsyncGenerator<Uint8Array, void, undefined> {
  let gathered: Uint8Array = new Uint8Array(0);
  let filled = 0;
  for await (const chunk of source) {
    for (let taken = 0; taken < chunk.length; ) {
      if (filled === 0) gathered = nextBuffer();
      const part = chunk.subarray(taken, taken + chunkBytes - filled);
      gathered.set(part, filled);
      filled += part.length;
      taken += part.length;
      if (filled === chunkBytes) {
        yield gathered;
        filled = 0;
      }
    }
  }
  if (filled > 0) yield gathered.subarray(0, filled);
}
