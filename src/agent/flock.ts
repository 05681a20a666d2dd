/**
 * Exclusive locks that the kernel releases when their holder dies, however it dies: flock(2) on a file.
 *
 * Through bun:ffi, because neither Node nor Bun offers it. Files, and not abstract unix sockets, because those belong
 * to the network namespace: two machines in containers with one network would exclude each other. The file itself
 * stays: removing it would let two holders lock two files of one name. Children do not inherit the lock (O_CLOEXEC).
 */
import { dlopen, FFIType } from "bun:ffi";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { describeError, NixdeployError } from "../errors.ts";

/** glibc, musl (both architectures), macOS. The library is loaded already; this only finds it. */
const C_LIBRARIES = [
  "libc.so.6",
  "libc.musl-x86_64.so.1",
  "libc.musl-aarch64.so.1",
  "/usr/lib/libSystem.B.dylib",
] as const;
const LOCK_EXCLUSIVE = 2;
const LOCK_NONBLOCKING = 4;

/**
 * Takes the lock of a file, which is made, with its directory (of `directoryMode`), if missing.
 *
 * Disposing releases it. Two locks of one file exclude each other within a process too.
 * @returns null when somebody else holds it
 * @throws NixdeployError("host") when the file cannot be made or this system has no flock
 */
export function tryLockFile(path: string, directoryMode = 0o755): Disposable | null {
  const flock = loadFlock();
  const descriptor = openLockFile(path, directoryMode);
  if (flock(descriptor, LOCK_EXCLUSIVE | LOCK_NONBLOCKING) !== 0) {
    closeSync(descriptor);
    return null;
  }
  return { [Symbol.dispose]: () => closeSync(descriptor) };
}

function openLockFile(path: string, directoryMode: number): number {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: directoryMode });
    return openSync(path, "a", 0o600);
  } catch (error) {
    const isFile = error instanceof Error && "code" in error && error.code === "EEXIST";
    const why = isFile ? `${dirname(path)} is no directory` : describeError(error);
    throw new NixdeployError("host", `cannot write the lock ${path}: ${why}`, {
      hint: "Run the agent as a user that may write there, or choose another --profile or --state-dir.",
      cause: error,
    });
  }
}

function loadFlock(): (descriptor: number, operation: number) => number {
  const failures: unknown[] = [];
  for (const library of C_LIBRARIES) {
    try {
      const loaded = dlopen(library, { flock: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 } });
      return loaded.symbols.flock;
    } catch (error) {
      failures.push(error);
    }
  }
  throw new NixdeployError("host", "cannot lock files on this system: its C library was not found", {
    cause: failures[0],
  });
}
