/**
 * Runs deployments one at a time, as `lifecycle.ts` decides, and first of all what an earlier run left unfinished.
 * What somebody else began here (`nixdeploy local`) is not its business: see `local-watch.ts`.
 * Owns the running one: ending the worker waits for it, because an activation is never killed half-way.
 */
import { describeError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { DeploymentId } from "../names.ts";
import type { Offer } from "../protocol.ts";
import type { Clock } from "../runtime.ts";
import { formatSentence } from "../sentence.ts";
import type { DeploymentStore } from "./journal/deployment-store.ts";
import type { Journal } from "./journal/journal.ts";
import { type AgentEvent, type AgentState, step } from "./lifecycle.ts";

export type Worker = {
  /**
   * The deployment in progress, or else the latest whose outcome the coordinator has not acknowledged: one that it
   * must not take for forgotten. Null when there is none.
   */
  readonly inFlight: DeploymentId | null;
  handle(event: Exclude<AgentEvent, { kind: "finished" }>): void;
  offer(offer: Offer): void;
  /**
   * Continues what the store holds without an outcome; first of all the deployment that has an activation on record,
   * even if it has its outcome: somebody must still tidy up after it.
   */
  resume(pending: DeploymentId | null): void;
  /** Resolves when nothing is in progress any more. */
  settled(): Promise<void>;
};

export type WorkerDeps = {
  readonly store: DeploymentStore;
  /** See `deploy.ts`. */
  readonly deploy: (options: { readonly journal: Journal; readonly cancelled: AbortSignal }) => Promise<void>;
  /** Told when a deployment began or ended. */
  readonly onChange: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Aborted when the agent ends: nothing new is begun. */
  readonly signal: AbortSignal;
};

/** Between tries to write a journal. */
const RETRY_MS = 30_000;

export function createWorker(deps: WorkerDeps): Worker {
  const { store, logger, signal } = deps;
  let state: AgentState = { kind: "idle" };
  let running: { readonly id: DeploymentId; readonly cancel: AbortController; readonly done: Promise<void> } | null =
    null;

  const isOurs = ({ offer }: Journal) => offer.startedHere === undefined;
  const isUnfinished = (id: DeploymentId) => store.find(id)?.outcome === null;

  const handle = (event: AgentEvent) => {
    const next = step(state, event);
    state = next.state;
    if (next.effect === null) return;
    switch (next.effect.kind) {
      case "start":
        start(next.effect.offer);
        break;
      case "cancel":
        running?.cancel.abort(new Error("cancelled by the coordinator"));
        break;
      default:
        next.effect satisfies never;
    }
  };

  const start = (offer: Offer) => {
    if (signal.aborted) return;
    const id = offer.deploymentId;
    const cancel = new AbortController();
    const done = work(offer, cancel.signal).then(() => {
      running = null;
      deps.onChange();
      handle({ kind: "finished", deploymentId: id });
      // Only one is remembered as the next, so look for others that an earlier run left.
      if (running === null && !signal.aborted && !isUnfinished(id)) resume(null);
    });
    running = { id, cancel, done };
    deps.onChange();
  };

  /** Never rejects. Ends without an outcome only when the agent ends, or on a cancel before there was a journal. */
  const work = async (offer: Offer, cancelled: AbortSignal) => {
    for (;;) {
      try {
        const journal = store.find(offer.deploymentId) ?? (await beginOrEnd(offer, deps));
        return await deps.deploy({ journal, cancelled });
      } catch (error) {
        if (signal.aborted) return;
        logger.error(`deployment ${offer.deploymentId} cannot go on: ${describeError(error)}`);
      }
      // A cancel is news once; one that is known shortens no pause.
      const isOver = cancelled.aborted ? signal : AbortSignal.any([signal, cancelled]);
      await deps.clock.sleep(RETRY_MS, isOver).catch(() => {
        // Told by the signals below.
      });
      if (signal.aborted || (cancelled.aborted && store.find(offer.deploymentId) === null)) return;
    }
  };

  const resume = (pending: DeploymentId | null) => {
    const left = pending === null ? null : store.find(pending);
    if (left !== null && isOurs(left)) handle({ kind: "offered", offer: left.offer, isFinished: false });
    for (const journal of store.journals) {
      if (journal.outcome === null && isOurs(journal))
        handle({ kind: "offered", offer: journal.offer, isFinished: false });
    }
  };

  return {
    get inFlight() {
      return running?.id ?? store.journals.at(-1)?.offer.deploymentId ?? null;
    },
    handle,
    offer: (offer) => {
      const isFinished = (store.find(offer.deploymentId)?.outcome ?? null) !== null;
      handle({ kind: "offered", offer, isFinished });
    },
    resume,
    async settled() {
      while (running !== null) await running.done;
    },
  };
}

/** Without a journal on the disk nothing may be touched; whoever waits for the deployment hears of it now. */
async function beginOrEnd(offer: Offer, { store, logger }: WorkerDeps): Promise<Journal> {
  try {
    return await store.begin(offer);
  } catch (error) {
    const why = describeError(error);
    logger.error(`deployment ${offer.deploymentId} failed, with nothing touched: ${why}`);
    return await store.endInMemory(offer, formatSentence(`${why}; nothing was touched`));
  }
}
