/**
 * Whether a machine has something else than the coordinator put there: a manual `nixos-rebuild`, `nix-env`, or a boot of
 * another generation. Values in, value out.
 *
 * What it should have is what the deployments left that ended live, newest first, up to the first one that is permanent:
 *
 * | ended as                                        | leaves                                                         |
 * | ----------------------------------------------- | -------------------------------------------------------------- |
 * | succeeded or degraded, `switch`                 | profile and running system: its path                           |
 * | succeeded or degraded, `boot`                   | profile: its path; running: that, or what ran before it, until the reboot |
 * | succeeded or degraded, `test`                   | profile: as it was; running: its path, or what the profile names, after a reboot |
 * | any, `dry-activate`; failed, rolled-back, cancelled, superseded, expired | what was there before                 |
 *
 * What was started on the device itself (`nixdeploy local`) is a deployment like any other once it was announced.
 * Nothing is drift while a deployment runs, or while the agent has one whose end it has not told; nor where nothing
 * permanent was ever deployed. The running system counts only for the profiles that it comes from: `system` and
 * those of `nixos-rebuild --profile-name`. One that runs a specialisation of what it should run has no drift.
 */
import type { DeploymentState, Mode } from "../../deployment.ts";
import { isSystemProfile } from "../../nix/profile.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { MachineState } from "../../protocol.ts";

export type DriftDeployment = {
  readonly state: DeploymentState;
  readonly mode: Mode;
  readonly storePath: StorePath;
  /** What the profile named before it. */
  readonly previousPath: StorePath | null;
};

export type Drift = {
  /** What the profile should name. */
  readonly expected: StorePath;
  readonly profile: StorePath | null;
  /** The running system; null where the profile is none of a system. */
  readonly current: StorePath | null;
};

/** @param deployments newest first, without those that never ran; `isRunning`: the agent has been told of another one */
export function findDrift(known: {
  readonly deployments: readonly DriftDeployment[];
  readonly isRunning: boolean;
  readonly profile: string;
  readonly state: MachineState;
}): Drift | null {
  const { state } = known;
  if (known.isRunning || state.inFlight !== null) return null;
  const expectation = expectationOf(known.deployments);
  if (expectation === null) return null;
  const isSystem = isSystemProfile(known.profile);
  const running = [state.currentPath, state.currentBasePath ?? null];
  const isRight =
    state.profilePath === expectation.profile &&
    (!isSystem || running.some((path) => path !== null && expectation.running.includes(path)));
  if (isRight) return null;
  return {
    expected: expectation.profile,
    profile: state.profilePath,
    current: isSystem ? state.currentPath : null,
  };
}

type Expectation = { readonly profile: StorePath; readonly running: readonly StorePath[] };

function expectationOf(deployments: readonly DriftDeployment[]): Expectation | null {
  const live = deployments.filter(isLive);
  const permanent = live.findIndex(({ mode }) => mode === "switch" || mode === "boot");
  const latest = live[permanent];
  if (latest === undefined) return null;
  // Only the newest of several tests runs.
  const tested = permanent > 0 ? [live[0]?.storePath] : [];
  const running = [...tested, latest.storePath, ...runningBefore(live, permanent)];
  return { profile: latest.storePath, running: running.filter((path) => path !== null && path !== undefined) };
}

/** What may still run because the permanent one, and perhaps the one before it, waits for its reboot. */
function runningBefore(live: readonly DriftDeployment[], permanent: number): readonly (StorePath | null)[] {
  const before: (StorePath | null)[] = [];
  for (const { mode, storePath, previousPath } of live.slice(permanent)) {
    before.push(storePath);
    if (mode === "switch") break;
    if (mode === "boot") before.push(previousPath);
  }
  return before;
}

function isLive({ state, mode }: DriftDeployment): boolean {
  return (state === "succeeded" || state === "degraded") && mode !== "dry-activate";
}
