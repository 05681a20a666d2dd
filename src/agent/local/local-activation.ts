/**
 * An activation that somebody at the machine starts, while the coordinator may be away: the same record, journal and
 * supervisor as any other, begun in the agent's state directory in turn with the agent. Whoever started it only watches:
 * killed at any moment, it leaves a supervisor that goes on, or nothing that was touched.
 */
import { join } from "node:path";
import type { ActivationPolicy, Mode } from "../../deployment.ts";
import { NixdeployError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { DeploymentId } from "../../names.ts";
import type { DaemonConnection } from "../../nix/daemon/connection.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { ReportEntry } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import type { Activations } from "../activation/activations.ts";
import {
  beginDeploymentHere,
  discardDeployment,
  listDeployments,
  type OpenedJournal,
  readOutcome,
} from "../journal/deployment-folder.ts";
import type { OutcomeEntry } from "../journal/journal.ts";
import { START } from "../journal/journal-file.ts";
import { ensureDirectory } from "../machine/durable-file.ts";
import { tryLockFile } from "../machine/flock.ts";
import type { GcRoots } from "../machine/gc-roots.ts";
import { requireOwnDirectory } from "../machine/own-directory.ts";
import { endUnbegun } from "../turn.ts";
import type { LocalTarget } from "./local-target.ts";

export type LocalRequest = {
  readonly deploymentId: DeploymentId;
  readonly storePath: StorePath;
  readonly mode: Mode;
  readonly policy: ActivationPolicy;
  /** The user who did, and what was typed, for the log. */
  readonly startedBy: string | null;
  readonly typed: string;
  /** Whoever started it is elsewhere, and must come back in to confirm it (`local-confirm.ts`). */
  readonly awaitsVisit: boolean;
  /** Until another activation is over, instead of an error. */
  readonly mayWait: boolean;
};

export type LocalActivationDeps = {
  readonly target: LocalTarget;
  readonly activations: Pick<
    Activations,
    "begin" | "carry" | "confirmWindowMs" | "ensureSupervised" | "inTurn" | "settleTrial"
  >;
  readonly gcRoots: GcRoots;
  readonly connectDaemon: (options: { readonly signal: AbortSignal }) => Promise<DaemonConnection>;
  readonly readProfilePath: () => Promise<StorePath | null>;
  /** What runs, which an undo makes live again. */
  readonly readLivePaths: () => Promise<readonly (StorePath | null)[]>;
  /** Given every entry of the journal, in order. */
  readonly onEntry: (entry: ReportEntry) => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
};

/** Before it says what it waits for. */
const SILENT_MS = 1_000;
/** Deployments of this kind that have ended, and that no coordinator has taken: the latest ones are kept. */
const UNTOLD_MAX = 20;

/** @throws NixdeployError("refused" | "conflict" | "host") with nothing touched · the signal's reason */
export async function activateHere(request: LocalRequest, deps: LocalActivationDeps): Promise<OutcomeEntry> {
  const { stateDirectory } = deps.target;
  await requireOwnDirectory(stateDirectory);
  await ensureDirectory(stateDirectory, 0o700);
  // Holds the path until the links do.
  await using daemon = await deps.connectDaemon({ signal: deps.signal });
  await checkPath(request.storePath, daemon);
  await settleTrial(deps);
  await using opened = await beginWhenFree(request, { ...deps, daemon });
  return await follow(opened, deps);
}

async function checkPath(storePath: StorePath, daemon: DaemonConnection): Promise<void> {
  await daemon.addTempRoots([storePath]);
  if ((await daemon.queryPathInfo(storePath)) !== null) return;
  throw new NixdeployError("refused", `cannot activate ${storePath}: this machine's store does not have it`, {
    hint: `Bring it here first: \`nix copy --from … ${storePath}\`, \`nix-store --import\`, or \`nix build\`.`,
  });
}

/** What was booted on trial is decided on first: before that nobody knows what this machine goes back to. */
async function settleTrial({ activations, clock, logger, signal }: LocalActivationDeps): Promise<void> {
  const over = new AbortController();
  const saying = clock.sleep(SILENT_MS, over.signal).then(
    () => logger.info("waiting for the end of the trial of the system that was booted"),
    () => {
      // Nothing was on trial, or its end came at once.
    },
  );
  try {
    await activations.settleTrial(signal);
  } finally {
    over.abort(new Error("nothing is on trial"));
    await saying;
  }
}

type BeginDeps = LocalActivationDeps & { readonly daemon: DaemonConnection };

async function beginWhenFree(request: LocalRequest, deps: BeginDeps): Promise<OpenedJournal> {
  const { signal, logger, activations } = deps;
  const { deploymentId, mayWait } = request;
  const told = new Set<DeploymentId>();
  const onWait = async (other: DeploymentId) => {
    // Its own beginner may be gone.
    await activations.ensureSupervised();
    if (!mayWait) throw describeBusy(other);
    if (!told.has(other)) logger.info(`waiting for deployment ${other}, which is being activated`);
    told.add(other);
  };
  return await activations.inTurn({ deploymentId, signal, onWait }, () => begin(request, deps));
}

function describeBusy(other: DeploymentId): NixdeployError {
  return new NixdeployError("conflict", `cannot activate now: the agent is at work on deployment ${other}`, {
    hint: "Look at it with `nixdeploy local status`, or wait for it with --wait.",
  });
}

/** In turn. Whatever is missing in the end is removed again. */
async function begin(request: LocalRequest, deps: BeginDeps): Promise<OpenedJournal> {
  const { clock, target } = deps;
  const { stateDirectory } = target;
  const { deploymentId, storePath, mode, policy, startedBy } = request;
  checkProfile(target);
  await tidyUntold(deps);
  const opened = await beginDeploymentHere({
    ...{ stateDirectory, clock },
    offer: {
      ...{ kind: "offer", deploymentId, storePath, mode, policy, rollbackScript: null },
      startedHere: { startedAtMs: clock.nowMs(), startedBy },
    },
  });
  const { journal } = opened;
  try {
    const previousProfile = await deps.readProfilePath();
    const previous = [previousProfile, ...(await deps.readLivePaths())].filter((path) => path !== null);
    const storePaths = [...new Set([storePath, ...previous])];
    await deps.gcRoots.keep({ deploymentId, storePaths, daemon: deps.daemon });
    await journal.log(
      "agent",
      `started on this device${startedBy === null ? "" : ` by ${startedBy}`}: ${request.typed}`,
    );
    const confirmWindowMs = deps.activations.confirmWindowMs(journal.offer);
    await journal.phase({ phase: "activating", previousPath: previousProfile, confirmWindowMs });
    const proof = request.awaitsVisit ? "visit" : "none";
    const refusal = await deps.activations.begin({ journal, previousProfile, fetchedBytes: null, proof });
    if (refusal !== null) throw new NixdeployError("refused", asClause(refusal));
    return opened;
  } catch (error) {
    await opened[Symbol.asyncDispose]();
    await discardDeployment(stateDirectory, deploymentId);
    throw error;
  }
}

/** The agent's sentence, as an error's text. */
function asClause(sentence: string): string {
  return `${sentence.charAt(0).toLowerCase()}${sentence.slice(1).replace(/\.$/, "")}`;
}

/** An agent that keeps this profile with another state directory would not hear of us. */
function checkProfile({ profilePath, stateDirectory }: LocalTarget): void {
  using profile = tryLockFile(`${profilePath}.nixdeploy-lock`);
  if (profile !== null) return;
  using state = tryLockFile(join(stateDirectory, "lock"), 0o700);
  if (state === null) return;
  throw new NixdeployError("conflict", `cannot activate: another agent keeps ${profilePath}`, {
    hint: "Give that agent's state directory with --state-dir.",
  });
}

/** Without a coordinator they would pile up; and one may never have been put on record. */
async function tidyUntold({ target, clock }: LocalActivationDeps): Promise<void> {
  const { stateDirectory } = target;
  const started = (await listDeployments(stateDirectory)).filter(({ startedHere }) => startedHere !== undefined);
  for (const { deploymentId } of started) {
    if ((await readOutcome(stateDirectory, deploymentId)) === null)
      await endUnbegun({ stateDirectory, deploymentId, clock });
  }
  for (const { deploymentId } of started.slice(0, -UNTOLD_MAX)) await discardDeployment(stateDirectory, deploymentId);
}

/** @throws the signal's reason; the supervisor goes on then */
async function follow({ journal, changes }: OpenedJournal, deps: LocalActivationDeps): Promise<OutcomeEntry> {
  const { activations, target, gcRoots, logger, signal } = deps;
  const over = new AbortController();
  const telling = tell({ ...deps, signal: over.signal }, { journal, changes });
  try {
    const outcome = await activations.carry(journal, signal);
    over.abort(new Error("the outcome is there"));
    await telling;
    const kept = (await listDeployments(target.stateDirectory)).map(({ deploymentId }) => deploymentId);
    await gcRoots.dropOthers([journal.offer.deploymentId, ...kept]).catch((error: unknown) => {
      // Old roots only cost disk space.
      logger.warn(`cannot remove old garbage-collector roots: ${String(error)}`);
    });
    return outcome;
  } finally {
    over.abort(new Error("nobody listens any more"));
    await telling;
  }
}

/** Tells what the journal has, until told to stop, and then the rest. */
async function tell(
  { onEntry, signal }: LocalActivationDeps,
  { journal, changes }: Pick<OpenedJournal, "journal" | "changes">,
): Promise<void> {
  let place = START;
  for (let isLast = false; !isLast; ) {
    isLast = signal.aborted;
    const { version } = changes;
    for (;;) {
      const { entries, next } = await journal.read(place);
      if (entries.length === 0) break;
      for (const entry of entries) await onEntry(entry);
      place = next;
    }
    await changes.waitAfter(version, signal).catch(() => {
      // The end, after which comes a last look.
    });
  }
}
