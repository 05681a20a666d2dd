/**
 * Takes away, step by step, what belonged to deleted workspaces and caches. Deleting itself is one transaction that marks
 * the row (`deletion.ts`); from then on nobody finds it, so all that is left to do here is to make room. After a kill the
 * next start goes on where this one stopped: the marks say what is left.
 *
 * A NAR file is removed when no other cache has it, before the row that names it, so a kill in between leaves a row to
 * begin again with and never a file that nobody knows of. Whoever brings the same file meanwhile waits (`narLock`).
 */
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { FileHash } from "../../nix/hash.ts";
import type { Clock } from "../../runtime.ts";
import type { BlobStore } from "../cache/blob-store.ts";
import type { KeyedLock } from "../cache/keyed-lock.ts";
import {
  findDeletedCache,
  findDeletedWorkspace,
  hasOtherNar,
  listSomeNars,
  removeCacheRow,
  removeNars,
  removeSomeOfWorkspace,
  removeSomePaths,
} from "../database/removals.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

export type Removals = AsyncDisposable & {
  /** Something was marked, or may have been before this start. */
  begin(): void;
  /** Resolves when nothing is left, or what is left has to wait for the next try. */
  settled(): Promise<void>;
};

export type RemovalsDeps = {
  readonly database: CoordinatorDatabase;
  readonly blobs: Pick<BlobStore, "remove">;
  /** By file hash: held from a file's arrival until its row is there, and here while one is removed. */
  readonly narLock: KeyedLock;
  readonly clock: Clock;
  readonly log: Logger;
};

/** After a step that failed, for a full disk say. */
const RETRY_MS = 60_000;

export function createRemovals(deps: RemovalsDeps): Removals {
  const stop = new AbortController();
  let running: Promise<void> | null = null;
  let isWanted = false;
  const run = async () => {
    while (isWanted && !stop.signal.aborted) {
      isWanted = false;
      try {
        while (!stop.signal.aborted && (await removeSome(deps))) await Bun.sleep(0);
      } catch (error) {
        deps.log.error("cannot remove what was deleted", { reason: describeError(error) });
        retryLater();
      }
    }
    running = null;
  };
  const begin = () => {
    isWanted = true;
    running ??= run();
  };
  const retryLater = () => {
    deps.clock.sleep(RETRY_MS, stop.signal).then(begin, () => {
      // The coordinator ends; its next start goes on.
    });
  };
  return {
    begin,
    async settled() {
      await running;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

/** One step. @returns false when nothing is left */
async function removeSome(deps: RemovalsDeps): Promise<boolean> {
  const { database } = deps;
  const cacheId = await findDeletedCache(database);
  if (cacheId !== null) {
    await removeSomeOfCache(deps, cacheId);
    return true;
  }
  const workspaceId = await findDeletedWorkspace(database);
  return workspaceId !== null && (await removeSomeOfWorkspace(database, workspaceId));
}

async function removeSomeOfCache(deps: RemovalsDeps, cacheId: string): Promise<void> {
  const { database } = deps;
  if (await removeSomePaths(database, cacheId)) return;
  const fileHashes = await listSomeNars(database, cacheId);
  if (fileHashes.length === 0) return await removeCacheRow(database, cacheId);
  for (const fileHash of fileHashes) await removeFile(deps, { cacheId, fileHash });
  await removeNars(database, { cacheId, fileHashes });
}

async function removeFile(
  { database, blobs, narLock }: RemovalsDeps,
  nar: { readonly cacheId: string; readonly fileHash: FileHash },
): Promise<void> {
  using _turn = await narLock.take(nar.fileHash);
  if (!(await hasOtherNar(database, nar))) await blobs.remove(nar.fileHash);
}
