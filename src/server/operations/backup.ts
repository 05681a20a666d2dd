/**
 * Backups of the coordinator: its whole database, one moment's state, while it serves. The NAR files are not in it:
 * they never change once they are there, so any copy of DATA_DIR/nars taken *after* the backup goes with it. What a
 * restore finds no file for is forgotten, and the next push uploads it again.
 */
import { existsSync, statSync } from "node:fs";
import { access, constants, copyFile, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { describeError, NixdeployError } from "../../errors.ts";
import type { Clock } from "../../runtime.ts";
import { openBlobStore } from "../cache/blob-store.ts";
import { type DataDirectory, openDataDirectory, syncFolder } from "../data-directory.ts";
import { listNotBegun } from "../database/deployments.ts";
import { closeIntoOneFile, explainDatabaseFault, openDatabase } from "../database/dialect.ts";
import { migrate } from "../database/migrations.ts";
import { forgetNars, listNars } from "../database/paths.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { copyDatabase, verifyDatabase } from "../database/snapshot.ts";
import { applyEvent } from "../deployments/transition.ts";

export type BackupReport = { readonly file: string; readonly sizeBytes: number };

/**
 * Replaces `file` at once, whole, or not at all; the coordinator may run.
 * @throws NixdeployError `host` · `refused` when the database is damaged
 */
export async function writeBackup(options: {
  readonly databaseFile: string;
  readonly file: string;
}): Promise<BackupReport> {
  const { databaseFile, file } = options;
  if (!existsSync(databaseFile)) {
    throw new NixdeployError("not-found", `cannot back up ${databaseFile}: there is no such database`, {
      hint: "--data-dir names the coordinator's data directory.",
    });
  }
  const temporary = `${file}.new`;
  try {
    // SQLite would say of the database that it cannot be opened.
    await access(dirname(file), constants.W_OK);
    await rm(temporary, { force: true });
    await copyDatabase({ from: databaseFile, to: temporary });
    verifyDatabase(temporary);
    await rename(temporary, file);
    await syncFolder(dirname(file));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {
      // What went wrong first says more.
    });
    if (error instanceof NixdeployError) throw error;
    throw new NixdeployError("host", `cannot write the backup ${file}: ${describeError(error)}`, { cause: error });
  }
  return { file, sizeBytes: (await stat(file)).size };
}

export type RestoreReport = {
  /** Deployments that had not begun, and are cancelled: they may have been done, or overtaken, since the backup. */
  readonly cancelled: number;
  /** Store paths whose NAR files are not there, with those that need them. */
  readonly forgottenPaths: number;
  /** Where the database that was there before is now. */
  readonly replaced: string | null;
};

/**
 * Makes a backup the database of a data directory that no coordinator works on. Killed at any point, it can be begun
 * again.
 * @throws NixdeployError `refused` when the file is no good backup · `conflict` when there is a database and `replace` is
 *   false, or a coordinator runs · `host`
 */
export async function restoreBackup(options: {
  readonly file: string;
  readonly dataDirectory: string;
  /** Puts a database that is there aside. */
  readonly replace: boolean;
  readonly clock: Clock;
}): Promise<RestoreReport> {
  const { file, clock } = options;
  verifyDatabase(file);
  using directory = openDataDirectory(options.dataDirectory, { mayLackDatabase: true });
  const { databaseFile } = directory;
  if (!options.replace && (statSync(databaseFile, { throwIfNoEntry: false })?.size ?? 0) > 0) {
    throw new NixdeployError("conflict", `cannot restore into ${options.dataDirectory}: it has a database`, {
      hint: "--replace puts that one aside, under another name.",
    });
  }
  const prepared = `${databaseFile}.restored`;
  await removeDatabase(prepared);
  await copyFile(file, prepared);
  const settled = await settle(prepared, directory, clock);
  await syncFile(prepared);
  const replaced = await putAside(databaseFile, `${databaseFile}.replaced-${clock.nowMs()}`);
  await rename(prepared, databaseFile);
  await syncFolder(dirname(databaseFile));
  return { ...settled, replaced };
}

async function settle(file: string, { narsDirectory }: DataDirectory, clock: Clock) {
  const blobs = await openBlobStore(narsDirectory);
  const database = openDatabase(file);
  try {
    await migrate(database);
    const nars = await listNars(database);
    const sizes = await Promise.all(
      nars.map((nar) =>
        blobs
          .open(nar.file_hash)
          .stat()
          .then(
            ({ size }) => size,
            () => -1,
          ),
      ),
    );
    const lost = nars.filter((nar, index) => sizes[index] !== nar.file_size_bytes);
    const report = await database.transaction().execute(async (transaction) => ({
      forgottenPaths: await forgetNars(transaction, lost),
      cancelled: await cancelNotBegun(transaction, clock.nowMs()),
    }));
    await closeIntoOneFile(database);
    return report;
  } catch (error) {
    await database.destroy();
    throw explainDatabaseFault(error, file);
  }
}

async function cancelNotBegun(transaction: CoordinatorDatabase, atMs: number): Promise<number> {
  const rows = await listNotBegun(transaction);
  for (const row of rows) await applyEvent(transaction, row, { event: { type: "restore" }, atMs });
  return rows.length;
}

const PARTS = ["", "-wal", "-shm"] as const;

async function removeDatabase(file: string): Promise<void> {
  for (const part of PARTS) await rm(`${file}${part}`, { force: true });
}

/** Its log too, even alone: SQLite would take it for the log of whatever database comes to stand beside it. */
async function putAside(from: string, to: string): Promise<string | null> {
  const parts = PARTS.filter((part) => existsSync(`${from}${part}`));
  for (const part of parts) await rename(`${from}${part}`, `${to}${part}`);
  return parts.length === 0 ? null : to;
}

async function syncFile(path: string): Promise<void> {
  await using file = await open(path, "r+");
  await file.sync();
}
