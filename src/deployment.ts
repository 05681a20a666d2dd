/**
 * The words of a deployment that coordinator, agent and command line share. Which change of state is allowed when
 * is the coordinator's business (`server/deployments/lifecycle.ts`).
 */

export const DEPLOYMENT_STATES = [
  "queued",
  "offered",
  "fetching",
  "activating",
  "rebooting",
  "confirming",
  "rolling-back",
  "succeeded",
  "failed",
  "rolled-back",
  "degraded",
  "superseded",
  "cancelled",
  "expired",
] as const;
export type DeploymentState = (typeof DEPLOYMENT_STATES)[number];

/** What an agent says it is doing. */
export const PHASES = ["fetching", "activating", "rebooting", "confirming", "rolling-back"] as const;
export type Phase = (typeof PHASES)[number];

/** How a deployment can end on the agent's word. */
export const OUTCOMES = ["succeeded", "failed", "rolled-back", "degraded", "cancelled"] as const;
export type Outcome = (typeof OUTCOMES)[number];

/**
 * What was wrong where a deployment was undone, as far as its agent can tell. `version`: what was deployed. `contact`:
 * nothing but the confirmation was missing, and the old version does not reach the coordinator either.
 */
export const FAULTS = ["version", "contact"] as const;
export type Fault = (typeof FAULTS)[number];

export const MODES = ["switch", "boot", "test", "dry-activate"] as const;
export type Mode = (typeof MODES)[number];

/** What to do when a system changes what must not change while it runs (NixOS' switch inhibitors). */
export const INHIBITOR_POLICIES = ["refuse", "reboot"] as const;
export type InhibitorPolicy = (typeof INHIBITOR_POLICIES)[number];

const TERMINAL: ReadonlySet<DeploymentState> = new Set<DeploymentState>([
  "succeeded",
  "failed",
  "rolled-back",
  "degraded",
  "superseded",
  "cancelled",
  "expired",
]);

/** Whether nothing can happen to a deployment in this state any more. */
export function isTerminal(state: DeploymentState): boolean {
  return TERMINAL.has(state);
}

/** How long a new version may take to prove itself where nothing else is said. */
export const CONFIRM_WINDOW_DEFAULT_MS = 60_000;

/** How long an activation script may run where nothing else is said. */
export const ACTIVATION_TIMEOUT_DEFAULT_MS = 30 * 60_000;

/** How an activation is judged. What is not said is the device's default: roll back, 60 s, 30 min. */
export type ActivationPolicy = {
  /** Units of the new version that fail: go back, or stay on it and call it degraded. */
  readonly onUnitFailure?: "rollback" | "keep" | undefined;
  /** How long the new version may take to prove itself. */
  readonly confirmWindowMs?: number | undefined;
  /** How long its activation script may run. */
  readonly activationTimeoutMs?: number | undefined;
  /** It takes effect by a reboot, which is part of the activation. Modes `switch` and `boot` of NixOS alone. */
  readonly reboot?: boolean | undefined;
  /** What must not change while the system runs: refuse it, or reboot into it. */
  readonly inhibitors?: InhibitorPolicy | undefined;
  /** Reboot even where the boot loader cannot fall back by itself. */
  readonly allowUnprovenBoot?: boolean | undefined;
  /** A NixOS system may lack the agent's unit, or the one that goes back after a reboot. */
  readonly allowAgentRemoval?: boolean | undefined;
};

/** Milliseconds spent in each phase, from the JSON that is kept of it; phases this version does not know are left out. */
export function parsePhaseDurations(json: string): Partial<Record<Phase, number>> {
  const value: unknown = JSON.parse(json);
  const durations: Partial<Record<Phase, number>> = {};
  if (typeof value !== "object" || value === null) return durations;
  for (const [key, duration] of Object.entries(value)) {
    const phase = PHASES.find((candidate) => candidate === key);
    if (phase !== undefined && typeof duration === "number") durations[phase] = duration;
  }
  return durations;
}
