/**
 * What is looked at before an activation may begin: why it may not, while nothing is touched, or the record of it, with
 * all that whoever finishes or undoes it must know. Reads, changes nothing.
 */
import { ACTIVATION_TIMEOUT_DEFAULT_MS, type ActivationPolicy, CONFIRM_WINDOW_DEFAULT_MS } from "../../deployment.ts";
import type { HealthCheck } from "../../health-check.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { AgentConfig } from "../agent.ts";
import { readOfferedChecks } from "../health/offered-checks.ts";
import type { Journal } from "../journal/journal.ts";
import type { BootClock } from "../machine/boot-clock.ts";
import { detectSystemType, isSystem, type SystemType } from "../machine/detect.ts";
import { completeHomeEnvironment } from "../machine/home.ts";
import type { RunningSpecialisation } from "../machine/specialisation.ts";
import { chooseProver, findMissingUnit } from "./agent-units.ts";
import { readBootTrial } from "./boot/boot-trial.ts";
import { findRefusal } from "./plan.ts";
import type { ActivationRecord } from "./record.ts";

export type BeginRequest = {
  readonly journal: Journal;
  /** What the profile named before. */
  readonly previousProfile: StorePath | null;
  readonly fetchedBytes: number | null;
  /**
   * `none`: whoever started it sits at the machine, and the coordinator may be away; `visit`: the same, and he sits
   * elsewhere, so that he must be able to come back in. Default: a login.
   */
  readonly proof?: "login" | "none" | "visit";
};

export type PrepareDeps = {
  readonly config: Pick<AgentConfig, "name" | "coordinatorUrl" | "profilePath" | "stateDirectory" | "confirmWindowMs">;
  /** For the programs; holds no secret. */
  readonly environment: Readonly<Record<string, string>>;
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
};

/** @returns the record to write, or why it may not be activated */
export async function prepareRecord(request: BeginRequest, deps: PrepareDeps): Promise<ActivationRecord | string> {
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
  const failed = await deps.readFailedUnits();
  const failedUnits = failed === null ? null : [...failed];
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
      confirmWindowMs: chooseConfirmWindowMs(policy, config),
      activationTimeoutMs: policy?.activationTimeoutMs ?? ACTIVATION_TIMEOUT_DEFAULT_MS,
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

/** What is asked for counts first, then what this device has as its own. Milliseconds */
export function chooseConfirmWindowMs(
  policy: ActivationPolicy | undefined,
  config: Pick<AgentConfig, "confirmWindowMs">,
): number {
  return policy?.confirmWindowMs ?? config.confirmWindowMs ?? CONFIRM_WINDOW_DEFAULT_MS;
}

/** What the undo makes live again. */
async function readLive(type: SystemType, { previousProfile }: BeginRequest, deps: PrepareDeps) {
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

async function readType(path: StorePath | null, { readNames }: PrepareDeps) {
  if (path === null) return null;
  const names = await readNames(path);
  // A path that is gone says nothing about the type.
  return names.size === 0 ? null : detectSystemType(names);
}
