/** How much there is of the coordinator's disk: sizes of the database, room on the file systems. Asks, decides nothing. */
import { stat, statfs } from "node:fs/promises";

/** Where the coordinator keeps what it keeps; null stands for a database in memory. */
export type StoragePlaces = { readonly databaseFile: string; readonly narsDirectory: string };

export type Room = { readonly freeBytes: number; readonly totalBytes: number };

/** Of the file system that holds the path, for who is not root. Null when it cannot be asked. */
export async function readRoom(path: string): Promise<Room | null> {
  try {
    const { bsize, bavail, blocks } = await statfs(path);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  } catch {
    // Whoever asks has to do without; that the folder is gone is said by whoever needs it.
    return null;
  }
}

/** @returns 0 for a file that is not there */
export async function readFileSize(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch {
    // As with the log of a database that nobody has written to yet.
    return 0;
  }
}
