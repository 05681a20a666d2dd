/**
 * Where NAR files live: one file per FileHash under `DATA_DIR/nars/`, written to a temporary file first, then
 * fsync → rename → fsync of the folder, so that a name never stands for half a file.
 */
import { mkdir, open, readdir, rename, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import type { BunFile } from "bun";
import { describeError, NixdeployError } from "../../errors.ts";
import { type FileHash, formatHashNix32 } from "../../nix/hash.ts";
import { syncFolder } from "../data-directory.ts";

export type BlobStore = {
  beginWrite(name: string): Promise<BlobWriter>;
  /** The stored file; it may not exist when the store was tampered with. */
  open(fileHash: FileHash): BunFile;
  /** Does nothing when there is no such file. A reader that has it open reads on. */
  remove(fileHash: FileHash): Promise<void>;
};

export type BlobWriter = {
  append(bytes: Uint8Array): Promise<void>;
  /** Makes the bytes durable under this hash, which the caller has verified. */
  commit(fileHash: FileHash): Promise<void>;
  abort(): Promise<void>;
};

/**
 * Opens the store, makes its folders and removes what a killed process left half-written.
 * @throws NixdeployError `host` when its folders cannot be used
 */
export async function openBlobStore(directory: string): Promise<BlobStore> {
  const temporary = join(directory, "incoming");
  try {
    await mkdir(temporary, { recursive: true });
    for (const leftOver of await readdir(temporary)) await unlink(join(temporary, leftOver));
  } catch (cause) {
    throw new NixdeployError("host", `cannot use the folder of NAR files ${directory}: ${describeError(cause)}`, {
      cause,
    });
  }
  const locate = (fileHash: FileHash) => {
    const name = formatHashNix32(fileHash);
    return { folder: join(directory, name.slice(0, 2)), file: join(directory, name.slice(0, 2), `${name}.nar.zst`) };
  };
  return {
    open: (fileHash) => Bun.file(locate(fileHash).file),
    remove: async (fileHash) => await rm(locate(fileHash).file, { force: true }),
    async beginWrite(name) {
      const path = join(temporary, name);
      const handle = await open(path, "wx");
      return {
        async append(bytes) {
          for (let written = 0; written < bytes.length; ) {
            written += (await handle.write(bytes, written, bytes.length - written)).bytesWritten;
          }
        },
        async commit(fileHash) {
          await handle.sync();
          await handle.close();
          const { folder, file } = locate(fileHash);
          if ((await mkdir(folder, { recursive: true })) !== undefined) await syncFolder(directory);
          await rename(path, file);
          await syncFolder(folder);
        },
        async abort() {
          await handle.close();
          // It has another name when only the last step of a commit failed.
          await rm(path, { force: true });
        },
      };
    },
  };
}
