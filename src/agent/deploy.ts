/**
 * One deployment on this device, from its offer to its outcome in the journal: fetch, keep from collection, activate.
 * Continues where an earlier run of the agent stopped: a fetch skips what is valid, an activation begins again.
 *
 * Whatever goes wrong becomes an outcome; only the end of the agent itself leaves the journal without one.
 */
import { describeError, NixdeployError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { CacheName, DeploymentId } from "../names.ts";
import { fetchClosure } from "../nix/cache/download/fetch-closure.ts";
import type { CacheReader, ClosureSource } from "../nix/cache/download/nar-source.ts";
import type { DaemonConnection } from "../nix/daemon/connection.ts";
import type { StorePath } from "../nix/store-path.ts";
import type { Welcome } from "../protocol.ts";
import { formatBytes, formatCount } from "../quantity.ts";
import type { Clock, Random } from "../runtime.ts";
import { formatSentence } from "../sentence.ts";
import type { Activations } from "./activation/activations.ts";
import { CANCELLED_UNTOUCHED } from "./activation/engine.ts";
import { wantedPaths } from "./health/offered-checks.ts";
import { type Journal, type LogStream, measurePhases, type OutcomeEntry } from "./journal/journal.ts";
import type { Contact } from "./link/contact.ts";
import type { GcRoots } from "./machine/gc-roots.ts";

export type DeployDeps = {
  readonly contact: Contact;
  /**
   * The workspace's caches, in the order in which they are asked; the credential is asked for at every request, because
   * each welcome renews it.
   */
  readonly openCaches: (welcome: Welcome, credential: () => string) => readonly CacheReader[];
  readonly connectDaemon: (options: { readonly signal: AbortSignal }) => Promise<DaemonConnection>;
  /** The keys this device trusts now for what comes from a cache. */
  readonly trustFor: (cacheName: CacheName) => Omit<ClosureSource, "reader">;
  readonly gcRoots: GcRoots;
  /** Other deployments whose paths are still needed. */
  readonly listKept: () => readonly DeploymentId[];
  readonly activations: Activations;
  readonly readProfilePath: () => Promise<StorePath | null>;
  /** What runs now, besides what the profile names. */
  readonly readLivePaths: () => Promise<readonly (StorePath | null)[]>;
  readonly readStoreFreeBytes: () => Promise<number | null>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
};

export type DeployOptions = DeployDeps & {
  readonly journal: Journal;
  /** Aborted when the coordinator cancels; heeded until activation begins. */
  readonly cancelled: AbortSignal;
  /** Aborted when the agent ends; heeded until activation begins. */
  readonly signal: AbortSignal;
};

type Outcome = Omit<OutcomeEntry, "type" | "n" | "atMs" | "phaseMs">;

/** How long an outcome that the disk refuses is tried again before the next try. */
const JOURNAL_RETRY_MS = 5_000;

/** @returns when the outcome is in the journal. @throws the signal's reason when the agent ends before */
export async function deploy(options: DeployOptions): Promise<void> {
  const { journal, logger, signal } = options;
  const { deploymentId } = journal.offer;
  const isPending = (await options.activations.pending()) === deploymentId;
  if (journal.outcome !== null && !isPending) return;
  const isReady = isPending || (await makeReadyOrEnd(options));
  if (isReady) await carry(options);
  const { outcome } = journal;
  if (outcome !== null) logger.info(`deployment ${deploymentId} ${outcome.outcome}: ${outcome.reason}`);
  await options.gcRoots.dropOthers([deploymentId, ...options.listKept()]).catch((error: unknown) => {
    // Old roots only cost disk space; the next deployment tries again.
    if (!signal.aborted) logger.warn(`cannot remove old garbage-collector roots: ${describeError(error)}`);
  });
}

/** @returns true when an activation is on record, false when it ended before */
async function makeReadyOrEnd(options: DeployOptions): Promise<boolean> {
  const { cancelled, signal } = options;
  let outcome: Outcome;
  // Open until the activation is on record with roots of its own.
  await using daemons = new AsyncDisposableStack();
  try {
    const unwanted = await options.activations.refuse(options.journal.offer);
    if (unwanted === null) await options.activations.settleTrial(AbortSignal.any([signal, cancelled]));
    const refused =
      unwanted === null
        ? await beginInTurn(options, await fetchAll(options, daemons))
        : { reason: unwanted, previousPath: null };
    if (refused === null) return true;
    outcome = { outcome: "failed", ...refused, ...NOTHING_DONE };
  } catch (error) {
    signal.throwIfAborted();
    const facts = { previousPath: null, ...NOTHING_DONE };
    if (!cancelled.aborted && !(error instanceof NixdeployError)) {
      options.logger.error(`unexpected: ${describeError(error)}`);
    }
    outcome = cancelled.aborted
      ? { outcome: "cancelled", reason: CANCELLED_UNTOUCHED, ...facts }
      : { outcome: "failed", reason: explain(error), ...facts };
  }
  await recordOutcome(outcome, options);
  return false;
}

const NOTHING_DONE = { fetchedBytes: null, exitCode: null } as const;

type Fetched = {
  readonly wanted: readonly StorePath[];
  readonly fetchedBytes: number;
  readonly rootDaemon: DaemonConnection;
};

async function fetchAll(options: DeployOptions, daemons: AsyncDisposableStack): Promise<Fetched> {
  const { offer } = options.journal;
  const signal = AbortSignal.any([options.signal, options.cancelled]);
  await enterPhase(options, { phase: "fetching", previousPath: null });
  const welcome = await options.contact.firstWelcome(signal);
  const credential = () => options.contact.welcome?.readCredential ?? welcome.readCredential;
  const caches = options.openCaches(welcome, credential);
  const rootDaemon = daemons.use(await options.connectDaemon({ signal: options.signal }));
  const wanted = wantedPaths(offer);
  let fetchedBytes = 0;
  for (const storePath of wanted) {
    fetchedBytes += await fetchOne({ ...options, signal }, { storePath, caches, rootDaemon });
  }
  return { wanted, fetchedBytes, rootDaemon };
}

/**
 * Everything up to the point of no return, which is the record of the activation; nobody else begins one meanwhile, so
 * what is looked at here is what will be gone back to.
 * @returns why it may not be activated, or null
 */
async function beginInTurn(
  options: DeployOptions,
  { wanted, fetchedBytes, rootDaemon }: Fetched,
): Promise<{ readonly reason: string; readonly previousPath: StorePath | null } | null> {
  const { journal, activations } = options;
  const { deploymentId } = journal.offer;
  const signal = AbortSignal.any([options.signal, options.cancelled]);
  const told = new Set<DeploymentId>();
  const onWait = async (other: DeploymentId) => {
    if (!told.has(other)) await say(options, `waiting for deployment ${other}, which was started on this device`);
    told.add(other);
  };
  return await activations.inTurn({ deploymentId, signal, onWait }, async () => {
    const previousProfile = await options.readProfilePath();
    // What it goes back to must not be collected either.
    const previous = [previousProfile, ...(await options.readLivePaths())].filter((path) => path !== null);
    const storePaths = [...new Set([...wanted, ...previous])];
    await options.gcRoots.keep({ deploymentId, storePaths, daemon: rootDaemon });
    signal.throwIfAborted();
    const confirmWindowMs = activations.confirmWindowMs(journal.offer);
    await enterPhase(options, { phase: "activating", previousPath: previousProfile, confirmWindowMs });
    const reason = await activations.begin({ journal, previousProfile, fetchedBytes });
    return reason === null ? null : { reason, previousPath: previousProfile };
  });
}

async function fetchOne(
  options: DeployOptions,
  what: {
    readonly storePath: StorePath;
    readonly caches: readonly CacheReader[];
    readonly rootDaemon: DaemonConnection;
  },
): Promise<number> {
  const { journal, contact } = options;
  const { deploymentId } = journal.offer;
  const { fetchedBytes } = await fetchClosure({
    ...options,
    ...what,
    sources: openSources(what.caches, options.trustFor),
    onPlanned: ({ pathsTotal, missingPaths, missingBytes }) => {
      const amount = `${missingPaths} of ${formatCount(pathsTotal, "path")} to fetch, ${formatBytes(missingBytes)}`;
      void say(options, `${what.storePath}: ${missingPaths === 0 ? "all of it is here already" : amount}`);
    },
    onProgress: (progress) => contact.send({ kind: "progress", deploymentId, ...progress }),
  });
  return fetchedBytes;
}

/** A further cache without keys that count here is left out; the first stays, for what is said of it. */
function openSources(caches: readonly CacheReader[], trustFor: DeployDeps["trustFor"]): readonly ClosureSource[] {
  return caches
    .map((reader) => ({ reader, ...trustFor(reader.name) }))
    .filter(({ trustedKeys }, index) => index === 0 || trustedKeys.length > 0);
}

/** From here on the supervisor does everything; a cancel asks it to go back. */
async function carry(options: DeployOptions): Promise<void> {
  const { journal, cancelled, activations, logger } = options;
  const onCancel = () => {
    activations.cancel(journal.offer.deploymentId).catch((error: unknown) => {
      logger.error(`cannot ask the supervisor to go back: ${describeError(error)}`);
    });
  };
  cancelled.addEventListener("abort", onCancel, { once: true });
  if (cancelled.aborted) onCancel();
  try {
    await activations.carry(journal, options.signal);
  } finally {
    cancelled.removeEventListener("abort", onCancel);
  }
}

async function enterPhase({ journal, logger }: DeployOptions, entry: Parameters<Journal["phase"]>[0]): Promise<void> {
  await journal.phase(entry);
  logger.info(`deployment ${journal.offer.deploymentId} ${entry.phase} ${journal.offer.storePath}`);
}

/** An outcome that cannot be written is not given up: without it the deployment would never end for anybody else. */
async function recordOutcome(outcome: Outcome, options: DeployOptions): Promise<void> {
  const { journal, clock, logger, signal } = options;
  const phaseMs = measurePhases(journal, clock.nowMs());
  const entry = { ...outcome, reason: outcome.reason.slice(0, 4_000), phaseMs };
  for (;;) {
    try {
      return await journal.finish(entry);
    } catch (error) {
      logger.error(describeError(error));
      await clock.sleep(JOURNAL_RETRY_MS, signal);
    }
  }
}

/** A line of ours, in the deployment's log. */
async function say(options: DeployOptions, text: string): Promise<void> {
  await logLine(options, "agent", text);
}

async function logLine({ journal, logger }: DeployOptions, stream: LogStream, text: string): Promise<void> {
  logger.debug(text);
  await journal.log(stream, text);
}

function explain(error: unknown): string {
  const hint = error instanceof NixdeployError && error.hint !== undefined ? ` ${error.hint}` : "";
  return `${formatSentence(describeError(error))}${hint}`;
}
