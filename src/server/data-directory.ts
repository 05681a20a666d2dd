/**
 * The coordinator's folder: who may open it, and what the first start writes into it.
 *
 *     DATA_DIR/                0700
 *       coordinator.db         the database
 *       coordinator.lock       held by the one process that works on the database
 *       nars/                  NAR files
 *       admin-token            written at the first start, 0600
 *       control.sock           the API without a token, 0600, while `serve` runs
 */
import { accessSync, chmodSync, constants, mkdirSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { join } from "node:path";
import { describeError, NixdeployError } from "../errors.ts";
import { takeExclusiveLock } from "./database/lock.ts";

export type DataDirectory = Disposable & {
  readonly databaseFile: string;
  readonly narsDirectory: string;
  readonly adminTokenFile: string;
  readonly controlSocket: string;
};

const OWNER_ONLY_DIRECTORY = 0o700;
const OWNER_ONLY_FILE = 0o600;

/** Where clients on this host find the control socket of a running coordinator. */
export function controlSocketPath(directory: string): string {
  return join(directory, "control.sock");
}

/**
 * Makes the folder if need be and takes its lock, which the kernel lets go of whatever ends this process.
 * @throws NixdeployError `host` when it cannot be written, `conflict` when another process works on it
 */
export function openDataDirectory(directory: string): DataDirectory {
  try {
    mkdirSync(directory, { recursive: true, mode: OWNER_ONLY_DIRECTORY });
    chmodSync(directory, OWNER_ONLY_DIRECTORY);
    accessSync(directory, constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw new NixdeployError("host", `cannot use the data directory ${directory}: ${describeError(cause)}`, {
      cause,
      hint: "Choose another one with --data-dir, or run as a user that may write it.",
    });
  }
  const lock = takeExclusiveLock(join(directory, "coordinator.lock"));
  if (lock === null) {
    throw new NixdeployError(
      "conflict",
      `cannot use the data directory ${directory}: another coordinator works on it`,
      {
        hint: "Stop the other one, or choose another --data-dir.",
      },
    );
  }
  return {
    databaseFile: join(directory, "coordinator.db"),
    narsDirectory: join(directory, "nars"),
    adminTokenFile: join(directory, "admin-token"),
    controlSocket: controlSocketPath(directory),
    [Symbol.dispose]: () => lock[Symbol.dispose](),
  };
}

/** Writes a file that must never be seen half-written or by others: temporary file, fsync, rename, fsync of the folder. */
export async function writeSecretFile(file: string, text: string): Promise<void> {
  const temporary = `${file}.new`;
  const handle = await open(temporary, "w", OWNER_ONLY_FILE);
  try {
    await handle.chmod(OWNER_ONLY_FILE);
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
  const folder = await open(join(file, ".."), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
