/**
 * Decompression of NAR files as caches serve them: zstd, xz, gzip, brotli, none.
 *
 * Streams with backpressure in both directions, so that a file which inflates to a thousand times its size costs no
 * memory. Does not check sizes or hashes, and must not be trusted without them: Bun's zstd stream ends without an error
 * when its input is cut off. Compression of our own uploads is in `compress.ts`.
 * Names are those of Nix's narinfos: Nix `src/libutil/compression.cc`.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { pipeline, Readable, type Transform } from "node:stream";
import { constants, createBrotliDecompress, createGunzip, createZstdDecompress } from "node:zlib";
import { NixdeployError } from "../../errors.ts";

export const READABLE_COMPRESSIONS = ["zstd", "xz", "gzip", "br", "none"] as const;
export type ReadableCompression = (typeof READABLE_COMPRESSIONS)[number];

/** Fits the frames in which NARs travel to the Nix daemon. */
const OUTPUT_CHUNK_BYTES = 256 * 1024;
/** 128 MiB, what zstd itself accepts by default: bounds the memory that a stranger's file can claim. */
const ZSTD_WINDOW_LOG_MAX = 27;
const ERROR_TEXT_LENGTH_MAX = 1_000;

/** The compression by its name in a narinfo; null for one that we cannot read (bzip2, lzip, …). */
export function parseReadableCompression(name: string): ReadableCompression | null {
  return READABLE_COMPRESSIONS.find((known) => known === name) ?? null;
}

/**
 * The decompressed bytes, in chunks of up to 256 KiB (`none`: as they come).
 *
 * Leaving the iteration early closes the input.
 * @throws whatever the input throws · Error (zlib) for corrupt bytes · NixdeployError("host") when `xz` is not installed
 */
export function decompress(
  compression: ReadableCompression,
  input: AsyncIterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  switch (compression) {
    case "none":
      return input;
    case "zstd": {
      const params = { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX };
      return readThrough(input, createZstdDecompress({ chunkSize: OUTPUT_CHUNK_BYTES, params }));
    }
    case "gzip":
      return readThrough(input, createGunzip({ chunkSize: OUTPUT_CHUNK_BYTES }));
    case "br":
      return readThrough(input, createBrotliDecompress({ chunkSize: OUTPUT_CHUNK_BYTES }));
    case "xz":
      return readThroughXz(input);
    default:
      return compression satisfies never;
  }
}

async function* readThrough(input: AsyncIterable<Uint8Array>, transform: Transform): AsyncGenerator<Uint8Array> {
  // The callback is only there because pipeline wants one: an error of either stream comes out of the iteration.
  pipeline(Readable.from(input), transform, () => {});
  yield* chunksOf(transform);
}

/** By the program, because Bun has no xz: one process a stream, which dies with it. */
async function* readThroughXz(input: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const child = spawn("xz", ["--decompress", "--stdout"], { stdio: "pipe" });
  let errorText = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    errorText = `${errorText}${String(text)}`.slice(-ERROR_TEXT_LENGTH_MAX);
  });
  const exited = once(child, "close");
  let inputError: unknown = null;
  pipeline(
    watchErrors(input, (error) => (inputError = error)),
    child.stdin,
    () => {
      // The end of the program's input, or of the program; both show below.
    },
  );
  try {
    yield* chunksOf(child.stdout);
    const [code] = await exited;
    if (inputError !== null) throw inputError;
    if (code !== 0) throw new Error(errorText.trim().replace(/^xz: /, "") || `xz ended with code ${code}`);
  } catch (error) {
    if (inputError === null && isNotFound(error)) {
      throw new NixdeployError("host", "cannot decompress xz: there is no program `xz` on this machine", {
        hint: "Install xz (Debian: xz-utils), or serve the cache with zstd.",
        cause: error,
      });
    }
    throw error;
  } finally {
    child.kill("SIGKILL");
    // Not awaited after a failure to start: then neither event ever comes. An early end has no news for anybody.
    exited.catch(() => {});
  }
}

async function* watchErrors(
  input: AsyncIterable<Uint8Array>,
  onError: (error: unknown) => void,
): AsyncGenerator<Uint8Array> {
  try {
    yield* input;
  } catch (error) {
    onError(error);
    throw error;
  }
}

async function* chunksOf(stream: Readable): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    if (!(chunk instanceof Uint8Array)) throw new TypeError("a stream of bytes gave something else");
    yield chunk;
  }
}

function isNotFound(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}
