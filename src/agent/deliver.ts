/**
 * Brings the outcome of an activation to the coordinator when no agent is left to do it, because the new system has none
 * (`--allow-agent-removal`): logs in with the agent's key, as the agent would, sends the journals, and leaves.
 *
 * Takes the agent's own lock for each try, so that an agent that runs after all is left alone and does it itself. Gives up
 * after {@link DELIVERY_MAX_MS}; the journal then stays in the state directory, where the next agent on it finds it.
 */
import { join } from "node:path";
import { type BackoffLimits, fullJitterMs } from "../backoff.ts";
import { describeError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { DeploymentId } from "../names.ts";
import type { Clock, Random } from "../runtime.ts";
import { hasJournal } from "./journal/deployment-folder.ts";
import { type DeploymentStore, openDeploymentStore } from "./journal/deployment-store.ts";
import type { LoginResult } from "./link/login.ts";
import { runSession } from "./link/session.ts";
import { tryLockFile } from "./machine/flock.ts";

export type DeliveryOptions = {
  readonly stateDirectory: string;
  readonly deploymentId: DeploymentId;
  /** As the agent, without any proof. @throws NixdeployError · the signal's reason */
  readonly login: (signal: AbortSignal) => Promise<LoginResult>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly signal: AbortSignal;
};

export const DELIVERY_MAX_MS = 15 * 60_000;
const RETRY: BackoffLimits = { baseMs: 1_000, maxMs: 30_000 };

/** @throws NixdeployError("host") when the journals cannot be read · the signal's reason */
export async function deliver(options: DeliveryOptions): Promise<"delivered" | "an-agent-does" | "given-up"> {
  const { stateDirectory, deploymentId, clock, random, signal } = options;
  const giveUpAtMs = clock.monotonicMs() + DELIVERY_MAX_MS;
  for (let attempt = 0; clock.monotonicMs() < giveUpAtMs; attempt += 1) {
    if (!(await hasJournal(stateDirectory, deploymentId))) return "delivered";
    if (!(await tryOnce(options, giveUpAtMs - clock.monotonicMs()))) return "an-agent-does";
    if (!(await hasJournal(stateDirectory, deploymentId))) return "delivered";
    await clock.sleep(fullJitterMs(attempt, random.fraction(), RETRY), signal);
  }
  return "given-up";
}

/** @returns false when an agent holds the state directory */
async function tryOnce(options: DeliveryOptions, leftMs: number): Promise<boolean> {
  const { stateDirectory, clock, logger } = options;
  using lock = tryLockFile(join(stateDirectory, "lock"), 0o700);
  if (lock === null) return false;
  await using store = await openDeploymentStore({ stateDirectory, clock, followed: null });
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, over.signal]);
  const done = Promise.race([
    waitUntilDelivered(store, options.deploymentId, signal),
    clock.sleep(leftMs, signal),
  ]).then(
    () => over.abort(new Error("the delivery ends")),
    () => {
      // The session ended first.
    },
  );
  try {
    const result = await options.login(signal);
    if (result.kind === "refused") logger.warn(`the outcome is not delivered: ${result.refusal.message}`);
    else await runSession({ ...options, ...result, store, handlers: DEAF, signal });
  } catch (error) {
    options.signal.throwIfAborted();
    logger.warn(`the outcome is not delivered yet: ${describeError(error)}`);
  } finally {
    over.abort(new Error("the session is over"));
    await done;
  }
  return true;
}

/** What is offered goes back to the queue when we leave. */
const DEAF = { onOffer: () => {}, onCancel: () => {}, onCaches: async () => {} };

async function waitUntilDelivered(store: DeploymentStore, id: DeploymentId, signal: AbortSignal): Promise<void> {
  for (;;) {
    const { version } = store.changes;
    if (store.find(id) === null) return;
    await store.changes.waitAfter(version, signal);
  }
}
