/**
 * Functions of the C library that neither Node nor Bun offers, through bun:ffi. The library is loaded already, in every
 * process: this only finds it under the name that it has here.
 */
import { dlopen, type FFIFunction } from "bun:ffi";
import { NixdeployError } from "./errors.ts";

/** glibc, musl (both architectures), macOS. */
const NAMES = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1", "/usr/lib/libSystem.B.dylib"] as const;

/**
 * Found at the first use, and kept: each time that a library is opened costs memory which is never given back.
 * @param what what cannot be done without them, for the message: "lock files"
 * @returns gives the functions. @throws NixdeployError("host") when the library, or one of the functions, is not there
 */
export function fromCLibrary<Functions extends Readonly<Record<string, FFIFunction>>>(
  what: string,
  functions: Functions,
) {
  let found: ReturnType<typeof load<Functions>> | null = null;
  return () => {
    found ??= load(what, functions);
    return found;
  };
}

function load<Functions extends Readonly<Record<string, FFIFunction>>>(what: string, functions: Functions) {
  const failures: unknown[] = [];
  for (const name of NAMES) {
    try {
      return dlopen(name, functions).symbols;
    } catch (error) {
      failures.push(error);
    }
  }
  throw new NixdeployError("host", `cannot ${what} on this system: its C library was not found`, {
    cause: failures[0],
  });
}
