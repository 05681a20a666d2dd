/**
 * Checks an upload while it streams by: compressed bytes go in, and at the end either everything was what it claimed to
 * be (the grammar of the NAR with its strict order, NarHash, NarSize) or an error says what was not. Holds one
 * decompressor window, never a NAR.
 */
import { createHash } from "node:crypto";
import { constants, createZstdDecompress } from "node:zlib";
import { describeError, NixdeployError } from "../../errors.ts";
import { type FileHash, fileHashFromDigest, type NarHash, narHashFromDigest } from "../../nix/hash.ts";
import { createNarReader } from "../../nix/nar/nar-reader.ts";
import { createZstdFrames } from "./zstd-frames.ts";

export type NarValidator = {
  /** @throws NixdeployError `refused` when the bytes cannot be the beginning of what was claimed */
  push(compressed: Uint8Array): Promise<void>;
  /** @throws NixdeployError `refused` when the whole is not what was claimed */
  finish(): Promise<FileHash>;
  abort(): void;
};

/** A pusher may use a window of this size (log 2), so that readers need no more memory either: 16 MiB. */
export const ZSTD_WINDOW_LOG_MAX = 24;
const OUTPUT_CHUNK_BYTES = 256 * 1024;

export function createNarValidator(claim: { readonly narHash: NarHash; readonly narSizeBytes: number }): NarValidator {
  const reader = createNarReader();
  const narHash = createHash("sha256");
  const fileHash = createHash("sha256");
  const decompressor = createZstdDecompress({
    chunkSize: OUTPUT_CHUNK_BYTES,
    params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX },
  });
  const frames = createZstdFrames();
  let narBytes = 0;
  let failure: NixdeployError | null = null;
  let wake: (() => void) | null = null;
  const ended = Promise.withResolvers<void>();
  const fail = (why: string, cause?: unknown) => {
    failure ??= new NixdeployError("refused", `cannot store the NAR: ${why}`, { cause });
    wake?.();
    ended.resolve();
  };
  decompressor.on("data", (chunk: Uint8Array) => {
    if (failure !== null) return;
    narBytes += chunk.length;
    if (narBytes > claim.narSizeBytes) return fail(`it is larger than the ${claim.narSizeBytes} bytes it claims`);
    narHash.update(chunk);
    try {
      if (reader.push(chunk) < chunk.length) fail("there are bytes after its end");
    } catch (error) {
      fail(describeError(error), error);
    }
  });
  decompressor.on("error", (error: Error) => fail(`it is not valid zstd with a window of at most 16 MiB`, error));
  decompressor.on("end", () => ended.resolve());
  return {
    async push(compressed) {
      fileHash.update(compressed);
      try {
        frames.push(compressed);
      } catch (error) {
        fail(`it is not valid zstd: ${describeError(error)}`, error);
      }
      if (failure !== null) throw failure;
      await new Promise<void>((resolve) => {
        wake = resolve;
        decompressor.write(compressed, () => resolve());
      });
      if (failure !== null) throw failure;
    },
    async finish() {
      decompressor.end();
      await ended.promise;
      if (failure !== null) throw failure;
      if (!frames.complete) {
        throw new NixdeployError("refused", "cannot store the NAR: it is not valid zstd: its end is missing");
      }
      if (!reader.ended || narBytes !== claim.narSizeBytes) {
        throw new NixdeployError(
          "refused",
          `cannot store the NAR: it ends after ${narBytes} of the ${claim.narSizeBytes} bytes it claims`,
        );
      }
      if (narHashFromDigest(narHash.digest()) !== claim.narHash) {
        throw new NixdeployError("refused", "cannot store the NAR: its NarHash is not the one it claims");
      }
      return fileHashFromDigest(fileHash.digest());
    },
    abort: () => decompressor.destroy(),
  };
}
