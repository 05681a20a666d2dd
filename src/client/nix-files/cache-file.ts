/**
 * A single file out of a binary cache: how a spec is read that is not in the local store.
 *
 * Only for small files: the NAR is held in memory, within {@link FILE_BYTES_MAX}. What arrives is checked against the
 * narinfo's NAR hash, not against signatures: who asks trusts the coordinator with the deployment anyhow.
 */
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { zstdDecompress } from "node:zlib";
import { describeError, NixdeployError } from "../../errors.ts";
import { narHashFromDigest } from "../../nix/hash.ts";
import { createNarReader } from "../../nix/nar/nar-reader.ts";
import { type NarInfo, parseNarInfo } from "../../nix/narinfo.ts";
import { NixParseError } from "../../nix/parse-error.ts";
import { type StorePath, storePathHash } from "../../nix/store-path.ts";

export const FILE_BYTES_MAX = 16 * 1024 * 1024;
/** What a NAR adds to one file. */
const NAR_FRAME_BYTES = 4_096;
const NAR_INFO_BYTES_MAX = 1024 * 1024;

export type CacheReader = {
  /**
   * A file of the cache by its path below the cache's address, such as `nar/….nar.zst`; null when there is none.
   * @throws NixdeployError "remote" when it is larger than `bytesMax`
   */
  readFile(
    path: string,
    options: { readonly bytesMax: number; readonly signal: AbortSignal },
  ): Promise<Uint8Array | null>;
};

/**
 * The contents of `storePath`, which must be a plain file.
 * @returns null when the cache does not have the path
 * @throws NixdeployError "refused" when it is too large or no file, "remote" when the cache answers something wrong
 */
export async function readFileFromCache(
  cache: CacheReader,
  storePath: StorePath,
  signal: AbortSignal,
): Promise<Uint8Array | null> {
  const text = await cache.readFile(`${storePathHash(storePath)}.narinfo`, { bytesMax: NAR_INFO_BYTES_MAX, signal });
  if (text === null) return null;
  const info = parseAnswer(storePath, () => parseNarInfo(new TextDecoder().decode(text)));
  if (info.storePath !== storePath) throw wrongAnswer(storePath, `its narinfo is that of ${info.storePath}`);
  if (info.narSizeBytes > FILE_BYTES_MAX + NAR_FRAME_BYTES) {
    throw new NixdeployError("refused", `cannot read ${storePath}: it is larger than ${FILE_BYTES_MAX} bytes`);
  }
  const bytesMax = info.fileSizeBytes ?? FILE_BYTES_MAX + NAR_FRAME_BYTES;
  const file = await cache.readFile(info.url, { bytesMax: Math.min(bytesMax, 2 * FILE_BYTES_MAX), signal });
  if (file === null) throw wrongAnswer(storePath, "the cache has its narinfo but not its NAR");
  const nar = await unpack(info, file);
  return parseAnswer(storePath, () => parseFileNar(storePath, nar));
}

async function unpack(info: NarInfo, file: Uint8Array): Promise<Uint8Array> {
  const nar = info.compression === "none" ? file : await decompress(info, file);
  const narHash = narHashFromDigest(createHash("sha256").update(nar).digest());
  if (nar.length !== info.narSizeBytes || narHash !== info.narHash) {
    throw wrongAnswer(info.storePath, "the NAR is not the one that its narinfo names");
  }
  return nar;
}

async function decompress(info: NarInfo, file: Uint8Array): Promise<Uint8Array> {
  if (info.compression !== "zstd") {
    throw wrongAnswer(info.storePath, `it is compressed with ${info.compression}, which is not supported here`);
  }
  try {
    return await promisify(zstdDecompress)(file, { maxOutputLength: info.narSizeBytes });
  } catch (error) {
    throw wrongAnswer(info.storePath, `the NAR cannot be decompressed: ${describeError(error)}`);
  }
}

function parseFileNar(storePath: StorePath, nar: Uint8Array): Uint8Array {
  const chunks: Uint8Array[] = [];
  const refuse = () => {
    throw new NixdeployError("refused", `cannot read ${storePath}: it is no plain file`);
  };
  const reader = createNarReader({ data: (chunk) => chunks.push(chunk), directory: refuse, symlink: refuse });
  const taken = reader.push(nar);
  reader.finish();
  if (taken !== nar.length) throw new Error("there are bytes behind its end");
  return Buffer.concat(chunks);
}

function parseAnswer<T>(storePath: StorePath, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof NixdeployError) throw error;
    throw wrongAnswer(
      storePath,
      error instanceof NixParseError ? `its ${error.format} is wrong` : describeError(error),
      error,
    );
  }
}

function wrongAnswer(storePath: StorePath, why: string, cause?: unknown): NixdeployError {
  return new NixdeployError("remote", `cannot read ${storePath} from the cache: ${why}`, {
    hint: "Is it a nixdeploy coordinator? Check NIXDEPLOY_URL or --url.",
    cause,
  });
}
