/**
 * The deployments this agent still has to do with, on disk (`deployment-folder.ts`). A folder disappears when the
 * coordinator has acknowledged the outcome, so what is left at a start is unfinished or undelivered.
 */
import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describeError, NixdeployError } from "../../errors.ts";
import type { DeploymentId } from "../../names.ts";
import type { Clock } from "../../runtime.ts";
import { ensureDirectory, syncDirectory } from "../machine/durable-file.ts";
import { hasCode, isMissing, takesNothing } from "../machine/system-error.ts";
import { type ChangeSignal, createChangeSignal } from "./change-signal.ts";
import { makeFolder, type Open, openJournal, PRIVATE_DIRECTORY, readOffer } from "./deployment-folder.ts";
import { createJournal, type Journal } from "./journal.ts";
import { START } from "./journal-file.ts";
import { createMemoryFile } from "./memory-journal.ts";
import type { StoredOffer } from "./stored-offer.ts";

export type DeploymentStore = AsyncDisposable & {
  /** Oldest first. */
  readonly journals: readonly Journal[];
  /** Told of every change in any journal, and of journals that come and go. */
  readonly changes: ChangeSignal;
  find(id: DeploymentId): Journal | null;
  /** Begins the journal of an offer that is not known yet. @throws NixdeployError("host") */
  begin(offer: StoredOffer): Promise<Journal>;
  /**
   * A journal in memory alone, with its outcome `failed`, of an offer that could not be begun.
   * @throws the system's error when something of it is on the disk that would be taken up at the next start
   */
  endInMemory(offer: StoredOffer, reason: string): Promise<Journal>;
  /**
   * Opens the journals of deployments that somebody else began here (`nixdeploy local`), oldest first: only to be
   * followed. For whoever has the turn (`turn.ts`): nobody is in the middle of beginning one.
   */
  adopt(): Promise<void>;
  /** Takes note of an acknowledgement; forgets the deployment when its outcome has arrived. */
  acknowledge(id: DeploymentId, through: number): Promise<void>;
};

/** Opens what an earlier run left. @throws NixdeployError("host") when the directory cannot be used */
export async function openDeploymentStore(options: {
  readonly stateDirectory: string;
  readonly clock: Clock;
  /** The deployment whose journal another process may be writing: the one with an activation on record. */
  readonly followed: DeploymentId | null;
}): Promise<DeploymentStore> {
  const parent = join(options.stateDirectory, "deployments");
  const changes = createChangeSignal();
  const open = new Map<DeploymentId, Open>();
  const inMemory = new Set<DeploymentId>();
  const add = async (directory: string, offer: StoredOffer) => {
    // The journal of what was started here is written by whoever did, and by its supervisor.
    const isFollowed = offer.deploymentId === options.followed || offer.startedHere !== undefined;
    const opened = await openJournal({ directory, offer, clock: options.clock, changes, isFollowed });
    open.set(offer.deploymentId, opened);
    changes.changed();
    return opened.journal;
  };
  const remove = async (id: DeploymentId, { journal, file, directory }: Open) => {
    open.delete(id);
    await journal.close();
    await file[Symbol.asyncDispose]();
    if (!inMemory.delete(id)) {
      await removeOffer(directory);
      await rm(directory, { recursive: true, force: true });
    }
    changes.changed();
  };
  try {
    await ensureDirectory(parent, PRIVATE_DIRECTORY);
    await syncDirectory(options.stateDirectory);
    for (const { directory, offer } of await readOffers(parent)) await add(directory, offer);
  } catch (cause) {
    if (cause instanceof NixdeployError) throw cause;
    const why = hasCode(cause, "EEXIST") ? "it is a file" : describeError(cause);
    throw new NixdeployError("host", `cannot use the agent's deployments in ${parent}: ${why}`, { cause });
  }

  return {
    get journals() {
      return [...open.values()].map(({ journal }) => journal);
    },
    changes,
    find: (id) => open.get(id)?.journal ?? null,
    begin: (offer) => makeFolder(parent, offer, (directory) => add(directory, offer)),
    async endInMemory(offer, reason) {
      const directory = join(parent, offer.deploymentId);
      await removeOffer(directory);
      const file = createMemoryFile();
      const journal = createJournal({ offer, file, recovered: [], acknowledged: START, clock: options.clock, changes });
      const nothing = { previousPath: null, fetchedBytes: null, exitCode: null, phaseMs: {} };
      await journal.finish({ outcome: "failed", reason, ...nothing });
      inMemory.add(offer.deploymentId);
      open.set(offer.deploymentId, { journal, file, directory });
      changes.changed();
      return journal;
    },
    async adopt() {
      const found: Found[] = [];
      for (const name of await readdir(parent)) {
        if ([...open.keys()].some((id) => id === name)) continue;
        const read = await readOffer(join(parent, name));
        if (read?.offer.startedHere !== undefined) found.push({ directory: join(parent, name), ...read });
      }
      // The coordinator is told in this order, and takes the last one for the latest.
      for (const { directory, offer } of found.sort(byAge)) await add(directory, offer);
    },
    async acknowledge(id, through) {
      const known = open.get(id);
      if (known === undefined) return;
      const { journal, directory } = known;
      await journal.acknowledge(through);
      if (journal.outcome !== null && journal.acknowledged.n >= journal.outcome.n) return await remove(id, known);
      await writeFile(join(directory, "acknowledged"), String(journal.acknowledged.n)).catch(() => {
        // Neither synced nor needed: an older number only means that some entries are sent once more.
      });
    },
    async [Symbol.asyncDispose]() {
      for (const { journal, file } of open.values()) {
        await journal.close();
        await file[Symbol.asyncDispose]();
      }
    },
  };
}

/** Without its offer a folder counts as never begun, should somebody be interrupted. Durable on return. */
async function removeOffer(directory: string): Promise<void> {
  try {
    await rm(join(directory, "offer.json"), { force: true });
    await syncDirectory(directory);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}

/** Oldest first: by when the offer was written. Folders without a whole offer were never begun, and go. */
async function readOffers(parent: string): Promise<readonly Found[]> {
  const found: Found[] = [];
  for (const name of await readdir(parent)) {
    const directory = join(parent, name);
    const offer = await readOffer(directory);
    if (offer === null) await removeUnlessRefused(directory);
    else found.push({ directory, ...offer });
  }
  return found.sort(byAge);
}

/** Another start tries again where the disk takes nothing. */
async function removeUnlessRefused(directory: string): Promise<void> {
  try {
    await rm(directory, { recursive: true, force: true });
  } catch (error) {
    if (!takesNothing(error)) throw error;
  }
}

type Found = { readonly directory: string; readonly offer: StoredOffer; readonly writtenAtMs: number };

/** Two that were started here within the same tick of the file system's clock have times of their own. */
function byAge(a: Found, b: Found): number {
  const startedMs = (found: Found) => found.offer.startedHere?.startedAtMs ?? found.writtenAtMs;
  return startedMs(a) - startedMs(b);
}
