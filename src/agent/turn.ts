/**
 * Whose turn it is to begin an activation: the agent, for what it was offered, and `nixdeploy local` share a state
 * directory, and only one activation is on record at a time. Whoever begins one holds `begin.lock` (flock) from looking
 * for another one to having recorded its own; whoever forgets one that is over holds it, too.
 *
 * It is held for moments. An activation itself is carried on by the supervisor, which has a lock of its own.
 */
import { join } from "node:path";
import type { DeploymentId } from "../names.ts";
import type { Clock } from "../runtime.ts";
import { openDeploymentJournal } from "./journal/deployment-folder.ts";
import { measurePhases } from "./journal/journal.ts";
import { tryLockFile } from "./machine/flock.ts";

export type TurnOptions = {
  readonly stateDirectory: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

const LOCK_FILE = "begin.lock";
const LOOK_INTERVAL_MS = 50;
/** Between looks at an activation that is in the way. */
const BUSY_LOOK_MS = 1_000;

/** Does it while nobody else begins or forgets an activation. @throws the signal's reason */
export async function takeTurn<Value>(options: TurnOptions, work: () => Promise<Value>): Promise<Value> {
  const { stateDirectory, clock, signal } = options;
  for (;;) {
    using lock = tryLockFile(join(stateDirectory, LOCK_FILE), 0o700, 1);
    if (lock !== null) return await work();
    await clock.sleep(LOOK_INTERVAL_MS, signal);
  }
}

/** The same, unless somebody else has the turn: for whoever comes back by himself. @returns null then */
export async function tryTurn<Value>(stateDirectory: string, work: () => Promise<Value>): Promise<Value | null> {
  using lock = tryLockFile(join(stateDirectory, LOCK_FILE), 0o700, 1);
  return lock === null ? null : await work();
}

/**
 * Takes the turn as soon as no other activation is on record that is not over.
 * @param onWait told at each look which one is in the way; throws where nobody is to wait for it
 * @throws the signal's reason · what `onWait` throws
 */
export async function takeFreeTurn<Value>(
  options: TurnOptions & {
    /** The deployment whose activation is not over. */
    readonly inTheWay: () => Promise<DeploymentId | null>;
    readonly onWait: (other: DeploymentId) => Promise<void>;
  },
  work: () => Promise<Value>,
): Promise<Value> {
  for (;;) {
    options.signal.throwIfAborted();
    const done = await takeTurn(options, async () => {
      const other = await options.inTheWay();
      return other === null ? { kind: "done" as const, value: await work() } : { kind: "busy" as const, other };
    });
    if (done.kind === "done") return done.value;
    await options.onWait(done.other);
    await options.clock.sleep(BUSY_LOOK_MS, options.signal);
  }
}

/** For whoever has the turn: ends what somebody began here and was killed before it was on record. */
export async function endUnbegun(
  options: Pick<TurnOptions, "stateDirectory" | "clock"> & { readonly deploymentId: DeploymentId },
): Promise<void> {
  await using opened = await openDeploymentJournal(options);
  await opened.journal.finish({
    outcome: "failed",
    reason: "The command that started it was ended before anything was touched.",
    ...{ previousPath: null, fetchedBytes: null, exitCode: null },
    phaseMs: measurePhases(opened.journal, options.clock.nowMs()),
  });
}
