/**
 * Follows deployments by the coordinator's event stream until they are over: survives a stream that is cut, a
 * coordinator that restarts, and lines that come twice. What an event means is decided in `follow-state.ts`; who
 * prints is told by `onNote`.
 *
 * Gives up when the coordinator stays unreachable for {@link UNREACHABLE_MAX_MS} (and the longest confirm window of what
 * has not ended, in which it may be the coordinator's own host that has to go back), or the caller's time is up. That changes nothing for
 * the deployments: they go on.
 */
import type { DeploymentDto, FollowEvent } from "../../api/deployments.ts";
import { type BackoffLimits, fullJitterMs } from "../../backoff.ts";
import { isTerminal } from "../../deployment.ts";
import { NixdeployError } from "../../errors.ts";
import type { Clock, Random } from "../../runtime.ts";
import { createFollowState, type FollowNote, type FollowState } from "./follow-state.ts";

export const UNREACHABLE_MAX_MS = 2 * 60_000;
const BACKOFF: BackoffLimits = { baseMs: 500, maxMs: 5_000 };

export type FollowMessage = {
  /** What `Last-Event-ID` is to be when the stream is opened again; null when the event has none. */
  readonly id: string | null;
  readonly event: FollowEvent;
};

/** @throws NixdeployError "unreachable" or "remote" when the stream cannot be opened or breaks */
export type OpenEvents = (lastEventId: string | null, signal: AbortSignal) => AsyncIterable<FollowMessage>;

export type FollowOptions = {
  readonly openEvents: OpenEvents;
  /** As they were when last seen. */
  readonly deployments: readonly DeploymentDto[];
  /** "settled": until nothing runs, whoever is offline may come later. "final": until nothing can change any more. */
  readonly until: "settled" | "final";
  /** Null: no limit. */
  readonly timeoutMs: number | null;
  /** How much longer than usual the coordinator may be away where no deployment says more; default 0. */
  readonly extraPatienceMs?: number;
  readonly clock: Clock;
  readonly random: Random;
  /** Aborted when the person who follows has had enough. */
  readonly signal: AbortSignal;
  readonly onNote: (note: FollowNote) => void | Promise<void>;
  /** The stream was lost, and is there again. */
  readonly onContact?: (contact: "lost" | "back") => void | Promise<void>;
};

export type FollowEnd =
  | { readonly kind: "over"; readonly exitCode: 0 | 1 }
  | { readonly kind: "timeout" }
  | { readonly kind: "unreachable"; readonly cause: unknown }
  | { readonly kind: "interrupted" };

export type FollowResult = {
  readonly end: FollowEnd;
  readonly deployments: readonly DeploymentDto[];
  /** Not every line was seen: whoever was followed is over, and the coordinator was lost before it had told all. */
  readonly isLogCut: boolean;
};

/** @throws NixdeployError for what trying again does not mend, such as a token that was revoked */
export async function followDeployments(options: FollowOptions): Promise<FollowResult> {
  const timeUp = new AbortController();
  const done = new AbortController();
  const timer = startTimer(options, { done: done.signal, timeUp });
  const following = new Following(options, AbortSignal.any([options.signal, timeUp.signal]));
  try {
    const cause = await following.run();
    const end: FollowEnd = following.over() ?? { kind: "unreachable", cause };
    return { end, deployments: following.deployments(), isLogCut: !following.isComplete() };
  } catch (error) {
    if (!options.signal.aborted && !timeUp.signal.aborted) throw error;
    const cutShort: FollowEnd = { kind: options.signal.aborted ? "interrupted" : "timeout" };
    const isLogCut = !following.isComplete();
    return { end: following.over() ?? cutShort, deployments: following.deployments(), isLogCut };
  } finally {
    done.abort();
    await timer;
  }
}

type Timer = { readonly done: AbortSignal; readonly timeUp: AbortController };

async function startTimer({ clock, timeoutMs }: FollowOptions, { done, timeUp }: Timer): Promise<void> {
  if (timeoutMs === null) return;
  try {
    await clock.sleep(timeoutMs, done);
    timeUp.abort();
  } catch {
    // Done before the time was up.
  }
}

class Following {
  private readonly state: FollowState;
  private lastEventId: string | null = null;
  private attempt = 0;
  private lostAtMs: number | null = null;

  private readonly options: FollowOptions;
  private readonly signal: AbortSignal;

  constructor(options: FollowOptions, signal: AbortSignal) {
    this.options = options;
    this.signal = signal;
    this.state = createFollowState(options.deployments);
  }

  deployments(): readonly DeploymentDto[] {
    return [...this.state.deployments.values()];
  }

  /** The end, if it has come as far as states go; lines may still be on their way. */
  over(): (FollowEnd & { kind: "over" }) | null {
    const verdict = this.state.verdict();
    if (verdict.kind === "running") return null;
    return verdict.final || this.options.until === "settled" ? { kind: "over", exitCode: verdict.exitCode } : null;
  }

  /** Returns when it is over, or, with what was in the way, when the coordinator has been away for too long. */
  async run(): Promise<unknown> {
    while (!this.isComplete()) {
      let cause: unknown = null;
      try {
        if (await this.readStream()) return null;
      } catch (error) {
        this.signal.throwIfAborted();
        if (!isWorthRetrying(error)) throw error;
        cause = error;
      }
      if (await this.waitAfterLoss()) return cause;
    }
    return null;
  }

  /** Nothing runs, and of deployments that are final the last line has come as well. */
  isComplete(): boolean {
    const verdict = this.state.verdict();
    if (verdict.kind === "running") return false;
    return verdict.final ? this.state.ended : this.options.until === "settled";
  }

  /** @returns whether it is over; false when the stream ended before */
  private async readStream(): Promise<boolean> {
    for await (const message of this.options.openEvents(this.lastEventId, this.signal)) {
      if (this.lostAtMs !== null) await this.options.onContact?.("back");
      this.lostAtMs = null;
      this.attempt = 0;
      this.lastEventId = message.id ?? this.lastEventId;
      for (const note of this.state.apply(message.event)) await this.options.onNote(note);
      if (this.isComplete()) return true;
      this.signal.throwIfAborted();
    }
    return false;
  }

  /** @returns whether it is time to give up */
  private async waitAfterLoss(): Promise<boolean> {
    const { clock, random } = this.options;
    if (this.lostAtMs === null) await this.options.onContact?.("lost");
    this.lostAtMs ??= clock.monotonicMs();
    if (clock.monotonicMs() - this.lostAtMs >= UNREACHABLE_MAX_MS + this.extraPatienceMs()) return true;
    await clock.sleep(fullJitterMs(this.attempt, random.fraction(), BACKOFF), this.signal);
    this.attempt += 1;
    return false;
  }

  /** A device may have a confirm window of its own, of which its deployment tells. */
  private extraPatienceMs(): number {
    const live = this.deployments().filter(({ state }) => !isTerminal(state));
    const windowsMs = live.map(({ confirmWindowMs }) => confirmWindowMs ?? 0);
    return windowsMs.reduce((longest, windowMs) => Math.max(longest, windowMs), this.options.extraPatienceMs ?? 0);
  }
}

function isWorthRetrying(error: unknown): boolean {
  return error instanceof NixdeployError && (error.kind === "unreachable" || error.kind === "remote");
}
