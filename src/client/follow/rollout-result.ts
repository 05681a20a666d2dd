/**
 * What came of a rollout, as data: the one source of the summary table, of `--json`, and of what CI is told. Pure.
 *
 * | outcome of a deployment | means                                                           |
 * | ----------------------- | --------------------------------------------------------------- |
 * | succeeded … expired     | it ended so (`deployment.ts`)                                   |
 * | queued                  | its agent is offline, and takes it when it returns              |
 * | running                 | it has not ended: the time was up, or whoever followed has left |
 *
 * Of the rollout: `failed` when any ended otherwise than well, else `running` when any runs, else `queued` when any waits for
 * its agent, else `succeeded`.
 */
import type { DeploymentDto } from "../../api/deployments.ts";
import type { RolloutPlanDto } from "../../api/rollout-plans.ts";
import type { RolloutDto } from "../../api/rollouts.ts";
import type { DeploymentState } from "../../deployment.ts";
import { standingOf } from "./follow-state.ts";

export type RolloutOutcome = "succeeded" | "queued" | "running" | "failed";

export type DeploymentResult = DeploymentDto & {
  readonly outcome: DeploymentState | "running";
  /** From its beginning on the device, or, where it never began, from its creation; null while it has not ended. */
  readonly durationMs: number | null;
};

/** What `--json` prints: a contract with scripts. */
export type RolloutResult = Omit<RolloutDto, "deployments"> & {
  readonly outcome: RolloutOutcome;
  readonly deployments: readonly DeploymentResult[];
  /** What it was going to change; null where nobody asked, or the coordinator could not tell. */
  readonly plan: RolloutPlanDto | null;
};

export function toRolloutResult(
  rollout: RolloutDto,
  end: { readonly deployments: readonly DeploymentDto[]; readonly plan: RolloutPlanDto | null },
): RolloutResult {
  const deployments = end.deployments.map((deployment) => ({
    ...deployment,
    outcome: outcomeOf(deployment),
    durationMs: durationOf(deployment),
  }));
  const standings = new Set(end.deployments.map(({ state, contact }) => standingOf(state, contact)));
  const outcome = standings.has("bad")
    ? "failed"
    : standings.has("running")
      ? "running"
      : standings.has("parked")
        ? "queued"
        : "succeeded";
  return { ...rollout, outcome, deployments, plan: end.plan };
}

function outcomeOf({ state, contact }: DeploymentDto): DeploymentResult["outcome"] {
  const standing = standingOf(state, contact);
  if (standing === "parked") return "queued";
  return standing === "running" ? "running" : state;
}

function durationOf({ startedAt, createdAt, finishedAt }: DeploymentDto): number | null {
  return finishedAt === null ? null : Math.max(0, Date.parse(finishedAt) - Date.parse(startedAt ?? createdAt));
}
