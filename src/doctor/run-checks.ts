/**
 * Runs all checks at once, each with a deadline of its own: one that hangs is a finding like any other, and nobody waits
 * for it longer than that. A check that does not heed its signal is left behind.
 */
import type { Clock } from "../runtime.ts";
import { CHECK_MAX_MS, type Check, type CheckedFinding, type Finding, fault, faultOf } from "./finding.ts";

export type RunChecksOptions = {
  readonly checks: readonly Check[];
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

/** In the order of the checks. @throws the signal's reason */
export async function runChecks({ checks, clock, signal }: RunChecksOptions): Promise<readonly CheckedFinding[]> {
  const found = await Promise.all(checks.map((check) => runCheck(check, { clock, signal })));
  signal.throwIfAborted();
  return checks.flatMap((check, index) =>
    (found[index] ?? []).map((finding) => ({ ...finding, group: check.group, check: check.name })),
  );
}

async function runCheck(
  { look, deadlineMs = CHECK_MAX_MS }: Check,
  { clock, signal }: Pick<RunChecksOptions, "clock" | "signal">,
): Promise<readonly Finding[]> {
  const over = new AbortController();
  const both = AbortSignal.any([signal, over.signal]);
  const deadline = clock.sleep(deadlineMs, both).then(
    () => [describeHang(deadlineMs)],
    // The look came first, or everything is stopped.
    () => [],
  );
  const looking = look(both).catch((error: unknown) => [faultOf(error)]);
  try {
    return await Promise.race([looking, deadline]);
  } finally {
    over.abort(new Error("the check is over"));
  }
}

function describeHang(deadlineMs: number): Finding {
  return fault(
    `nothing came of this within ${Math.round(deadlineMs / 1000)} s`,
    "What it looks at hangs: a network that swallows packets, a disk or a daemon that does not answer.",
  );
}

/** What several checks look at, looked at once, when the first of them asks. */
export function lookOnce<Value>(look: () => Promise<Value>): () => Promise<Value> {
  let looking: Promise<Value> | null = null;
  return () => {
    looking ??= look();
    return looking;
  };
}
