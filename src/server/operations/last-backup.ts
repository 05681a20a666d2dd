/**
 * When the last backup was made, and where to: `DATA_DIR/last-backup`, for `nixdeploy doctor`. Nothing depends on it; it
 * may be removed.
 */
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";

const FILE = "last-backup";
const lastBackupSchema = z.object({ file: z.string(), atMs: z.number() });

export type LastBackup = z.output<typeof lastBackupSchema> & {
  /** The file is where it was written to. */
  readonly isThere: boolean;
};

export async function noteBackup(dataDirectory: string, backup: { file: string; atMs: number }): Promise<void> {
  try {
    await writeFile(join(dataDirectory, FILE), `${JSON.stringify(backup)}\n`, { mode: 0o600 });
  } catch {
    // The backup is whole; who may read a database need not be able to write beside it.
  }
}

/** Null when none is noted, or the note is no good. */
export async function readLastBackup(dataDirectory: string): Promise<LastBackup | null> {
  try {
    const noted = lastBackupSchema.parse(JSON.parse(await readFile(join(dataDirectory, FILE), "utf8")));
    const isThere = await stat(noted.file).then(
      () => true,
      () => false,
    );
    return { ...noted, isThere };
  } catch {
    // Then the next backup notes itself.
    return null;
  }
}
