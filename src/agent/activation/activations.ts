/**
 * The agent's side of an activation: puts it on record, hands it to a supervisor, and watches. Whatever happens to the
 * agent meanwhile, the supervisor goes on; whatever happens to the supervisor, another one is started from the record.
 */
import { CONFIRM_WINDOW_DEFAULT_MS } from "../../deployment.ts";
import { describeError, NixdeployError } from "../../errors.ts";
import type { HealthCheck } from "../../health-check.ts";
import type { Logger } from "../../log.ts";
import type { DeploymentId } from "../../names.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Offer } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import type { AgentConfig } from "../agent.ts";
import { readOfferedChecks } from "../health/offered-checks.ts";
import { hasJournal, readOutcome } from "../journal/deployment-folder.ts";
import type { Journal, OutcomeEntry } from "../journal/journal.ts";
import type { Proof } from "../link/login.ts";
import type { BootClock, BootTime } from "../machine/boot-clock.ts";
import { detectSystemType, isSystem, type SystemType } from "../machine/detect.ts";
import { completeHomeEnvironment } from "../machine/home.ts";
import type { RunningSpecialisation } from "../machine/specialisation.ts";
import { endUnbegun, takeFreeTurn, takeTurn, tryTurn } from "../turn.ts";
import { chooseProver, findMissingUnit } from "./agent-units.ts";
import { isDue, readBootTrial } from "./boot/boot-trial.ts";
import { findRefusal } from "./plan.ts";
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

export type BeginRequest = {
  readonly journal: Journal;
  /** What the profile named before. */
  readonly previousProfile: StorePath | null;
  readonly fetchedBytes: number | null;
  /** `none`: whoever started it sits at the machine, and the coordinator may be away. Default: a login. */
  readonly proof?: "login" | "none";
};

export type ActivationsDeps = {
  readonly config: Pick<AgentConfig, "name" | "coordinatorUrl" | "profilePath" | "stateDirectory">;
  /** For the programs; holds no secret. */
  readonly environment: Readonly<Record<string, string>>;
  /** Starts a supervisor that outlives us. @throws NixdeployError("host") when it cannot be started */
  readonly launch: () => Promise<void>;
  /** The unit to be looked for in a new version of a type; null where no service manager runs the agent. */
  readonly agentUnit: (type: SystemType) => Promise<string | null>;
  readonly hasUnit: (system: StorePath, unit: string) => Promise<boolean>;
  readonly readCurrentSystem: () => Promise<StorePath | null>;
  /** The Home Manager generation that is live in our home. */
  readonly readCurrentHome: () => Promise<StorePath | null>;
  readonly isRoot: boolean;
  readonly readNames: (path: StorePath) => Promise<ReadonlySet<string>>;
  readonly readFailedUnits: () => Promise<readonly string[] | null>;
  /** This machine's, such as `x86_64-linux`. */
  readonly platform: string;
  /** The one that a system says it is for; null when it does not say. */
  readonly readPlatform: (system: StorePath) => Promise<string | null>;
  /** Of which system the running one is a specialisation; null when it is none. */
  readonly findSpecialisation: (current: StorePath) => Promise<RunningSpecialisation | null>;
  readonly resolveSpecialisation: (system: StorePath, name: string) => Promise<StorePath | null>;
  /** Of the device's own configuration. @throws NixdeployError */
  readonly readOwnHealthChecks: () => Promise<readonly HealthCheck[]>;
  readonly bootClock: BootClock;
  readonly clock: Clock;
  readonly logger: Logger;
};

const ACTIVATION_TIMEOUT_MS = 30 * 60_000;
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
    async begin(request) {
      const prepared = await prepare(request, deps);
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

/** @returns the record to write, or why it may not be activated */
async function prepare(request: BeginRequest, deps: ActivationsDeps): Promise<ActivationRecord | string> {
  const { config } = deps;
  const { offer } = request.journal;
  const { storePath, mode, policy } = offer;
  const type = detectSystemType(await deps.readNames(storePath));
  const currentSystem = await deps.readCurrentSystem();
  const running = type === "nixos" && currentSystem !== null ? await deps.findSpecialisation(currentSystem) : null;
  const variant = running === null ? null : await deps.resolveSpecialisation(storePath, running.name);
  const refusal = findRefusal({
    ...{ type, currentSystem, mode, profilePath: config.profilePath },
    ...{ machinePlatform: deps.platform, isRoot: deps.isRoot },
    reboot: policy?.reboot === true,
    previousType: await readType(request.previousProfile, deps),
    platform: isSystem(type) ? await deps.readPlatform(storePath) : null,
    specialisation: running === null ? null : { name: running.name, isInNew: variant !== null },
  });
  if (refusal !== null) return `Cannot activate ${storePath}: ${refusal}.`;
  // What is only for the next boot makes no variant live.
  const specialisation =
    running === null || variant === null || mode === "boot" || policy?.reboot === true
      ? null
      : { name: running.name, path: variant };
  const unit = await deps.agentUnit(type);
  const live = await readLive(type, request, deps);
  const next = { type, storePath, specialisation, live: live ?? request.previousProfile };
  const missing = unit === null ? null : await findMissingUnit({ ...next, unit }, request, deps);
  const allowAgentRemoval = offer.policy?.allowAgentRemoval === true;
  if (missing !== null && !allowAgentRemoval) {
    return `Cannot activate ${storePath}: ${missing.why} (--allow-agent-removal takes it all the same).`;
  }
  const removedAgentUnit = missing?.isAgent === true ? unit : null;
  const failedUnits = await readFailedUnits(deps);
  const healthChecks = [...readOfferedChecks(offer), ...(await deps.readOwnHealthChecks())];
  const unanswerable = failedUnits === null ? healthChecks.find(({ kind }) => kind === "units") : undefined;
  if (unanswerable !== undefined) {
    return `Cannot activate ${storePath}: the health check ${unanswerable.name} asks for units, and systemd does not run here.`;
  }
  // What waits was decided on before (`settleTrial`), so it waits for the next boot.
  const waiting = type === "nixos" ? await readBootTrial(config.stateDirectory) : null;
  return {
    version: 1,
    deploymentId: offer.deploymentId,
    agentName: config.name,
    coordinatorUrl: config.coordinatorUrl,
    profilePath: config.profilePath,
    ...{ storePath, type, mode },
    rollbackScript: offer.rollbackScript,
    previous: {
      profile: request.previousProfile,
      current: live,
      failedUnits,
    },
    healthChecks,
    policy: {
      ...policy,
      onUnitFailure: policy?.onUnitFailure ?? "rollback",
      confirmWindowMs: policy?.confirmWindowMs ?? CONFIRM_WINDOW_DEFAULT_MS,
      activationTimeoutMs: policy?.activationTimeoutMs ?? ACTIVATION_TIMEOUT_MS,
    },
    ...(removedAgentUnit === null ? {} : { removedAgentUnit }),
    prover: await chooseProver(request, removedAgentUnit === null ? unit : null, deps),
    environment: type === "home-manager" ? completeHomeEnvironment(deps.environment) : { ...deps.environment },
    fetchedBytes: request.fetchedBytes,
    stage: "checking",
    tries: 0,
    bootId: (await deps.bootClock.read()).bootId,
    deadlineUptimeMs: null,
    commitBegun: false,
    unitsFailed: false,
    ...{ note: null, reason: null, cause: null, outcome: null, fault: null, exitCode: null },
    ...(specialisation === null ? {} : { specialisation }),
    ...(waiting === null ? {} : { replacedTrial: waiting }),
  };
}

/** What the undo makes live again. */
async function readLive(type: SystemType, { previousProfile }: BeginRequest, deps: ActivationsDeps) {
  switch (type) {
    case "nixos":
    case "darwin":
      return await deps.readCurrentSystem();
    case "home-manager":
      return (await deps.readCurrentHome()) ?? previousProfile;
    case "plain":
      return null;
    default:
      return type satisfies never;
  }
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

async function readFailedUnits(deps: ActivationsDeps): Promise<string[] | null> {
  const units = await deps.readFailedUnits();
  return units === null ? null : [...units];
}

async function readType(path: StorePath | null, { readNames }: ActivationsDeps) {
  if (path === null) return null;
  const names = await readNames(path);
  // A path that is gone says nothing about the type.
  return names.size === 0 ? null : detectSystemType(names);
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
