/**
 * Awaits the health of a new version: all checks must hold together, within the confirm window.
 *
 * In rounds. A round begins all checks at the same time, and tries each until it passes, every `periodSeconds`. When each
 * passed at its first try, they hold together, and that is it. Otherwise the early ones may have broken since, so
 * another round begins at once. (A single check holds together with nothing, so one pass is enough.)
 *
 * A check that has failed `attempts` times, or can never pass, ends it at once, and so do the end of the window and a
 * cancel. Whoever takes over from a killed supervisor begins anew, with what is left of the window.
 *
 * How one try is made is not known here (`health-probe.ts`).
 */
import type { HealthCheck } from "../../health-check.ts";
import type { Clock } from "../../runtime.ts";
import { CANCELLED_TOUCHED } from "../activation/engine.ts";

export type Trouble = {
  /** Why a try failed, the rest of a sentence. */
  readonly text: string;
  /** No further try can end otherwise. */
  readonly isFinal?: boolean;
};

/** One try; null when it passed. Ends soon after the signal is aborted. @throws whatever: a failed try */
export type HealthProbe = (
  check: HealthCheck,
  limits: { readonly timeoutMs: number; readonly signal: AbortSignal },
) => Promise<Trouble | null>;

export type HealthOptions = {
  readonly checks: readonly HealthCheck[];
  readonly probe: HealthProbe;
  /** Of the confirm window; not above zero when it is over. */
  readonly readLeftMs: () => Promise<number>;
  readonly windowSeconds: number;
  readonly isCancelled: () => Promise<boolean>;
  readonly log: (text: string) => Promise<void>;
  readonly clock: Clock;
  /** Aborted when the supervisor ends. */
  readonly signal: AbortSignal;
};

const LOOK_INTERVAL_MS = 200;
const NAMED_MAX = 5;

type State = {
  readonly check: HealthCheck;
  failures: number;
  /** Of the last try that ended: null when it passed; undefined before the first has ended. */
  trouble: string | null | undefined;
};

/** Why the checks need not go on. */
class Verdict extends Error {}

/** @returns why the new version must go, the start of a sentence, or null. @throws the signal's reason */
export async function awaitHealth(options: HealthOptions): Promise<string | null> {
  if (options.checks.length === 0) return null;
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, over.signal]);
  const states = options.checks.map((check): State => ({ check, failures: 0, trouble: undefined }));
  // When the checks end first, this abort is one too many, and does nothing.
  const watching = watch(options, states, signal).then(
    (verdict) => over.abort(verdict),
    (error: unknown) => over.abort(error),
  );
  try {
    while (!(await runRound(options, states, { over, signal })));
    return null;
  } catch (error) {
    options.signal.throwIfAborted();
    const reason: unknown = over.signal.aborted ? over.signal.reason : error;
    if (reason instanceof Verdict) return reason.message;
    throw reason;
  } finally {
    over.abort(new Error("the checks have ended"));
    await watching;
  }
}

/** @returns whether all checks held together. @throws Verdict, the signal's reason; then none of them runs any more */
async function runRound(
  options: HealthOptions,
  states: readonly State[],
  { over, signal }: { readonly over: AbortController; readonly signal: AbortSignal },
): Promise<boolean> {
  const tries = await Promise.allSettled(
    states.map((state) =>
      tryUntilPassed(options, state, signal).catch((error: unknown) => {
        // The others need not go on.
        over.abort(error);
        throw error;
      }),
    ),
  );
  signal.throwIfAborted();
  return states.length === 1 || tries.every((end) => end.status === "fulfilled" && end.value === 1);
}

/** @returns the number of tries that it took */
async function tryUntilPassed(options: HealthOptions, state: State, signal: AbortSignal): Promise<number> {
  const { clock } = options;
  const { name, attempts, periodSeconds } = state.check;
  for (let tries = 1; ; tries += 1) {
    signal.throwIfAborted();
    const startedMs = clock.monotonicMs();
    const trouble = await tryOnce(options, state.check, signal);
    signal.throwIfAborted();
    const before = state.trouble;
    state.trouble = trouble?.text ?? null;
    if (state.trouble !== before) {
      await options.log(`health check ${name} ${trouble === null ? "passed" : `failed: ${trouble.text}`}`);
    }
    if (trouble === null) return tries;
    state.failures += 1;
    if (trouble.isFinal === true || (attempts !== undefined && state.failures >= attempts)) {
      throw new Verdict(`the health check ${name} failed${describeCount(state.failures)}: ${trouble.text}`);
    }
    await clock.sleep(Math.max(0, startedMs + periodSeconds * 1_000 - clock.monotonicMs()), signal);
  }
}

async function tryOnce(
  { probe, clock }: HealthOptions,
  check: HealthCheck,
  signal: AbortSignal,
): Promise<Trouble | null> {
  const timeoutMs = check.timeoutSeconds * 1_000;
  const ended = new AbortController();
  const late = new AbortController();
  const deadline = clock.sleep(timeoutMs, ended.signal).then(
    () => late.abort(new Error("the try took too long")),
    () => {
      // It ended in time.
    },
  );
  try {
    return await probe(check, { timeoutMs, signal: AbortSignal.any([signal, late.signal]) });
  } catch (error) {
    if (late.signal.aborted) return { text: `no answer within ${check.timeoutSeconds} s` };
    return { text: error instanceof Error ? error.message : String(error) };
  } finally {
    ended.abort(new Error("the try ended"));
    await deadline;
  }
}

/** Looks at the window and for a cancel until the signal is aborted. */
async function watch(options: HealthOptions, states: readonly State[], signal: AbortSignal): Promise<Verdict> {
  for (;;) {
    if (await options.isCancelled()) return new Verdict(CANCELLED_TOUCHED);
    const leftMs = await options.readLeftMs();
    if (leftMs <= 0) return new Verdict(describeLate(options, states));
    await options.clock.sleep(Math.min(LOOK_INTERVAL_MS, leftMs), signal);
  }
}

function describeLate({ windowSeconds }: HealthOptions, states: readonly State[]): string {
  const failing = states.filter(({ trouble }) => trouble !== null);
  const window = `within the confirm window of ${windowSeconds} s`;
  const tell = ({ failures, trouble }: State) =>
    `${describeCount(failures)}: ${trouble ?? "its first try did not end"}`;
  const [first, ...others] = failing;
  if (first === undefined) return `the health checks did not hold together ${window}`;
  if (others.length === 0) return `the health check ${first.check.name} did not pass ${window}${tell(first)}`;
  const told = failing.slice(0, NAMED_MAX).map((state) => `${state.check.name}${tell(state)}`);
  const more = failing.length > NAMED_MAX ? [`and ${failing.length - NAMED_MAX} more`] : [];
  return `the health checks did not pass ${window}: ${[...told, ...more].join("; ")}`;
}

function describeCount(failures: number): string {
  return failures > 1 ? ` (${failures} tries)` : "";
}
