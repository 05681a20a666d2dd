/**
 * A lock that dies with its process, whatever ends it: SQLite's own exclusive lock on a file that holds nothing. It
 * needs no native code of ours.
 */
import { Database } from "bun:sqlite";
import { explainDatabaseError } from "./database-error.ts";

/**
 * @returns null when another process has it
 * @throws NixdeployError `host` when the file cannot be made
 */
export function takeExclusiveLock(file: string): Disposable | null {
  let lock: Database | null = null;
  try {
    lock = new Database(file, { create: true });
    lock.run("pragma locking_mode = exclusive");
    lock.run("begin exclusive");
    return lock;
  } catch (error) {
    lock?.close();
    if (error instanceof Error && "code" in error && error.code === "SQLITE_BUSY") return null;
    throw explainDatabaseError(error, { what: "the lock file", file, hint: "Remove it: it holds nothing." });
  }
}
