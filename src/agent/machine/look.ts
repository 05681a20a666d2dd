/** Looks at the file system for which it is an answer, and no error, that something is not there. */
import { access, constants, readdir, readFile, realpath, stat, statfs } from "node:fs/promises";
import { hasCode, isMissing } from "./system-error.ts";

/** Follows links: one that leads nowhere does not exist. */
export async function exists(path: string): Promise<boolean> {
  return (await orNull(stat(path))) !== null;
}

/** Null when there is no such file. */
export async function readTextOrNull(path: string): Promise<string | null> {
  return await orNull(readFile(path, "utf8"));
}

/** Where it leads, all links followed; null when that is nowhere. */
export async function resolveOrNull(path: string): Promise<string | null> {
  return await orNull(realpath(path));
}

/** Of the entries; none when there is no such directory. */
export async function listNames(directory: string): Promise<readonly string[]> {
  return (await orNull(readdir(directory))) ?? [];
}

/** Free bytes of the file system that a path is in; null when there is no such path. */
export async function readFreeBytes(path: string): Promise<number | null> {
  const found = await orNull(statfs(path));
  return found === null ? null : found.bavail * found.bsize;
}

/** Whether it is a file that may be executed. */
export async function isExecutableFile(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch (error) {
    if (hasCode(error, "EACCES") || isMissing(error)) return false;
    throw error;
  }
}

/** Whether it may be written. @param whenMissing the answer for what is not there */
export async function mayWrite(path: string, { whenMissing }: { readonly whenMissing: boolean }): Promise<boolean> {
  try {
    await access(path, constants.W_OK);
    return true;
  } catch (error) {
    if (isMissing(error)) return whenMissing;
    if (hasCode(error, "EACCES") || hasCode(error, "EROFS")) return false;
    throw error;
  }
}

async function orNull<Value>(looking: Promise<Value>): Promise<Value | null> {
  try {
    return await looking;
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}
