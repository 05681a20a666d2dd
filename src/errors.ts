/**
 * The taxonomy of everything that can go wrong, with its two exhaustive mappings: to the exit code of the
 * command line and to the status of an HTTP answer (RFC 9457 problem+json).
 *
 * Message form: "cannot <do what> to <what>: <why>". A hint says what to do about it. Never a secret in either.
 */

export type ErrorKind =
  /** Wrong flags, arguments or configuration: the caller can mend it. */
  | "usage"
  /** A credential was refused or is missing. */
  | "denied"
  /** The thing asked for does not exist (or the caller may not know that it does). */
  | "not-found"
  /** The request contradicts what is there. */
  | "conflict"
  /** What was asked for cannot be done: a spec refused, a deployment that failed. */
  | "refused"
  /** The other side could not be reached, or the time was up. */
  | "unreachable"
  /** The other side answered something wrong: a bad signature, a hash mismatch, a short body. */
  | "remote"
  /** This machine: Nix missing, disk full, no permission. */
  | "host"
  /** Interrupted by a signal. */
  | "interrupted";

export type NixdeployErrorOptions = {
  readonly hint?: string;
  readonly cause?: unknown;
  /** Several faults found at once, one sentence each; printed below the message. */
  readonly details?: readonly string[];
};

/** An error whose text is meant for the person who typed the command; anything else that is thrown is our bug. */
export class NixdeployError extends Error {
  override readonly name = "NixdeployError";
  readonly kind: ErrorKind;
  readonly hint: string | undefined;
  readonly details: readonly string[];

  constructor(kind: ErrorKind, message: string, options: NixdeployErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.hint = options.hint;
    this.details = options.details ?? [];
  }
}

/** A program that was run in our place has ended with this code, and so do we; it has said what there was to say. */
export class ProgramEnded extends Error {
  override readonly name = "ProgramEnded";
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`the program ended with ${exitCode}`);
    this.exitCode = exitCode;
  }
}

/** The one exit-code table of all commands (README, "Exit codes"). */
export function toExitCode(kind: ErrorKind): number {
  switch (kind) {
    case "usage":
      return 2;
    case "denied":
      return 77;
    case "unreachable":
      return 75;
    case "interrupted":
      return 130;
    case "not-found":
    case "conflict":
    case "refused":
    case "remote":
    case "host":
      return 1;
    default:
      return kind satisfies never;
  }
}

/** The HTTP status that the coordinator answers for an error of this kind. */
export function toHttpStatus(kind: ErrorKind): 400 | 401 | 404 | 409 | 422 | 502 | 503 | 507 {
  switch (kind) {
    case "usage":
      return 400;
    case "denied":
      return 401;
    case "not-found":
      return 404;
    case "conflict":
      return 409;
    case "refused":
      return 422;
    case "remote":
      return 502;
    case "unreachable":
    case "interrupted":
      return 503;
    case "host":
      return 507;
    default:
      return kind satisfies never;
  }
}

/** What the system's error codes mean, for a message that names the file itself. */
const SYSTEM_REASONS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EPERM: "that is not permitted to this user",
  ENOENT: "there is no such file or directory",
  ENOTDIR: "a part of the path is no directory",
  EISDIR: "it is a directory",
  ERR_FS_EISDIR: "it is a directory",
  ELOOP: "its symlinks have no end",
  ENAMETOOLONG: "the name is too long",
  ENOSPC: "no space is left on the device",
  EDQUOT: "the disk quota is used up",
  EROFS: "the file system is read-only",
  EMFILE: "too many files are open",
  ENFILE: "too many files are open",
  EIO: "the device failed (input/output error)",
};

/** The text of anything thrown, for a message that continues after a colon. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return SYSTEM_REASONS[code] ?? error.message;
}
