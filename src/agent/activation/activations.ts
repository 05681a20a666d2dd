/**
 * The agent's side of an activation: puts it on record, hands it to a supervisor, and watches. Whatever happens to the
 * agent meanwhile, the supervisor goes on; whatever happens to the supervisor, another one is started from the record.
 */
import { describeError, NixdeployError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { DeploymentId } from "../../names.ts";
import type { Offer } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import { hasJournal, readOutcome } from "../journal/deployment-folder.ts";
import type { Journal, OutcomeEntry } from "../journal/journal.ts";
import type { Proof } from "../link/login.ts";
import type { BootTime } from "../machine/boot-clock.ts";
import { endUnbegun, takeFreeTurn, takeTurn, tryTurn } from "../turn.ts";
import { isDue, readBootTrial } from "./boot/boot-trial.ts";
import { type BeginRequest, chooseConfirmWindowMs, type PrepareDeps, prepareRecord } from "./prepare.ts";
import { recordProof } from "./proof.ts";
import { createQuarantine, describeQuarantine } from "./quarantine.ts";
import { type ActivationRecord, readRecord, removeRecord, requestCancel, writeRecord } from "./record.ts";
import { createSupervisorLook } from "./supervisor-look.ts";

export type Activations = {
  /**
   * The deployment that has an activation on record; null when there is none. Forgets a record of the past: one that is
   * finished, and whose outcome the coordinator has.
   */
  pending(): Promise<DeploymentId | null>;
  /**
   * Before anything is fetched. @returns why this version is not tried here, a sentence, or null. An offer that a person
   * wants all the same lifts its quarantine.
   */
  refuse(offer: Offer): Promise<string | null>;
  /**
   * Does it as soon as no other activation is on record, while nobody else may begin one. Whatever it looks at that an
   * activation changes, it must look at then. @throws the signal's reason · what `onWait` throws
   */
  inTurn<Value>(turn: Turn, work: () => Promise<Value>): Promise<Value>;
  /** How long the new version of an offer may take to prove itself here, milliseconds. */
  confirmWindowMs(offer: Offer): number;
  /**
   * Looks whether it may be activated and, if so, puts it on record: from then on `carry` must follow. For whoever has
   * the turn.
   * @returns why it may not, a sentence, or null. @throws NixdeployError("host") when it cannot be recorded
   */
  begin(request: BeginRequest): Promise<string | null>;
  /** Sees the recorded activation through. The journal is the supervisor's from here on. @throws the signal's reason */
  carry(journal: Journal, signal: AbortSignal): Promise<OutcomeEntry>;
  /**
   * A look at a deployment that somebody else began at this machine: sees to it that it goes on, or that it ends if
   * whoever began it was killed before anything was touched. Returns soon.
   */
  tend(journal: Journal, signal: AbortSignal): Promise<void>;
  /** Starts a supervisor if there is work for one and nobody does it. */
  ensureSupervised(): Promise<void>;
  /** Asks the supervisor to go back. */
  cancel(deploymentId: DeploymentId): Promise<void>;
  /**
   * Returns once no trial of a boot is to be decided any more (`boot-trial.ts`), and until then keeps a supervisor on
   * it: before that nobody knows what this machine runs. @throws the signal's reason
   */
  settleTrial(signal: AbortSignal): Promise<void>;
  /** For a login: of what it is the proof, if the agent is who proves. */
  proofToGive(): Promise<Proof | null>;
  /** For a welcome that takes it. */
  proved(deploymentId: DeploymentId): Promise<void>;
};

/** In turn. @param atMs when it ended, as far as it is known */
type Forget = (deploymentId: DeploymentId, atMs: number) => Promise<void>;

export type Turn = {
  readonly deploymentId: DeploymentId;
  readonly signal: AbortSignal;
  /** Told at each look which other deployment is in the way; throws where nobody is to wait for it. */
  readonly onWait: (other: DeploymentId) => Promise<void>;
};

export type ActivationsDeps = PrepareDeps & {
  /** Starts a supervisor that outlives us. @throws NixdeployError("host") when it cannot be started */
  readonly launch: () => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** How often it is looked whether a supervisor is alive. */
const SUPERVISOR_LOOK_MS = 2_000;

export function createActivations(deps: ActivationsDeps): Activations {
  const { stateDirectory } = deps.config;
  const started = deps.bootClock.read().catch(() => null);
  const quarantine = createQuarantine({ stateDirectory, logger: deps.logger });
  /**
   * The last look at a record that is over, in turn: what it says about its version comes first. Another activation, that
   * began since, stays.
   */
  const forget: Forget = async (deploymentId, atMs) => {
    const record = await readRecord(stateDirectory);
    if (record?.deploymentId !== deploymentId) return;
    if (record.stage === "finished") await quarantine.settle(record, atMs);
    await removeRecord(stateDirectory);
  };
  /** Whether its outcome is in its journal, or with the coordinator. */
  const isOver = async ({ deploymentId, stage }: ActivationRecord) =>
    (await readOutcome(stateDirectory, deploymentId)) !== null ||
    (stage === "finished" && !(await hasJournal(stateDirectory, deploymentId)));
  /** In turn: whose activation is not over. Forgets one that is. */
  const findInTheWay = async (self: DeploymentId) => {
    const record = await readRecord(stateDirectory);
    if (record === null || record.deploymentId === self) return null;
    if (!(await isOver(record))) return record.deploymentId;
    await forget(record.deploymentId, deps.clock.nowMs());
    return null;
  };
  return {
    async pending() {
      const record = await readRecord(stateDirectory);
      if (record?.stage === "finished" && !(await hasJournal(stateDirectory, record.deploymentId))) {
        await tryTurn(stateDirectory, () => forget(record.deploymentId, deps.clock.nowMs()));
        return null;
      }
      return record?.deploymentId ?? null;
    },
    async refuse({ storePath, mode, retry }) {
      if (retry === true) {
        await quarantine.lift(storePath);
        return null;
      }
      const entry = mode === "dry-activate" ? null : await quarantine.find(storePath);
      return entry === null ? null : describeQuarantine(entry, deps.config.name);
    },
    inTurn: (turn, work) =>
      takeFreeTurn(
        { ...turn, stateDirectory, clock: deps.clock, inTheWay: () => findInTheWay(turn.deploymentId) },
        work,
      ),
    confirmWindowMs: ({ policy }) => chooseConfirmWindowMs(policy, deps.config),
    async begin(request) {
      const prepared = await prepareRecord(request, deps);
      if (typeof prepared === "string") return prepared;
      // Whoever finds the record may write the journal.
      await request.journal.handOver();
      await writeFirst(stateDirectory, prepared);
      return null;
    },
    async carry(journal, signal) {
      const outcome = await carry(journal, signal, deps);
      const { deploymentId } = journal.offer;
      await takeTurn({ stateDirectory, clock: deps.clock, signal }, () => forget(deploymentId, outcome.atMs));
      return outcome;
    },
    async tend(journal, signal) {
      await tend(journal, { ...deps, forget });
      signal.throwIfAborted();
    },
    async ensureSupervised() {
      const record = await readRecord(stateDirectory);
      if (record !== null && !(await isOver(record))) await createSupervisorLook(deps)();
    },
    cancel: (deploymentId) => requestCancel(stateDirectory, deploymentId),
    settleTrial: (signal) => settleTrial(signal, deps),
    async proofToGive() {
      const record = (await readRecord(stateDirectory)) ?? (await readBootTrial(stateDirectory));
      if (record?.stage !== "confirming" || record.prover.kind !== "agent") return null;
      return isStartedSince(await started, record) ? { deploymentId: record.deploymentId, by: "agent" } : null;
    },
    async proved(deploymentId) {
      const { bootId } = await deps.bootClock.read();
      await recordProof(stateDirectory, { deploymentId, bootId, processId: process.pid });
    },
  };
}

async function settleTrial(signal: AbortSignal, deps: ActivationsDeps): Promise<void> {
  const { stateDirectory } = deps.config;
  const look = createSupervisorLook(deps);
  for (;;) {
    const trial = await readBootTrial(stateDirectory);
    if (trial === null || !isDue(trial, (await deps.bootClock.read()).bootId)) return;
    await look();
    await deps.clock.sleep(SUPERVISOR_LOOK_MS, signal);
  }
}

/** A record that is not surely durable does not count: nobody may go on from what is told to have failed. */
async function writeFirst(stateDirectory: string, record: ActivationRecord): Promise<void> {
  try {
    await writeRecord(stateDirectory, record);
  } catch (cause) {
    await removeRecord(stateDirectory).catch(() => {
      // The journal will hold the outcome, which stops whoever finds the record.
    });
    throw new NixdeployError("host", `cannot record the activation in ${stateDirectory}: ${describeError(cause)}`, {
      cause,
    });
  }
}

/** Whether this process began after the switch: an older one proves nothing about the new system. */
function isStartedSince(started: BootTime | null, record: ActivationRecord): boolean {
  if (started === null || started.bootId !== record.bootId || record.deadlineUptimeMs === null) return false;
  return started.uptimeMs >= record.deadlineUptimeMs - record.policy.confirmWindowMs;
}

async function carry(journal: Journal, signal: AbortSignal, deps: ActivationsDeps): Promise<OutcomeEntry> {
  if (journal.outcome !== null) return journal.outcome;
  const over = new AbortController();
  const watching = keepSupervised(AbortSignal.any([signal, over.signal]), deps).catch(() => {
    // It only ends when it is told to.
  });
  try {
    return await journal.follow(signal);
  } finally {
    over.abort(new Error("the outcome is there, or the agent ends"));
    await watching;
  }
}

/** Starts a supervisor, and another one whenever nobody holds its lock. @throws the signal's reason */
async function keepSupervised(signal: AbortSignal, deps: ActivationsDeps): Promise<never> {
  const look = createSupervisorLook(deps);
  for (;;) {
    await look();
    await deps.clock.sleep(SUPERVISOR_LOOK_MS, signal);
  }
}

async function tend(journal: Journal, deps: ActivationsDeps & { readonly forget: Forget }): Promise<void> {
  const { stateDirectory } = deps.config;
  const { deploymentId } = journal.offer;
  await journal.refresh();
  // Nothing while somebody begins or forgets one: the next look says more.
  await tryTurn(stateDirectory, async () => {
    const isOnRecord = (await readRecord(stateDirectory))?.deploymentId === deploymentId;
    // A record is forgotten after the outcome was written: looked at in this order, nothing is missed.
    await journal.refresh();
    const { outcome } = journal;
    if (outcome !== null) await deps.forget(deploymentId, outcome.atMs);
    else if (isOnRecord) await createSupervisorLook(deps)();
    else {
      await endUnbegun({ stateDirectory, deploymentId, clock: deps.clock });
      await journal.refresh();
    }
  });
}
