/**
 * What a serving coordinator does by itself, now and then. Each kind of work has a period of its own; a turn that takes
 * longer puts the next one off. Whatever a turn throws is logged, and the next one is made all the same.
 */
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Clock } from "../../runtime.ts";

export type Chore = {
  /** What cannot be done when it fails: "cannot … : why". */
  readonly what: string;
  readonly everyMs: number;
  /** @param lateMs how much later than due it runs */
  run(lateMs: number): void | Promise<void>;
};

/** Begins with a pause. Disposing waits for turns under way. */
export function startUpkeep(
  deps: { readonly clock: Clock; readonly log: Logger },
  chores: readonly Chore[],
): AsyncDisposable {
  const stopped = new AbortController();
  const running = chores.map((chore) => repeat(deps, chore, stopped.signal));
  return {
    async [Symbol.asyncDispose]() {
      stopped.abort(new Error("the upkeep ends"));
      await Promise.all(running);
    },
  };
}

async function repeat({ clock, log }: { clock: Clock; log: Logger }, chore: Chore, signal: AbortSignal): Promise<void> {
  for (;;) {
    const dueMs = clock.monotonicMs() + chore.everyMs;
    try {
      await clock.sleep(chore.everyMs, signal);
    } catch {
      // Stopped.
      return;
    }
    try {
      await chore.run(Math.max(0, clock.monotonicMs() - dueMs));
    } catch (error) {
      log.error(`cannot ${chore.what}`, { reason: describeError(error) });
    }
  }
}
