/**
 * Exclusive locks that the kernel releases when their holder dies, however it dies: flock(2) on a file.
 *
 * Files, and not abstract unix sockets, because those belong to the network namespace: two machines in containers with
 * one network would exclude each other. The file itself stays: removing it would let two holders lock two files of one
 * name. Children do not inherit the lock (O_CLOEXEC).
 *
 * A lock needs nothing written: a file that is there can be locked on a disk that is full or read-only.
 */
import { closeSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { fromCLibrary } from "../../c-library.ts";
import { describeError, NixdeployError } from "../../errors.ts";
import { takesNothing } from "./system-error.ts";

const LOCK_EXCLUSIVE = 2;
const LOCK_NONBLOCKING = 4;

const findLibrary = fromCLibrary("lock files", { flock: { args: ["i32", "i32"], returns: "i32" } });

/** A look at a lock holds it for a moment: whoever finds it held looks again, so that no look keeps anybody out. */
const TRIES = 8;
const AGAIN_MS = 2;

/**
 * Takes the lock of a file, which is made, with its directory (of `directoryMode`), if missing.
 *
 * Disposing releases it. Two locks of one file exclude each other within a process too.
 * @param tries one for whoever comes back by himself: the whole process stands still between two
 * @returns null when somebody else holds it
 * @throws NixdeployError("host") when the file is not there and cannot be made, or this system has no flock
 */
export function tryLockFile(path: string, directoryMode = 0o755, tries = TRIES): Disposable | null {
  const descriptor = openLockFile(path, directoryMode);
  for (let left = tries; ; left -= 1) {
    if (lock(descriptor)) return { [Symbol.dispose]: () => closeSync(descriptor) };
    if (left === 1) break;
    Bun.sleepSync(AGAIN_MS);
  }
  closeSync(descriptor);
  return null;
}

/** Whether somebody holds the lock of a file at this moment; nobody does while it is not there. Makes nothing. */
export function isLocked(path: string): boolean {
  const descriptor = openExisting(path);
  if (descriptor === null) return false;
  try {
    return !lock(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function lock(descriptor: number): boolean {
  return findLibrary().flock(descriptor, LOCK_EXCLUSIVE | LOCK_NONBLOCKING) === 0;
}

function openLockFile(path: string, directoryMode: number): number {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: directoryMode });
    return openSync(path, "a", 0o600);
  } catch (error) {
    const existing = takesNothing(error) ? openExisting(path) : null;
    if (existing !== null) return existing;
    const isFile = error instanceof Error && "code" in error && error.code === "EEXIST";
    const why = isFile ? `${dirname(path)} is no directory` : describeError(error);
    throw new NixdeployError("host", `cannot write the lock ${path}: ${why}`, {
      hint: "Run the agent as a user that may write there, or choose another --profile or --state-dir.",
      cause: error,
    });
  }
}

/** @returns null when it is not there, or not ours to open */
function openExisting(path: string): number | null {
  try {
    return openSync(path, "r");
  } catch {
    // Then there is nothing to lock; whoever wanted to make it has the better error.
    return null;
  }
}
