/**
 * What a person reads when a command failed. A NixdeployError is for them: message, details, hint. Anything else that
 * was thrown is our bug: its stack, and the request to report it.
 */
import { NixdeployError, toExitCode } from "../../errors.ts";
import { cleanLines } from "../../printable.ts";

export type Failure = {
  readonly exitCode: number;
  readonly message: string;
  readonly details: readonly string[];
  readonly hint: string | null;
  readonly isBug: boolean;
};

const EXIT_CODE_BUG = 1;
const CAUSES_MAX = 8;

/** @param signal the command's: whatever it throws after that was aborted is the interruption */
export function describeFailure(error: unknown, signal: AbortSignal): Failure {
  if (error instanceof NixdeployError) {
    const { message, details, hint, kind } = error;
    return { exitCode: toExitCode(kind), message, details, hint: hint ?? null, isBug: false };
  }
  const isAbort = error instanceof Error && error.name === "AbortError";
  if (signal.aborted && (isAbort || error === signal.reason)) {
    return { exitCode: toExitCode("interrupted"), message: "interrupted", details: [], hint: null, isBug: false };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { exitCode: EXIT_CODE_BUG, message, details: [], hint: null, isBug: true };
}

/** The lines for standard error. @param programVersion for the report of a bug */
export function formatFailure({ message, details, hint, isBug }: Failure, programVersion: string): string {
  if (isBug) {
    const platform = `nixdeploy ${programVersion}, ${process.platform}-${process.arch}`;
    return `nixdeploy: this is a bug in nixdeploy\n${cleanLines(message)}\nPlease report it with these lines (${platform}).\n`;
  }
  const lines = [`nixdeploy: ${message}`, ...details.map((detail) => `  - ${detail}`)];
  return `${cleanLines([...lines, ...(hint === null ? [] : [`hint: ${hint}`])].join("\n"))}\n`;
}

/** What lies behind an error, outermost first: for `--verbose`. */
export function listCauses(error: unknown): string[] {
  const causes: string[] = [];
  let cause = error instanceof Error ? error.cause : undefined;
  while (cause !== undefined && cause !== null && causes.length < CAUSES_MAX) {
    causes.push(cleanLines(cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause)));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return causes;
}
