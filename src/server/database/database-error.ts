/**
 * What SQLite says about a file, as an error that a person can act on. Anything else that a statement can do wrong is a
 * bug of ours and passes through.
 */
import { NixdeployError } from "../../errors.ts";

/** Result codes of SQLite (sqlite.org/rescode.html) that are about the file and not about the statement. */
const REASONS: readonly { readonly codes: RegExp; readonly reason: string; readonly isDamaged?: true }[] = [
  { codes: /^SQLITE_FULL/, reason: "no space is left on the device" },
  { codes: /^SQLITE_READONLY/, reason: "it cannot be written" },
  { codes: /^SQLITE_(PERM|AUTH)/, reason: "permission denied" },
  { codes: /^SQLITE_CANTOPEN/, reason: "it is no file, or this user may not open it" },
  { codes: /^SQLITE_BUSY/, reason: "another program has it open" },
  { codes: /^SQLITE_NOTADB/, reason: "it is no database", isDamaged: true },
  { codes: /^SQLITE_CORRUPT/, reason: "it is damaged", isDamaged: true },
  { codes: /^SQLITE_IOERR/, reason: "the device failed, or no space is left on it" },
];

export type DatabaseFile = {
  /** "the database" */
  readonly what: string;
  readonly file: string;
  /** What to do about a damaged one. */
  readonly hint: string;
};

/** The same for a request that met the trouble: its client learns no file name. Null when it is something else. */
export function explainDatabaseTrouble(error: unknown): NixdeployError | null {
  const known = findReason(error);
  if (known === undefined) return null;
  return new NixdeployError("host", `cannot use the coordinator's database: ${known.reason}`, {
    cause: error,
    hint: "Look after the coordinator's disk, then try again.",
  });
}

function findReason(error: unknown) {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return REASONS.find(({ codes }) => codes.test(code));
}

/** @returns a NixdeployError `host` for what is wrong with the file, else the error itself */
export function explainDatabaseError(error: unknown, { what, file, hint }: DatabaseFile): unknown {
  const known = findReason(error);
  if (known === undefined) return error;
  return new NixdeployError("host", `cannot open ${what} ${file}: ${known.reason}`, {
    cause: error,
    ...(known.isDamaged === true ? { hint } : {}),
  });
}
