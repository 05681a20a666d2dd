/**
 * The agent's eye on deployments that somebody else began in its state directory, by `nixdeploy local` at the machine:
 * opens their journals, so that they are reported, and sees to it that they go on when whoever began them was killed.
 * They are not the worker's: one that still fetches must not hold them up.
 *
 * By looking, because watching a folder is nothing that every file system does: one `readdir` every few seconds.
 */
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { DeploymentId } from "../../names.ts";
import type { Clock } from "../../runtime.ts";
import type { Activations } from "../activation/activations.ts";
import type { DeploymentStore } from "../journal/deployment-store.ts";
import { tryTurn } from "../turn.ts";

export type LocalWatchDeps = {
  readonly stateDirectory: string;
  readonly store: DeploymentStore;
  readonly activations: Pick<Activations, "tend" | "pending">;
  /** Told when one of them has ended. */
  readonly onEnd: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
};

const IDLE_LOOK_MS = 5_000;
/** While one of them goes on. */
const BUSY_LOOK_MS = 500;

/** @throws the signal's reason */
export async function watchLocalDeployments(deps: LocalWatchDeps): Promise<never> {
  const { clock, signal } = deps;
  const watch: Watch = { going: new Set(), over: new Set() };
  let lastComplaint = "";
  for (;;) {
    let isBusy = false;
    try {
      isBusy = await look(deps, watch);
      lastComplaint = "";
    } catch (error) {
      signal.throwIfAborted();
      const complaint = `cannot look after what was started on this device: ${describeError(error)}`;
      if (complaint !== lastComplaint) deps.logger.warn(complaint);
      lastComplaint = complaint;
    }
    await clock.sleep(isBusy ? BUSY_LOOK_MS : IDLE_LOOK_MS, signal);
  }
}

type Watch = {
  /** Had no outcome at the last look. */
  readonly going: Set<DeploymentId>;
  /** Have ended, and still a journal. */
  readonly over: Set<DeploymentId>;
};

/** @returns whether one of them goes on */
async function look(deps: LocalWatchDeps, { going, over }: Watch): Promise<boolean> {
  const { store, stateDirectory } = deps;
  await tryTurn(stateDirectory, () => store.adopt());
  for (const journal of store.journals) {
    const { deploymentId, startedHere } = journal.offer;
    if (startedHere === undefined || over.has(deploymentId)) continue;
    going.add(deploymentId);
    try {
      await deps.activations.tend(journal, deps.signal);
    } catch (error) {
      // Told to the coordinator and forgotten meanwhile: then its file is closed.
      if (store.find(deploymentId) === journal) throw error;
    }
    if (journal.outcome === null) continue;
    over.add(deploymentId);
    deps.logger.info(`deployment ${deploymentId}, started on this device, ${journal.outcome.outcome}`);
  }
  for (const id of over) if (store.find(id) === null) over.delete(id);
  for (const id of going) {
    if (store.find(id)?.outcome === null) continue;
    // Forgets what is left of it, once its folder is quite gone.
    if ((await deps.activations.pending()) === id) continue;
    going.delete(id);
    deps.onEnd();
  }
  return going.size > 0;
}
