/**
 * What is built in the local store from now on, for any user and with any daemon: nothing is configured, no build waits.
 *
 *   at the beginning   all valid paths are listed
 *   meanwhile          inotify on the store's folder says which names come and go; whether they have become valid is asked
 *   in the end         all valid paths are listed again: what is new is what inotify has missed
 *
 * So nothing depends on inotify but when a path is seen. Without it (no more watches, another platform's limits) the list
 * is asked for now and then. Built is what the store says it has built itself, and what came unsigned from a builder
 * elsewhere; what was substituted, derivations and sources are none.
 */
import { type FSWatcher, watch } from "node:fs";
import type { DaemonConnection } from "../../nix/daemon/connection.ts";
import type { ValidPath } from "../../nix/daemon/store-operations.ts";
import { parseStorePathBaseName, STORE_DIR, type StorePath, storePathName } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";

export type StoreWatch = AsyncDisposable & {
  readonly by: "inotify" | "polling";
  /** What was built since the last call, as far as it is known yet; kept from garbage collection until the end. */
  take(): Promise<readonly StorePath[]>;
  /** What was built since the last call, all of it. */
  takeRest(): Promise<readonly StorePath[]>;
};

export type WatchedStore = Pick<
  DaemonConnection,
  "listValidPaths" | "queryValidPaths" | "queryValidPath" | "addTempRoots"
> &
  AsyncDisposable;

export type WatchStoreOptions = {
  /** Opened again when it broke. */
  readonly openStore: () => Promise<WatchedStore>;
  readonly clock: Clock;
  /** Default: fs.watch on the store; null when that is not to be had. */
  readonly watchFolder?: (onName: (name: string) => void) => Disposable | null;
};

/** Where nobody tells of names: a list of all paths costs a daemon with a large store some 100 ms. */
const LIST_INTERVAL_MS = 10_000;

/** @throws NixdeployError when the daemon cannot be used */
export async function watchStore(options: WatchStoreOptions): Promise<StoreWatch> {
  const { openStore, clock, watchFolder = watchStoreFolder } = options;
  let store: WatchedStore | null = await openStore();
  const names = new Set<StorePath>();
  // Before the list, so that nothing falls between the two.
  const watcher = watchFolder((name) => {
    const path = pathOfName(name);
    if (path !== null) names.add(path);
  });
  const known = new Set<StorePath>(await store.listValidPaths());
  let listedAtMs = clock.monotonicMs();

  const useStore = async <Value>(work: (open: WatchedStore) => Promise<Value>): Promise<Value> => {
    store ??= await openStore();
    try {
      return await work(store);
    } catch (error) {
      await store[Symbol.asyncDispose]();
      store = null;
      throw error;
    }
  };
  /** Those of these that have become valid by being built; the others stay to be asked for again. */
  const sift = (open: WatchedStore, candidates: Iterable<StorePath>) =>
    siftBuilt(open, candidates, (path) => {
      names.delete(path);
      known.add(path);
    });
  const listNew = async (open: WatchedStore) => {
    listedAtMs = clock.monotonicMs();
    return (await open.listValidPaths()).filter((path) => !known.has(path));
  };
  return {
    by: watcher === null ? "polling" : "inotify",
    take: () =>
      useStore(async (open) => {
        const isDue = watcher === null && clock.monotonicMs() - listedAtMs >= LIST_INTERVAL_MS;
        return await sift(open, isDue ? await listNew(open) : [...names]);
      }),
    takeRest: () => useStore(async (open) => await sift(open, new Set([...names, ...(await listNew(open))]))),
    async [Symbol.asyncDispose]() {
      watcher?.[Symbol.dispose]();
      await store?.[Symbol.asyncDispose]();
    },
  };
}

async function siftBuilt(
  store: WatchedStore,
  candidates: Iterable<StorePath>,
  onValid: (path: StorePath) => void,
): Promise<readonly StorePath[]> {
  const built: StorePath[] = [];
  for (const path of await store.queryValidPaths([...candidates])) {
    // Before it is asked for once more, so that nobody collects it in between.
    await store.addTempRoots([path]);
    const found = await store.queryValidPath(path);
    if (found === null) continue;
    onValid(path);
    if (wasBuilt(found)) built.push(path);
  }
  return built;
}

/** Not a derivation, not a source, and not from a substituter, which gives nothing without a signature. */
export function wasBuilt({ info, isBuiltHere }: ValidPath): boolean {
  if (storePathName(info.storePath).endsWith(".drv")) return false;
  if (isBuiltHere) return true;
  const isSource = info.contentAddress !== null && info.deriver === null;
  return !isSource && info.signatures.length === 0;
}

/** What comes and goes beside a path that is being built: its lock, its build's folder, a second try. */
const BESIDE = /\.(lock|chroot|check|tmp)$/;

/** The path that a name in the store's folder stands for, or stands beside; null for what is none. Pure. */
export function pathOfName(name: string): StorePath | null {
  try {
    const path = parseStorePathBaseName(name.replace(BESIDE, ""));
    return path.endsWith(".drv") ? null : path;
  } catch {
    // `.links`, temporary files of an import: no path.
    return null;
  }
}

function watchStoreFolder(onName: (name: string) => void): Disposable | null {
  let watcher: FSWatcher;
  try {
    watcher = watch(STORE_DIR, { persistent: false }, (_event, name) => {
      if (name !== null) onName(name.toString());
    });
  } catch {
    // No more watches for this user, or no such folder yet: the list says it, too.
    return null;
  }
  watcher.on("error", () => {
    // It will say nothing any more; the list in the end does not depend on it.
  });
  return { [Symbol.dispose]: () => watcher.close() };
}
