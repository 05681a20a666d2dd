/**
 * From the bytes of a file of the cache to the bytes of a NAR, counted and hashed on both sides of the decompression.
 * The one place that decides whether what arrived is what the narinfo promised; the signature of the narinfo was
 * checked before. Holds one chunk at a time.
 */
import { createHash } from "node:crypto";
import { describeError, NixdeployError } from "../../../errors.ts";
import { fileHashFromDigest, narHashFromDigest } from "../../hash.ts";
import type { NarInfo } from "../../narinfo.ts";
import { decompress, parseReadableCompression } from "../compression.ts";

/**
 * The NAR, at most `narSizeBytes` of it: one byte more and the iteration ends with an error. It ends without an error
 * only when sizes and hashes are right, so a consumer that commits at the end commits the right NAR.
 *
 * @throws NixdeployError("remote") naming the path · whatever `file` throws
 */
export async function* readVerifiedNar(info: NarInfo, file: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const compression = parseReadableCompression(info.compression);
  if (compression === null) throw notWhatWasPromised(info, `the compression ${info.compression} is unknown`);
  const checkedFile = createCheckedFile(info, file);
  const hash = createHash("sha256");
  let sizeBytes = 0;
  try {
    for await (const chunk of decompress(compression, checkedFile.bytes)) {
      sizeBytes += chunk.length;
      if (sizeBytes > info.narSizeBytes) {
        throw notWhatWasPromised(info, `it is larger than the ${info.narSizeBytes} bytes that the cache announced`);
      }
      hash.update(chunk);
      yield chunk;
    }
  } catch (error) {
    // A NixdeployError says already what is wrong; what the transport threw is told from bad bytes by its origin.
    if (error instanceof NixdeployError || checkedFile.failed()) throw error;
    throw notWhatWasPromised(info, `it cannot be decompressed (${describeError(error)})`, error);
  }
  checkedFile.finish();
  if (sizeBytes !== info.narSizeBytes) {
    throw notWhatWasPromised(info, `it ends after ${sizeBytes} of ${info.narSizeBytes} bytes`);
  }
  const narHash = narHashFromDigest(hash.digest());
  if (narHash !== info.narHash) {
    throw notWhatWasPromised(info, `its content has the hash ${narHash}, not the signed ${info.narHash}`);
  }
}

type CheckedFile = {
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Whether `file` itself threw. */
  failed(): boolean;
  /** @throws NixdeployError("remote") unless the whole file was read and is the one of the narinfo */
  finish(): void;
};

function createCheckedFile(info: NarInfo, file: AsyncIterable<Uint8Array>): CheckedFile {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  let hasFailed = false;
  async function* count(): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of file) {
        sizeBytes += chunk.length;
        if (info.fileSizeBytes !== null && sizeBytes > info.fileSizeBytes) {
          throw notWhatWasPromised(info, `its file is larger than the announced ${info.fileSizeBytes} bytes`);
        }
        hash.update(chunk);
        yield chunk;
      }
    } catch (error) {
      hasFailed = true;
      throw error;
    }
  }
  return {
    bytes: count(),
    failed: () => hasFailed,
    finish() {
      if (info.fileSizeBytes !== null && sizeBytes !== info.fileSizeBytes) {
        throw notWhatWasPromised(info, `its file ends after ${sizeBytes} of ${info.fileSizeBytes} bytes`);
      }
      if (info.fileHash !== null && fileHashFromDigest(hash.digest()) !== info.fileHash) {
        throw notWhatWasPromised(info, "its file is not the one that the cache announced (wrong FileHash)");
      }
    },
  };
}

function notWhatWasPromised(info: NarInfo, why: string, cause?: unknown): NixdeployError {
  return new NixdeployError("remote", `cannot import ${info.storePath}: ${why}`, {
    hint: "The file in the cache is damaged: push the path again.",
    cause,
  });
}
