/**
 * The part of a daemon connection that an upload needs, so that the engine can be tried without a daemon.
 */
import type { DaemonConnection } from "../../daemon/connection.ts";

export type StoreReader = Pick<DaemonConnection, "addTempRoots" | "queryPathInfos" | "narFromPath"> & AsyncDisposable;

export type OpenStore = (signal: AbortSignal) => Promise<StoreReader>;

/** A connection that one job uses for NAR after NAR, opened when first needed. */
export type StoreSlot = AsyncDisposable & {
  open(): Promise<StoreReader>;
  /** Closes the connection; the next `open` makes a new one. */
  discard(): Promise<void>;
};

export function createStoreSlot(openStore: OpenStore, signal: AbortSignal): StoreSlot {
  let store: StoreReader | null = null;
  const discard = async () => {
    const opened = store;
    store = null;
    await opened?.[Symbol.asyncDispose]();
  };
  return {
    async open() {
      store ??= await openStore(signal);
      return store;
    },
    discard,
    [Symbol.asyncDispose]: discard,
  };
}
