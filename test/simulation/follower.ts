/**
 * Somebody who follows a rollout, as `activate` and `logs -f` do: the real client and the real reader of event streams, over
 * streams that are slow, break or fall silent. Whom the coordinator leaves alone for too long begins anew, and so does
 * one whose process is killed. What he must have seen in the end is in `follower-truth.ts`.
 */
import { type DeploymentDto, followEventSchema, type LogLine } from "../../src/api/deployments.ts";
import { rolloutSchema } from "../../src/api/rollouts.ts";
import { followDeployments, type OpenEvents } from "../../src/client/follow/follow.ts";
import type { FollowNote } from "../../src/client/follow/follow-state.ts";
import type { DeploymentState } from "../../src/deployment.ts";
import { NixdeployError } from "../../src/errors.ts";
import { readEventStream } from "../../src/http/events.ts";
import type { DeploymentId, RolloutId } from "../../src/names.ts";
import type { Clock } from "../../src/runtime.ts";
import type { SeededRandom } from "../support/seeded-random.ts";
import type { Answer } from "./world.ts";

/** What one process of the follower has seen. */
export type View = {
  readonly startedMs: number;
  /** As they were when it began. */
  readonly initial: readonly DeploymentDto[];
  readonly states: Map<DeploymentId, DeploymentState[]>;
  readonly lines: Map<DeploymentId, LogLine[]>;
  /** The coordinator has said that nothing more will come. */
  isWhole: boolean;
};

export type FollowerEnd =
  | {
      readonly kind: "over";
      readonly atMs: number;
      readonly view: View;
      readonly deployments: readonly DeploymentDto[];
    }
  /** The coordinator knows of no such rollout (any more). */
  | { readonly kind: "gone" };

export type Follower = AsyncDisposable & {
  readonly rolloutId: RolloutId;
  /** Null while he still waits. */
  readonly end: FollowerEnd | null;
  /** His stream breaks; who is not told hears nothing any more until he has waited long enough. */
  cut(told: boolean): void;
  /** As by kill -9; he begins anew. */
  kill(): void;
};

/** An answer under way, of a coordinator that may die. */
export type OpenStream = { readonly response: Response; readonly death: Promise<void> };

export type FollowerDeps = {
  readonly rolloutId: RolloutId;
  readonly clock: Clock;
  readonly random: SeededRandom;
  readonly request: (path: string) => Promise<Answer | null>;
  /** Null: nobody answers. */
  readonly open: (path: string, headers: Readonly<Record<string, string>>) => Promise<OpenStream | null>;
  readonly onBug: (what: string) => void;
};

/** As `src/http/events.ts` has it. */
const SILENCE_MAX_MS = 60_000;
const LATENCY_MAX_MS = 200;
const AGAIN_MAX_MS = 20_000;

export function createFollower(deps: FollowerDeps): Follower {
  const over = new AbortController();
  const streams = new Set<(told: boolean) => void>();
  let process = new AbortController();
  let end: FollowerEnd | null = null;
  const work = async () => {
    while (end === null && !over.signal.aborted) {
      process = new AbortController();
      const signal = AbortSignal.any([over.signal, process.signal]);
      try {
        end = await followOnce(deps, streams, signal);
        if (end === null) await deps.clock.sleep(deps.random.below(AGAIN_MAX_MS), signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
  };
  const done = work().catch((error: unknown) => deps.onBug(`a follower of ${deps.rolloutId} failed: ${String(error)}`));
  return {
    rolloutId: deps.rolloutId,
    get end() {
      return end;
    },
    cut(told) {
      for (const cutOff of streams) cutOff(told);
    },
    kill: () => process.abort(new Error("the follower was killed")),
    async [Symbol.asyncDispose]() {
      over.abort(new Error("the follower has seen enough"));
      await done;
    },
  };
}

type Streams = Set<(told: boolean) => void>;

/** @returns null when the coordinator was away for too long */
async function followOnce(deps: FollowerDeps, streams: Streams, signal: AbortSignal): Promise<FollowerEnd | null> {
  const { rolloutId, clock, random } = deps;
  const answer = await deps.request(`rollouts/${rolloutId}`);
  if (answer?.status === 404) return { kind: "gone" };
  if (answer?.status !== 200) return null;
  const { deployments: initial } = rolloutSchema.parse(answer.body);
  const view: View = { startedMs: clock.nowMs(), initial, states: new Map(), lines: new Map(), isWhole: false };
  try {
    const { end, deployments } = await followDeployments({
      ...{ deployments: initial, until: "final", timeoutMs: null, clock, random, signal },
      openEvents: openEvents(deps, { streams, view }),
      onNote: (note) => takeNote(view, note),
    });
    // Of deployments that are over he knows the end also when he is killed, or left alone, before the last lines.
    signal.throwIfAborted();
    return end.kind === "over" && view.isWhole ? { kind: "over", atMs: clock.nowMs(), view, deployments } : null;
  } catch (error) {
    if (error instanceof NixdeployError && error.kind === "not-found") return { kind: "gone" };
    throw error;
  }
}

function takeNote({ states, lines }: View, note: FollowNote): void {
  if (note.kind === "state") {
    const { id, state } = note.deployment;
    states.set(id, [...(states.get(id) ?? []), state]);
  }
  if (note.kind === "log") lines.set(note.deployment, [...(lines.get(note.deployment) ?? []), note.line]);
}

function openEvents(
  deps: FollowerDeps,
  { streams, view }: { readonly streams: Streams; readonly view: View },
): OpenEvents {
  const { rolloutId, random, clock } = deps;
  return async function* open(lastEventId, signal) {
    await clock.sleep(random.below(LATENCY_MAX_MS), signal);
    const events = readEventStream({
      request: { url: `rollouts/${rolloutId}/follow`, lastEventId, signal },
      source: "the coordinator",
      open: async ({ url, headers = {} }) => {
        const stream = await deps.open(url, headers);
        if (stream === null) throw new NixdeployError("unreachable", "cannot connect: nobody listens");
        const { response } = stream;
        const body = readBody(deps, { stream, streams, signal });
        return { status: response.status, headers: response.headers, body, [Symbol.asyncDispose]: async () => {} };
      },
    });
    for await (const { id, event, data } of events) {
      if (event === "end") view.isWhole = true;
      yield { id, event: followEventSchema.parse({ event, data: JSON.parse(data) }) };
    }
  };
}

/** Piece by piece, each late, until it ends, breaks, or its coordinator dies. */
async function* readBody(
  { clock, random }: FollowerDeps,
  reading: { readonly stream: OpenStream; readonly streams: Streams; readonly signal: AbortSignal },
): AsyncGenerator<Uint8Array> {
  const { stream, streams, signal } = reading;
  const broken = Promise.withResolvers<"told" | "silent">();
  const cutOff = (told: boolean) => broken.resolve(told ? "told" : "silent");
  const hangUp = () => cutOff(true);
  streams.add(cutOff);
  signal.addEventListener("abort", hangUp, { once: true });
  void stream.death.then(() => cutOff(random.chance(0.7)));
  const reader = stream.response.body?.getReader();
  try {
    while (reader !== undefined) {
      // Whoever dies on the way ends his answer with an error, and nobody sees that.
      const read = reader.read().catch(() => broken.promise);
      const next = await Promise.race([read, broken.promise]);
      if (next === "silent") await clock.sleep(SILENCE_MAX_MS, signal);
      if (typeof next === "string") throw new NixdeployError("unreachable", "cannot follow: the connection broke");
      if (next.done) return;
      if (random.chance(0.3)) await clock.sleep(random.below(LATENCY_MAX_MS), signal);
      yield next.value;
    }
  } finally {
    streams.delete(cutOff);
    signal.removeEventListener("abort", hangUp);
    // One that is dead never answers.
    void reader?.cancel().catch(() => {});
  }
}
