/**
 * The coordinator's folder: who may open it, and what the first start writes into it.
 *
 *     DATA_DIR/                0700
 *       coordinator.db         the database
 *       coordinator.lock       held by the one process that works on the database
 *       nars/                  NAR files
 *       admin-token            written at the first start, 0600
 *       control.sock           the API without a token, 0600, while `serve` runs
 *       last-backup            when and where to, for `nixdeploy doctor`
 *       readiness-probe        written to see whether the disk takes it; also in nars/
 */
import { accessSync, chmodSync, constants, existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describeError, NixdeployError } from "../errors.ts";
import { takeExclusiveLock } from "./database/lock.ts";
import { PROBE_FILE } from "./operations/readiness.ts";

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

const DATABASE = "coordinator.db";
const ADMIN_TOKEN = "admin-token";
const OTHERS = 0o077;
/** Found in the root of a file system that was just made. */
const LOST_AND_FOUND = "lost+found";

/**
 * Makes the folder if need be and takes its lock, which the kernel lets go of whatever ends this process.
 * @throws NixdeployError `host` when it cannot be written, or is not ours, or lost its database, `conflict` when
 *   another process works on it
 */
export function openDataDirectory(
  directory: string,
  /** For a restore: a database that is gone is no fault. */
  options: { readonly mayLackDatabase: boolean } = { mayLackDatabase: false },
): DataDirectory {
  try {
    takeFolder(directory);
  } catch (cause) {
    if (cause instanceof NixdeployError) throw cause;
    const isFile = cause instanceof Error && "code" in cause && cause.code === "EEXIST";
    const why = isFile ? "it is a file" : describeError(cause);
    throw new NixdeployError("host", `cannot use the data directory ${directory}: ${why}`, {
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
  if (!options.mayLackDatabase && hasLostDatabase(directory)) {
    lock[Symbol.dispose]();
    const file = join(directory, DATABASE);
    throw new NixdeployError("host", `cannot open the database ${file}: it is gone, or empty`, {
      hint: `Restore it with \`nixdeploy restore FILE\`. To begin anew, without its tokens and agents, remove ${join(directory, ADMIN_TOKEN)} first.`,
    });
  }
  return {
    databaseFile: join(directory, DATABASE),
    narsDirectory: join(directory, "nars"),
    adminTokenFile: join(directory, ADMIN_TOKEN),
    controlSocket: controlSocketPath(directory),
    [Symbol.dispose]: () => lock[Symbol.dispose](),
  };
}

/**
 * Makes the folder, or makes sure that it is ours alone. The mode of a folder that holds other things is not touched:
 * it may be /tmp, by a slip of the hand.
 */
function takeFolder(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: OWNER_ONLY_DIRECTORY });
  const isShared = (statSync(directory).mode & OTHERS) !== 0;
  const isOurs = existsSync(join(directory, DATABASE)) || readdirSync(directory).every((name) => isNeutral(name));
  if (isShared && !isOurs) {
    throw new NixdeployError("host", `cannot use the data directory ${directory}: others may look into it`, {
      hint: `It holds something else: choose an empty one with --data-dir. If it is right, run \`chmod 700 ${directory}\`.`,
    });
  }
  if (isShared) chmodSync(directory, OWNER_ONLY_DIRECTORY);
  accessSync(directory, constants.W_OK | constants.X_OK);
}

/** What we leave behind ourselves, beside the database, speaks against nothing. */
function isNeutral(name: string): boolean {
  return [LOST_AND_FOUND, ADMIN_TOKEN, "coordinator.lock", "nars", PROBE_FILE].includes(name);
}

/** The admin token is written when the database is there and synced: one without the other was lost. */
function hasLostDatabase(directory: string): boolean {
  if (!existsSync(join(directory, ADMIN_TOKEN))) return false;
  const stats = statSync(join(directory, DATABASE), { throwIfNoEntry: false });
  return stats === undefined || stats.size === 0;
}

/** Writes a file that must never be seen half-written or by others: temporary file, fsync, rename, fsync of the folder. */
export async function writeSecretFile(file: string, text: string): Promise<void> {
  try {
    await replaceFile(file, text);
  } catch (cause) {
    throw new NixdeployError("host", `cannot write ${file}: ${describeError(cause)}`, { cause });
  }
}

async function replaceFile(file: string, text: string): Promise<void> {
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
  await syncFolder(dirname(file));
}

/** Makes new and renamed files in a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}
