/**
 * Logins of the supervisor's own, in the time that is left for them: one try, and the look after an undo whether the
 * version that is back reaches the coordinator at all.
 */
import { fullJitterMs } from "../../backoff.ts";
import type { Clock, Random } from "../../runtime.ts";

export type TimedLogin = {
  /** @returns whether the coordinator takes it for the proof. @throws when it does not let us in, or is not reached */
  readonly login: (signal: AbortSignal) => Promise<boolean>;
  readonly maxMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

export type LoginTry =
  | { readonly kind: "welcome"; readonly isProof: boolean }
  /** With what was in the way. */
  | { readonly kind: "failed"; readonly trouble: string };

export const LOGIN_RETRY = { baseMs: 500, maxMs: 5_000 } as const;
/** A network that an undo has put back has its address by then. */
const LOOK_MAX_MS = 15_000;

/** @throws the signal's reason */
export async function tryLogin({ login, maxMs, clock, signal }: TimedLogin): Promise<LoginTry> {
  const tooLate = new AbortController();
  const over = new AbortController();
  const deadline = clock.sleep(maxMs, over.signal).then(
    () => tooLate.abort(new Error("the time for it ended")),
    () => {
      // The login ended in time.
    },
  );
  try {
    return { kind: "welcome", isProof: await login(AbortSignal.any([signal, tooLate.signal])) };
  } catch (error) {
    signal.throwIfAborted();
    return { kind: "failed", trouble: error instanceof Error ? error.message : String(error) };
  } finally {
    over.abort(new Error("the login ended"));
    await deadline;
  }
}

/**
 * Tries until it is let in, for as long as the new version had (`maxMs`), at most {@link LOOK_MAX_MS}. A coordinator
 * that refuses this agent is one that no version can log in to. @throws the signal's reason
 */
export async function canLogin(options: TimedLogin & { readonly random: Random }): Promise<boolean> {
  const { clock, random, signal } = options;
  const endMs = clock.monotonicMs() + Math.min(options.maxMs, LOOK_MAX_MS);
  for (let attempt = 0; ; attempt += 1) {
    const maxMs = endMs - clock.monotonicMs();
    if (maxMs <= 0) return false;
    if ((await tryLogin({ ...options, maxMs })).kind === "welcome") return true;
    const leftMs = Math.max(0, endMs - clock.monotonicMs());
    await clock.sleep(Math.min(leftMs, fullJitterMs(attempt, random.fraction(), LOGIN_RETRY)), signal);
  }
}
