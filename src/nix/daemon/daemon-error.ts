/**
 * What can go wrong between us and a Nix daemon, as three types: the daemon said no (`DaemonError`, meant for the
 * user), the connection ended (`ConnectionLostError`) and the other side broke the protocol (`ProtocolError`). The
 * last two never leave this folder: `explainFailure` turns them into a `NixdeployError` that says what was being done.
 */
import { stripVTControlCharacters } from "node:util";
import { NixdeployError } from "../../errors.ts";
import { NixParseError } from "../parse-error.ts";

/** An error as the daemon reports it (STDERR_ERROR), colors already stripped. */
export type DaemonReport = {
  readonly message: string;
  /** Where it came from, as Nix prints it below an error; at most a few lines. */
  readonly traces: readonly string[];
};

/** "lacks a valid signature" (Nix 2.8), "lacks a signature by a trusted key" (newer, and Lix). */
const SIGNATURE_REFUSAL = /lacks a (valid )?signature/;

/** The daemon understood the request and refused it. The connection stays usable. */
export class DaemonError extends NixdeployError {
  /** What the daemon said, without our "cannot …" before it. */
  readonly daemonMessage: string;
  /** The daemon checked a path's signatures, and none is by a key that it trusts. */
  readonly isSignatureRefusal: boolean;

  /** @param what completes "cannot …", for example "add /nix/store/… to the Nix store" */
  constructor(what: string, report: DaemonReport) {
    const hint = hintFor(report.message);
    super("host", `cannot ${what}: ${report.message}`, {
      details: report.traces,
      ...(hint === null ? {} : { hint }),
    });
    this.daemonMessage = report.message;
    this.isSignatureRefusal = SIGNATURE_REFUSAL.test(report.message);
  }
}

/** The stream ended, broke or was closed by us while bytes were still expected. */
export class ConnectionLostError extends Error {
  override readonly name: string = "ConnectionLostError";
}

/** We gave up waiting for an answer. */
export class DaemonSilentError extends ConnectionLostError {
  override readonly name = "DaemonSilentError";

  constructor(durationMs: number) {
    super(`the daemon gave no answer for ${Math.ceil(durationMs / 1000)} s`);
  }
}

/** The other side sent what the worker protocol does not allow here; nothing after it can be trusted. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

/** Makes text from the daemon fit for our messages: no colors, no leading "error:", no blank lines around it. */
export function cleanDaemonText(text: string): string {
  return stripVTControlCharacters(text)
    .trim()
    .replace(/^error:\s*/, "");
}

export type FailureContext = {
  /** Completes "cannot …". */
  readonly what: string;
  readonly peer: string;
  /** What a child printed before it died; may be empty. */
  readonly lastWords: string;
  /** Given with a connection that the daemon ended. */
  readonly lostHint?: string;
};

/** The error for the user, or `error` itself where it already is one (or is a bug of ours). */
export function explainFailure(error: unknown, context: FailureContext): unknown {
  const subject = `cannot ${context.what}`;
  if (error instanceof ConnectionLostError) {
    const words = cleanDaemonText(context.lastWords);
    const hint = error instanceof DaemonSilentError ? undefined : context.lostHint;
    return new NixdeployError("host", `${subject}: ${error.message}${words === "" ? "" : `; it said: ${words}`}`, {
      cause: error,
      ...(hint === undefined ? {} : { hint }),
    });
  }
  if (error instanceof ProtocolError || error instanceof NixParseError) {
    const message = `${subject}: what ${context.peer} sent is not the Nix worker protocol: ${error.message}`;
    return new NixdeployError("host", message, { cause: error });
  }
  return error;
}

function hintFor(message: string): string | null {
  if (SIGNATURE_REFUSAL.test(message)) {
    return "Add the cache's key to `trusted-public-keys` in the daemon's nix.conf, or run as one of its `trusted-users`.";
  }
  if (message.includes("No space left on device")) return "Free disk space, for example with `nix-collect-garbage`.";
  return null;
}
