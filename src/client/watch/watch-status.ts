/**
 * The coordinator and its agents as they are, again and again: read anew when an event says that something has changed,
 * and now and then for what has no event (drift, failed units, free space). Survives a coordinator that restarts.
 */
import type { AgentDto } from "../../api/agents.ts";
import type { NewsEvent } from "../../api/events.ts";
import type { StatusDto } from "../../api/status.ts";
import { NixdeployError } from "../../errors.ts";
import type { WorkspaceName } from "../../names.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { CoordinatorClient } from "../api/coordinator.ts";
import { watchEvents } from "../follow/watch-events.ts";

export type Seen = { readonly status: StatusDto; readonly agents: readonly AgentDto[] };

export type WatchStatusOptions = {
  readonly coordinator: Pick<CoordinatorClient, "loadStatus" | "listAgents" | "openEvents">;
  readonly workspace: WorkspaceName | undefined;
  readonly onSeen: (seen: Seen) => Promise<void>;
  readonly onEvent: (event: NewsEvent) => Promise<void>;
  readonly onContact: (contact: "lost" | "back") => Promise<void>;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
};

/** Events of a large rollout come by the hundred: they are answered by one look. */
const LOOK_INTERVAL_MS = 1_000;
const LOOK_ANYWAY_MS = 10_000;

/** @throws the signal's reason; NixdeployError for what trying again does not mend, as `watchEvents` does */
export async function watchStatus(options: WatchStatusOptions): Promise<never> {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const changes = createFlag();
  const watching = watchEvents({
    open: options.coordinator.openEvents(options.workspace),
    lastEventId: null,
    onEvent: async (event) => {
      changes.raise();
      await options.onEvent(event);
    },
    onContact: async (contact) => {
      // What happened meanwhile is seen by looking.
      if (contact === "back") changes.raise();
      await options.onContact(contact);
    },
    clock: options.clock,
    random: options.random,
    signal,
  });
  try {
    return await Promise.race([watching, lookAgain(options, { signal, changes })]);
  } finally {
    stop.abort(new Error("the watch is over"));
    await watching.catch(() => {
      // Thrown above when it was the reason to end.
    });
  }
}

async function lookAgain(
  { coordinator, workspace, clock, onSeen }: WatchStatusOptions,
  { signal, changes }: { readonly signal: AbortSignal; readonly changes: Flag },
): Promise<never> {
  for (;;) {
    changes.lower();
    const seen = await look({ coordinator, workspace }, signal);
    if (seen !== null) await onSeen(seen);
    await clock.sleep(LOOK_INTERVAL_MS, signal);
    const waited = new AbortController();
    const either = AbortSignal.any([signal, waited.signal]);
    const anyway = clock.sleep(LOOK_ANYWAY_MS - LOOK_INTERVAL_MS, either).catch(() => {
      // A change came first, or everything ends.
    });
    await Promise.race([changes.raised(), anyway]);
    waited.abort(new Error("it is looked at now"));
    signal.throwIfAborted();
  }
}

/** Null when nobody answers: the stream of events says so too, and for how long that is borne. */
async function look(
  { coordinator, workspace }: Pick<WatchStatusOptions, "coordinator" | "workspace">,
  signal: AbortSignal,
): Promise<Seen | null> {
  try {
    const [status, agents] = await Promise.all([
      coordinator.loadStatus(workspace, signal),
      coordinator.listAgents({ workspace }, signal),
    ]);
    return { status, agents };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof NixdeployError && error.kind === "unreachable") return null;
    throw error;
  }
}

type Flag = { raise(): void; lower(): void /** Resolves as soon as it is up. */; raised(): Promise<void> };

function createFlag(): Flag {
  let state = Promise.withResolvers<void>();
  return {
    raise: () => state.resolve(),
    lower: () => {
      state = Promise.withResolvers<void>();
    },
    raised: () => state.promise,
  };
}
