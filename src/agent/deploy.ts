/**
 * One deployment on this device, from its offer to its outcome in the journal: fetch, keep from collection, activate.
 * Continues where an earlier run of the agent stopped: a fetch skips what is valid, an activation begins again.
 *
 * Whatever goes wrong becomes an outcome; only the end of the agent itself leaves the journal without one.
 */

import type { Phase } from "../deployment.ts";
import { describeError, NixdeployError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { fetchClosure } from "../nix/cache/download/fetch-closure.ts";
import type { CacheReader } from "../nix/cache/download/nar-source.ts";
import type { DaemonConnection } from "../nix/daemon/connection.ts";
import type { SignatureVerifier } from "../nix/signature.ts";
import type { PublicKey } from "../nix/signing-key.ts";
import type { StorePath } from "../nix/store-path.ts";
import type { Welcome } from "../protocol.ts";
import { formatBytes, formatCount } from "../quantity.ts";
import type { Clock, Random } from "../runtime.ts";
import type { ActivationResult, Activator } from "./activation/run.ts";
import type { Contact } from "./contact.ts";
import type { GcRoots } from "./gc-roots.ts";
import type { Journal, LogStream, OutcomeEntry } from "./journal.ts";

export type DeployDeps = {
  readonly contact: Contact;
  /** A cache of the coordinator; the credential is asked for at every request, because each welcome renews it. */
  readonly openCache: (welcome: Welcome, credential: () => string) => CacheReader;
  readonly connectDaemon: (options: { readonly signal: AbortSignal }) => Promise<DaemonConnection>;
  /** The keys this device trusts now. */
  readonly trust: () => { readonly verifier: SignatureVerifier; readonly keys: readonly PublicKey[] };
  readonly gcRoots: GcRoots;
  readonly activator: Activator;
  readonly readProfilePath: () => Promise<StorePath | null>;
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
  if (journal.outcome !== null) return;
  const outcome = await reachOutcome(options);
  await recordOutcome(outcome, options);
  logger.info(`deployment ${journal.offer.deploymentId} ${outcome.outcome}: ${outcome.reason}`);
  await options.gcRoots.dropOthers(journal.offer.deploymentId).catch((error: unknown) => {
    // Old roots only cost disk space; the next deployment tries again.
    if (!signal.aborted) logger.warn(`cannot remove old garbage-collector roots: ${describeError(error)}`);
  });
}

async function reachOutcome(options: DeployOptions): Promise<Outcome> {
  const { journal, cancelled, signal } = options;
  const begun = journal.phases.findLast((entry) => entry.phase === "activating");
  if (begun !== undefined) {
    await say(options, "the agent was restarted while it activated: activating again");
    return await activate(options, { previousPath: begun.previousPath, fetchedBytes: null, isResumed: true });
  }
  // Open until the end of the activation: its temporary roots hold what no profile names yet.
  await using daemons = new AsyncDisposableStack();
  let ready: Ready;
  try {
    ready = await makeReady(options, daemons);
  } catch (error) {
    signal.throwIfAborted();
    const facts = { previousPath: null, fetchedBytes: null, exitCode: null };
    if (cancelled.aborted) return { outcome: "cancelled", reason: "Cancelled before anything was touched.", ...facts };
    if (!(error instanceof NixdeployError)) options.logger.error(`unexpected: ${describeError(error)}`);
    return { outcome: "failed", reason: explain(error), ...facts };
  }
  return await activate(options, { ...ready, isResumed: false });
}

type Ready = { readonly previousPath: StorePath | null; readonly fetchedBytes: number };

/** Everything before the point of no return, which is the journal's entry of the phase "activating". */
async function makeReady(options: DeployOptions, daemons: AsyncDisposableStack): Promise<Ready> {
  const { offer } = options.journal;
  const signal = AbortSignal.any([options.signal, options.cancelled]);
  await enterPhase(options, "fetching", null);
  const welcome = await options.contact.firstWelcome(signal);
  const credential = () => options.contact.welcome?.readCredential ?? welcome.readCredential;
  const cache = options.openCache(welcome, credential);
  const rootDaemon = daemons.use(await options.connectDaemon({ signal: options.signal }));
  const wanted = offer.rollbackScript === null ? [offer.storePath] : [offer.storePath, offer.rollbackScript];
  let fetchedBytes = 0;
  for (const storePath of wanted) {
    fetchedBytes += await fetchOne({ ...options, signal }, { storePath, cache, rootDaemon });
  }
  await options.gcRoots.keep({ deploymentId: offer.deploymentId, storePaths: wanted, daemon: rootDaemon });
  const previousPath = await options.readProfilePath();
  signal.throwIfAborted();
  await enterPhase(options, "activating", previousPath);
  return { previousPath, fetchedBytes };
}

async function fetchOne(
  options: DeployOptions,
  what: { readonly storePath: StorePath; readonly cache: CacheReader; readonly rootDaemon: DaemonConnection },
): Promise<number> {
  const { journal, contact } = options;
  const { deploymentId } = journal.offer;
  const trust = options.trust();
  const { fetchedBytes } = await fetchClosure({
    ...options,
    ...what,
    verifier: trust.verifier,
    trustedKeys: trust.keys,
    onPlanned: ({ pathsTotal, missingPaths, missingBytes }) => {
      const amount = `${missingPaths} of ${formatCount(pathsTotal, "path")} to fetch, ${formatBytes(missingBytes)}`;
      void say(options, `${what.storePath}: ${missingPaths === 0 ? "all of it is here already" : amount}`);
    },
    onProgress: (progress) => contact.send({ kind: "progress", deploymentId, ...progress }),
  });
  return fetchedBytes;
}

async function activate(
  options: DeployOptions,
  facts: { readonly previousPath: StorePath | null; readonly fetchedBytes: number | null; readonly isResumed: boolean },
): Promise<Outcome> {
  const { journal, cancelled } = options;
  const { offer } = journal;
  const onCancel = () => void say(options, "a cancel came after the activation had begun: it goes on");
  cancelled.addEventListener("abort", onCancel, { once: true });
  const { previousPath, fetchedBytes } = facts;
  try {
    const result: ActivationResult = await options.activator.activate({
      ...offer,
      ...facts,
      log: (stream, text) => logLine(options, stream, text),
    });
    return { ...result, previousPath, fetchedBytes };
  } catch (error) {
    const reason = asSentence(`the activation ended unexpectedly: ${describeError(error)}`);
    return { outcome: "degraded", reason, previousPath, fetchedBytes, exitCode: null };
  } finally {
    cancelled.removeEventListener("abort", onCancel);
  }
}

async function enterPhase(options: DeployOptions, phase: Phase, previousPath: StorePath | null): Promise<void> {
  const { journal, logger } = options;
  await journal.phase({ phase, previousPath });
  logger.info(`deployment ${journal.offer.deploymentId} ${phase} ${journal.offer.storePath}`);
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

/** From the journal's own times, so that a restart in between counts too. */
function measurePhases(journal: Journal, endMs: number): Partial<Record<Phase, number>> {
  const phaseMs: Partial<Record<Phase, number>> = {};
  for (const [index, { phase, atMs }] of journal.phases.entries()) {
    const untilMs = journal.phases[index + 1]?.atMs ?? endMs;
    // The wall clock may have been set back.
    phaseMs[phase] = (phaseMs[phase] ?? 0) + Math.max(0, untilMs - atMs);
  }
  return phaseMs;
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
  return `${asSentence(describeError(error))}${hint}`;
}

function asSentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}
