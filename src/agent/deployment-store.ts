/**
 * The deployments this agent still has to do with, on disk: `STATE_DIR/deployments/ID/` holds `offer.json` (what was
 * asked for), `journal.ndjson` and `acknowledged` (how far the coordinator has it). A folder disappears when the
 * coordinator has acknowledged the outcome, so what is left at a start is unfinished or undelivered.
 */
import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describeError, NixdeployError } from "../errors.ts";
import type { DeploymentId } from "../names.ts";
import { type Offer, offerSchema, type ReportEntry } from "../protocol.ts";
import type { Clock } from "../runtime.ts";
import { type ChangeSignal, createChangeSignal } from "./change-signal.ts";
import { ensureDirectory, syncDirectory, writeDurableFile } from "./durable-file.ts";
import { createJournal, type Journal, type OutcomeEntry, type PhaseEntry } from "./journal.ts";
import { type JournalFile, openJournalFile } from "./journal-file.ts";
import { describeFileFault, hasCode, isMissing } from "./system-error.ts";

export type DeploymentStore = AsyncDisposable & {
  /** Oldest first. */
  readonly journals: readonly Journal[];
  /** Told of every change in any journal, and of journals that come and go. */
  readonly changes: ChangeSignal;
  find(id: DeploymentId): Journal | null;
  /** Begins the journal of an offer that is not known yet. @throws NixdeployError("host") */
  begin(offer: Offer): Promise<Journal>;
  /** Takes note of an acknowledgement; forgets the deployment when its outcome has arrived. */
  acknowledge(id: DeploymentId, through: number): Promise<void>;
};

type Open = { readonly journal: Journal; readonly file: JournalFile; readonly directory: string };

const JOURNAL_FILE = "journal.ndjson";
const PRIVATE_DIRECTORY = 0o700;
const PRIVATE_FILE = 0o600;

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
  const add = async (directory: string, offer: Offer) => {
    const isFollowed = offer.deploymentId === options.followed;
    const opened = await openJournal({ directory, offer, clock: options.clock, changes, isFollowed });
    open.set(offer.deploymentId, opened);
    changes.changed();
    return opened.journal;
  };
  const remove = async (id: DeploymentId, { journal, file, directory }: Open) => {
    open.delete(id);
    await journal.close();
    await file[Symbol.asyncDispose]();
    // Without its offer a folder counts as never begun, should this be interrupted.
    await rm(join(directory, "offer.json"), { force: true });
    await syncDirectory(directory);
    await rm(directory, { recursive: true, force: true });
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
    async begin(offer) {
      const directory = join(parent, offer.deploymentId);
      try {
        await ensureDirectory(directory, PRIVATE_DIRECTORY);
        await writeDurableFile({
          path: join(directory, "offer.json"),
          text: JSON.stringify(offer),
          mode: PRIVATE_FILE,
        });
        await syncDirectory(parent);
        return await add(directory, offer);
      } catch (cause) {
        const why = describeError(cause);
        throw new NixdeployError("host", `cannot begin a deployment in ${directory}: ${why}`, { cause });
      }
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

/**
 * Opens one journal for writing, for the process that carries the activation out.
 * @throws NixdeployError("host") when there is no such deployment, or its files cannot be used
 */
export async function openDeploymentJournal(options: {
  readonly stateDirectory: string;
  readonly deploymentId: DeploymentId;
  readonly clock: Clock;
}): Promise<AsyncDisposable & { readonly journal: Journal }> {
  const directory = join(options.stateDirectory, "deployments", options.deploymentId);
  const read = await readOffer(directory);
  if (read === null) throw new NixdeployError("host", `cannot find the deployment of an activation in ${directory}`);
  const { clock } = options;
  const opened = await openJournal({
    ...{ directory, clock, offer: read.offer },
    changes: createChangeSignal(),
    isFollowed: false,
  });
  return {
    journal: opened.journal,
    async [Symbol.asyncDispose]() {
      await opened.journal.close();
      await opened.file[Symbol.asyncDispose]();
    },
  };
}

/** Whether the coordinator may still have to learn something about a deployment. */
export async function hasJournal(stateDirectory: string, deploymentId: DeploymentId): Promise<boolean> {
  return (await readOffer(join(stateDirectory, "deployments", deploymentId))) !== null;
}

/** Up to which entry the agent knows that the coordinator has it; 0 when it does not know. */
export async function readReported(stateDirectory: string, deploymentId: DeploymentId): Promise<number> {
  return await readAcknowledged(join(stateDirectory, "deployments", deploymentId));
}

async function openJournal(options: {
  readonly directory: string;
  readonly offer: Offer;
  readonly clock: Clock;
  readonly changes: ChangeSignal;
  readonly isFollowed: boolean;
}): Promise<Open> {
  const { directory } = options;
  const recovered: (PhaseEntry | OutcomeEntry)[] = [];
  const onEntry = (entry: ReportEntry) => {
    if (entry.type !== "log") recovered.push(entry);
  };
  const file = await openJournalFile({ ...options, path: join(directory, JOURNAL_FILE), onEntry });
  const acknowledged = await file.find(await readAcknowledged(directory), { n: 0, offset: 0 });
  return { journal: createJournal({ ...options, file, recovered, acknowledged }), file, directory };
}

async function readAcknowledged(directory: string): Promise<number> {
  try {
    const n = Number(await readFile(join(directory, "acknowledged"), "utf8"));
    return Number.isSafeInteger(n) && n > 0 ? n : 0;
  } catch (error) {
    if (isMissing(error)) return 0;
    throw error;
  }
}

/** Oldest first: by when the offer was written. Folders without a whole offer were never begun, and go. */
async function readOffers(parent: string): Promise<{ directory: string; offer: Offer }[]> {
  const found: { directory: string; offer: Offer; writtenAtMs: number }[] = [];
  for (const name of await readdir(parent)) {
    const directory = join(parent, name);
    const offer = await readOffer(directory);
    if (offer === null) await rm(directory, { recursive: true, force: true });
    else found.push({ directory, ...offer });
  }
  return found.sort((a, b) => a.writtenAtMs - b.writtenAtMs);
}

async function readOffer(directory: string): Promise<{ offer: Offer; writtenAtMs: number } | null> {
  const path = join(directory, "offer.json");
  try {
    const { mtimeMs } = await stat(path);
    return { offer: offerSchema.parse(JSON.parse(await readFile(path, "utf8"))), writtenAtMs: mtimeMs };
  } catch (error) {
    if (isMissing(error)) return null;
    throw new NixdeployError("host", `cannot read the deployment ${path}: ${describeFileFault(error)}`, {
      hint: `Remove ${directory} to forget this deployment; the coordinator notices that at the next login.`,
      cause: error,
    });
  }
}
