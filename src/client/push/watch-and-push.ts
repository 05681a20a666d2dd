/**
 * Pushes what is built while something runs, as it is built, and all the rest when that has ended. A push that fails is
 * tried again in the end; what still fails is said, path by path, and takes nothing else with it.
 */
import { describeError } from "../../errors.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import type { StoreWatch } from "./watch-store.ts";

export type WatchAndPushOptions = {
  readonly watch: Pick<StoreWatch, "take" | "takeRest">;
  /** Brings the closures of these into the cache; those that are no longer in the store are left out. */
  readonly push: (roots: readonly StorePath[], signal: AbortSignal) => Promise<void>;
  /** Resolves when that which builds has ended. */
  readonly ended: Promise<void>;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** A try that failed while it went on. */
  readonly onTrouble: (error: unknown) => void;
};

export type PushedAll = {
  /** Everything that was built. */
  readonly built: readonly StorePath[];
  /** What of it is not in the cache, and why. */
  readonly failed: readonly { readonly path: StorePath; readonly error: unknown }[];
};

const LOOK_INTERVAL_MS = 500;
/** After a push that failed: the upload has waited for the coordinator long enough by itself. */
const AFTER_TROUBLE_MS = 15_000;

/** @throws the signal's reason; what `takeRest` throws: then it is not known what was built */
export async function watchAndPush(options: WatchAndPushOptions): Promise<PushedAll> {
  const { watch, push, signal } = options;
  const built = new Set<StorePath>();
  const waiting = new Set<StorePath>();
  const take = (paths: readonly StorePath[]) => {
    for (const path of paths) {
      built.add(path);
      waiting.add(path);
    }
  };
  await untilEnded(options, async () => {
    take(await watch.take());
    if (waiting.size === 0) return;
    const roots = [...waiting];
    await push(roots, signal);
    for (const root of roots) waiting.delete(root);
  });
  signal.throwIfAborted();
  take(await watch.takeRest());
  return { built: [...built], failed: await pushRest([...waiting], options) };
}

/** Works again and again until the end; what goes wrong is told, and tried again later. */
async function untilEnded(options: WatchAndPushOptions, work: () => Promise<void>): Promise<void> {
  const { clock, signal, ended } = options;
  const over = new AbortController();
  const isOver = ended.then(() => over.abort(new Error("it has ended")));
  const either = AbortSignal.any([signal, over.signal]);
  const rest = async (durationMs: number) => {
    await clock.sleep(durationMs, either).catch(() => {
      // Over, or stopped: both are asked for.
    });
  };
  while (!either.aborted) {
    await rest(LOOK_INTERVAL_MS);
    if (either.aborted) break;
    try {
      await work();
    } catch (error) {
      if (signal.aborted) break;
      options.onTrouble(error);
      await rest(AFTER_TROUBLE_MS);
    }
  }
  await isOver;
}

async function pushRest(
  roots: readonly StorePath[],
  { push, signal }: Pick<WatchAndPushOptions, "push" | "signal">,
): Promise<PushedAll["failed"]> {
  if (roots.length === 0) return [];
  try {
    await push(roots, signal);
    return [];
  } catch (error) {
    signal.throwIfAborted();
    const [only] = roots;
    if (roots.length === 1 && only !== undefined) return [{ path: only, error }];
  }
  const failed: { path: StorePath; error: unknown }[] = [];
  for (const path of roots) {
    try {
      await push([path], signal);
    } catch (error) {
      signal.throwIfAborted();
      failed.push({ path, error });
      // Nobody there: the others would wait as long, for the same.
      if (isUnreachable(error)) return roots.slice(roots.indexOf(path)).map((each) => ({ path: each, error }));
    }
  }
  return failed;
}

function isUnreachable(error: unknown): boolean {
  return error instanceof Error && "kind" in error && (error.kind === "unreachable" || error.kind === "denied");
}

/** `cannot reach …`, of several the first. */
export function describeFailed(failed: PushedAll["failed"]): string {
  return describeError(failed[0]?.error);
}
