/**
 * The folder of one deployment, `STATE_DIR/deployments/ID/`: `offer.json` (what was asked for), `journal.ndjson` and
 * `acknowledged` (how far the coordinator has it). Which ones an agent keeps open is `deployment-store.ts`'s.
 */
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { describeError, NixdeployError } from "../../errors.ts";
import type { DeploymentId } from "../../names.ts";
import type { ReportEntry } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import { ensureDirectory, syncDirectory, writeDurableFile } from "../machine/durable-file.ts";
import { describeFileFault, isMissing } from "../machine/system-error.ts";
import { type ChangeSignal, createChangeSignal } from "./change-signal.ts";
import { createJournal, type Journal, type OutcomeEntry, type PhaseEntry } from "./journal.ts";
import { type JournalFile, openJournalFile, readLastEntry } from "./journal-file.ts";
import { type StoredOffer, storedOfferSchema } from "./stored-offer.ts";

/** A journal with what it is in. */
export type Open = { readonly journal: Journal; readonly file: JournalFile; readonly directory: string };

const JOURNAL_FILE = "journal.ndjson";
export const PRIVATE_DIRECTORY = 0o700;
const PRIVATE_FILE = 0o600;

/** Makes the folder of a deployment and gives it to `use`. @throws NixdeployError("host") */
export async function makeFolder<Value>(
  parent: string,
  offer: StoredOffer,
  use: (directory: string) => Promise<Value>,
): Promise<Value> {
  const directory = join(parent, offer.deploymentId);
  try {
    await ensureDirectory(directory, PRIVATE_DIRECTORY);
    await writeDurableFile({ path: join(directory, "offer.json"), text: JSON.stringify(offer), mode: PRIVATE_FILE });
    await syncDirectory(parent);
    return await use(directory);
  } catch (cause) {
    const why = describeError(cause);
    throw new NixdeployError("host", `cannot begin a deployment in ${directory}: ${why}`, { cause });
  }
}

/** A journal that this process began or opened, apart from any store. */
export type OpenedJournal = AsyncDisposable & { readonly journal: Journal; readonly changes: ChangeSignal };

/**
 * Begins the journal of a deployment that is started here. For whoever has the turn (`turn.ts`).
 * @throws NixdeployError("host")
 */
export async function beginDeploymentHere(options: {
  readonly stateDirectory: string;
  readonly offer: StoredOffer;
  readonly clock: Clock;
}): Promise<OpenedJournal> {
  const { stateDirectory, offer, clock } = options;
  const parent = join(stateDirectory, "deployments");
  await ensureDirectory(parent, PRIVATE_DIRECTORY);
  const changes = createChangeSignal();
  const opened = await makeFolder(parent, offer, (directory) =>
    openJournal({ directory, offer, clock, changes, isFollowed: false }),
  );
  return { ...asDisposable(opened), changes };
}

/** As if it had never begun; for whoever has the turn. */
export async function discardDeployment(stateDirectory: string, deploymentId: DeploymentId): Promise<void> {
  const directory = join(stateDirectory, "deployments", deploymentId);
  await rm(join(directory, "offer.json"), { force: true });
  await rm(directory, { recursive: true, force: true });
}

/** What a deployment ended with; null while it has not, or when nothing is known of it (any more). Changes nothing. */
export async function readOutcome(stateDirectory: string, deploymentId: DeploymentId): Promise<OutcomeEntry | null> {
  const last = await readLastEntry(join(stateDirectory, "deployments", deploymentId, JOURNAL_FILE));
  return last?.type === "outcome" ? last : null;
}

/** Those of which there is something here, oldest first. Reads, changes nothing. */
export async function listDeployments(stateDirectory: string): Promise<readonly StoredOffer[]> {
  const parent = join(stateDirectory, "deployments");
  const found: { offer: StoredOffer; writtenAtMs: number }[] = [];
  for (const name of await readdir(parent).catch(noneIfMissing)) {
    const read = await readOffer(join(parent, name));
    if (read !== null) found.push(read);
  }
  return found.sort((a, b) => a.writtenAtMs - b.writtenAtMs).map(({ offer }) => offer);
}

function noneIfMissing(error: unknown): string[] {
  if (isMissing(error)) return [];
  throw error;
}

function asDisposable(opened: Open): AsyncDisposable & { readonly journal: Journal } {
  return {
    journal: opened.journal,
    async [Symbol.asyncDispose]() {
      await opened.journal.close();
      await opened.file[Symbol.asyncDispose]();
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
  return asDisposable(opened);
}

/** Whether the coordinator may still have to learn something about a deployment. */
export async function hasJournal(stateDirectory: string, deploymentId: DeploymentId): Promise<boolean> {
  return (await readOffer(join(stateDirectory, "deployments", deploymentId))) !== null;
}

/** Up to which entry the agent knows that the coordinator has it; 0 when it does not know. */
export async function readReported(stateDirectory: string, deploymentId: DeploymentId): Promise<number> {
  return await readAcknowledged(join(stateDirectory, "deployments", deploymentId));
}

export async function openJournal(options: {
  readonly directory: string;
  readonly offer: StoredOffer;
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

/** @returns null for a folder that was never begun */
export async function readOffer(directory: string): Promise<{ offer: StoredOffer; writtenAtMs: number } | null> {
  const path = join(directory, "offer.json");
  try {
    const { mtimeMs } = await stat(path);
    return { offer: storedOfferSchema.parse(JSON.parse(await readFile(path, "utf8"))), writtenAtMs: mtimeMs };
  } catch (error) {
    if (isMissing(error)) return null;
    throw new NixdeployError("host", `cannot read the deployment ${path}: ${describeFileFault(error)}`, {
      hint: `Remove ${directory} to forget this deployment; the coordinator notices that at the next login.`,
      cause: error,
    });
  }
}
