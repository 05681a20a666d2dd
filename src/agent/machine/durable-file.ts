/**
 * Files that must survive a power cut, whole: temporary file in the same directory → fsync → rename → fsync of the
 * directory. A reader finds the old content or the new, never a part.
 */
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

export type DurableFileOptions = {
  readonly path: string;
  readonly text: string;
  /** Permissions of the file, for example 0o600. */
  readonly mode: number;
  /** Whose it is; the one who writes it when absent. Only root may give files to others. */
  readonly owner?: { readonly uid: number; readonly gid: number };
};

/** Replaces the file. @throws the system's error; the old content is still there then */
export async function writeDurableFile(options: DurableFileOptions): Promise<void> {
  const temporary = `${options.path}.new`;
  try {
    await writeSynced(temporary, options);
    await rename(temporary, options.path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {
      // What is left behind is overwritten by the next write; the first error says more.
    });
    throw error;
  }
  await syncDirectory(dirname(options.path));
}

async function writeSynced(path: string, { mode, owner, text }: DurableFileOptions): Promise<void> {
  const file = await open(path, "w", mode);
  try {
    if (owner !== undefined) await file.chown(owner.uid, owner.gid);
    // An old file keeps its mode when it is opened again, and a new owner may take a part of it away.
    await file.chmod(mode);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Makes new, renamed and removed names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** The directory with its parents; new ones get `mode`, existing ones stay as they are. */
export async function ensureDirectory(path: string, mode: number): Promise<void> {
  await mkdir(path, { recursive: true, mode });
}
