/** What `nixdeploy doctor` finds: a verdict, a sentence, and what to do about it. Pure. */
import { describeError, NixdeployError } from "../errors.ts";

export const GROUPS = ["coordinator", "nix", "agent", "ci", "server"] as const;
export type Group = (typeof GROUPS)[number];

/** `warning`: it works, and somebody should look; `fault`: it does not work; `skipped`: it could not be told, and why. */
export type Verdict = "ok" | "warning" | "fault" | "skipped";

export type Finding = {
  readonly verdict: Verdict;
  readonly message: string;
  /** What to do. Every warning and every fault has one. */
  readonly hint: string | null;
};

/** A look at one thing; what it throws is a fault. It changes nothing. */
export type Check = {
  readonly group: Group;
  /** One word for it, unique in its group: `clock`, `token`. */
  readonly name: string;
  readonly look: (signal: AbortSignal) => Promise<readonly Finding[]>;
  /** Where more than {@link CHECK_MAX_MS} is usual. */
  readonly deadlineMs?: number;
};

export type CheckedFinding = Finding & { readonly group: Group; readonly check: string };

export const CHECK_MAX_MS = 10_000;

export const ok = (message: string): Finding => ({ verdict: "ok", message, hint: null });
export const skipped = (message: string): Finding => ({ verdict: "skipped", message, hint: null });
export const warning = (message: string, hint: string): Finding => ({ verdict: "warning", message, hint });
export const fault = (message: string, hint: string): Finding => ({ verdict: "fault", message, hint });

const UNKNOWN_ERROR_HINT = "Look there by hand; `--verbose` says more.";

/** @param otherwise the hint for an error that has none */
export function faultOf(error: unknown, otherwise: string = UNKNOWN_ERROR_HINT): Finding {
  if (!(error instanceof NixdeployError)) return fault(describeError(error), otherwise);
  const details = error.details.length === 0 ? "" : ` (${error.details.join("; ")})`;
  return fault(`${error.message}${details}`, error.hint ?? otherwise);
}
