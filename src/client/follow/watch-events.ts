/**
 * Watches everything that changes, for as long as somebody wants to know: survives a stream that is cut and a coordinator
 * that restarts, and goes on behind the last event that was seen, or behind where the stream began. Gives up when the
 * coordinator stays unreachable, and at once when it was never there: then the address is wrong, or the network.
 */
import type { NewsEvent, StreamEvent } from "../../api/events.ts";
import { type BackoffLimits, fullJitterMs } from "../../backoff.ts";
import { NixdeployError } from "../../errors.ts";
import type { Clock, Random } from "../../runtime.ts";
import { UNREACHABLE_MAX_MS } from "./follow.ts";

const BACKOFF: BackoffLimits = { baseMs: 500, maxMs: 5_000 };

export type StreamMessage = { readonly id: string | null; readonly event: StreamEvent };

export type WatchOptions = {
  /** @throws NixdeployError "unreachable" or "remote" when the stream cannot be opened or breaks */
  readonly open: (lastEventId: string | null, signal: AbortSignal) => AsyncIterable<StreamMessage>;
  /** Null: from now on. */
  readonly lastEventId: string | null;
  readonly onEvent: (event: NewsEvent) => Promise<void>;
  readonly onContact: (contact: "lost" | "back") => void | Promise<void>;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
};

/** @throws the signal's reason; NixdeployError for what trying again does not mend, or has not mended for long */
export async function watchEvents(options: WatchOptions): Promise<never> {
  const { clock, random, signal } = options;
  let { lastEventId } = options;
  let isMet = false;
  let lostAtMs: number | null = null;
  for (let attempt = 0; ; attempt += 1) {
    let cause: unknown = null;
    try {
      for await (const { id, event } of options.open(lastEventId, signal)) {
        if (lostAtMs !== null) await options.onContact("back");
        isMet = true;
        lostAtMs = null;
        attempt = 0;
        lastEventId = id ?? lastEventId;
        if (event.event !== "position") await options.onEvent(event);
        signal.throwIfAborted();
      }
      isMet = true;
    } catch (error) {
      signal.throwIfAborted();
      const mayPass = error instanceof NixdeployError && ["unreachable", "remote"].includes(error.kind);
      if (!isMet || !mayPass) throw error;
      cause = error;
    }
    if (lostAtMs === null) await options.onContact("lost");
    lostAtMs ??= clock.monotonicMs();
    if (clock.monotonicMs() - lostAtMs >= UNREACHABLE_MAX_MS) {
      throw cause ?? new NixdeployError("unreachable", "cannot watch events: the connection ends again and again");
    }
    await clock.sleep(fullJitterMs(attempt, random.fraction(), BACKOFF), signal);
  }
}
