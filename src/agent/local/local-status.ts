/** What `nixdeploy local status` shows: what the machine runs, and how far an activation on it is. Changes nothing. */
import { join } from "node:path";
import type { Mode, Outcome } from "../../deployment.ts";
import type { DeploymentId } from "../../names.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { readRecord, type Stage } from "../activation/record.ts";
import { listDeployments, readOutcome } from "../journal/deployment-folder.ts";
import { isLocked } from "../machine/flock.ts";
import { createMachine } from "../machine/machine.ts";
import { type Generation, listGenerations } from "../machine/profile-link.ts";
import { cleanEnvironment } from "../machine/program-environment.ts";
import type { LocalTarget } from "./local-target.ts";

export type LocalStatus = {
  readonly agent: string | null;
  readonly agentRuns: boolean;
  readonly stateDirectory: string;
  readonly profile: string;
  readonly profilePath: StorePath | null;
  readonly generation: number | null;
  readonly currentPath: StorePath | null;
  readonly bootedPath: StorePath | null;
  /** Oldest first. */
  readonly generations: readonly Generation[];
  /** On record now; null when there is none. */
  readonly activation: {
    readonly deployment: DeploymentId;
    readonly storePath: StorePath;
    readonly mode: Mode;
    readonly stage: Stage;
    readonly startedOnDevice: boolean;
    /** Somebody carries it out at this moment. */
    readonly isSupervised: boolean;
  } | null;
  /** The latest deployment that the coordinator has not taken yet, if it is over. */
  readonly lastOutcome: {
    readonly deployment: DeploymentId;
    readonly storePath: StorePath;
    readonly outcome: Outcome;
    readonly reason: string;
    readonly at: string;
  } | null;
};

export async function readLocalStatus(
  target: LocalTarget,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<LocalStatus> {
  const { stateDirectory, profilePath } = target;
  const record = await readRecord(stateDirectory);
  const machine = createMachine({
    ...{ profilePath, environment: cleanEnvironment(environment) },
    readType: async () => record?.type ?? null,
    readKept: async () => [],
  });
  const state = await machine.readState(null);
  const deployments = await listDeployments(stateDirectory);
  const recorded = deployments.find(({ deploymentId }) => deploymentId === record?.deploymentId);
  return {
    agent: target.hasAgent ? target.name : null,
    agentRuns: isLocked(join(stateDirectory, "lock")),
    stateDirectory,
    profile: profilePath,
    profilePath: state.profilePath,
    generation: state.generation,
    currentPath: state.currentPath,
    bootedPath: state.bootedPath,
    generations: await listGenerations(profilePath),
    activation:
      record === null
        ? null
        : {
            deployment: record.deploymentId,
            storePath: record.storePath,
            mode: record.mode,
            stage: record.stage,
            startedOnDevice: recorded?.startedHere !== undefined,
            isSupervised: isLocked(join(stateDirectory, "activation.lock")),
          },
    lastOutcome: await readLastOutcome(stateDirectory, deployments),
  };
}

async function readLastOutcome(
  stateDirectory: string,
  deployments: Awaited<ReturnType<typeof listDeployments>>,
): Promise<LocalStatus["lastOutcome"]> {
  for (const { deploymentId, storePath } of deployments.toReversed()) {
    const end = await readOutcome(stateDirectory, deploymentId);
    if (end === null) continue;
    const { outcome, reason, atMs } = end;
    return { deployment: deploymentId, storePath, outcome, reason, at: new Date(atMs).toISOString() };
  }
  return null;
}
