/** What goes wrong with the agent's own files: errors of the operating system, and contents that are not ours. */
import { z } from "zod";
import { describeError } from "../../errors.ts";

/** Whether the file or directory is not there. */
export function isMissing(error: unknown): boolean {
  return hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR");
}

export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

/** Whether the disk, and not the file, is why something cannot be written or opened for writing. */
export function takesNothing(error: unknown): boolean {
  return ["EROFS", "ENOSPC", "EDQUOT", "EIO"].some((code) => hasCode(error, code));
}

/** Why a JSON file of ours cannot be read, as the end of a sentence. */
export function describeFileFault(error: unknown): string {
  if (error instanceof SyntaxError) return "it is damaged (no JSON)";
  if (!(error instanceof z.ZodError)) return describeError(error);
  const fields = error.issues.map(({ path }) => path.join(".")).filter((field) => field !== "");
  return `it is damaged (${fields.length === 0 ? "another shape" : [...new Set(fields)].join(", ")})`;
}
