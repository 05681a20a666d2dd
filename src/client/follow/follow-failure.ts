/**
 * What the end of following a rollout means for the command: done, or an error whose kind is the exit code. Pure.
 *
 *     over, all good or parked                 done (0)
 *     over, or cut short with one bad already  refused (1)
 *     the time was up, or no coordinator       unreachable (75): the deployments go on
 *     interrupted                              interrupted (130): the deployments go on
 */
import type { DeploymentDto } from "../../api/deployments.ts";
import { describeError, NixdeployError } from "../../errors.ts";
import type { RolloutId } from "../../names.ts";
import { formatCount } from "../../quantity.ts";
import type { FollowResult } from "./follow.ts";
import { decideCutShort, standingOf } from "./follow-state.ts";
import { formatDeploymentLine } from "./follow-text.ts";

/** @returns null when the rollout is done */
export function toFollowFailure(
  { end, deployments }: Pick<FollowResult, "end" | "deployments">,
  rolloutId: RolloutId,
): NixdeployError | null {
  switch (end.kind) {
    case "over":
      return end.exitCode === 0 ? null : describeBad(deployments, null);
    case "timeout":
      return describeCutShort(deployments, rolloutId, { why: "the time is up", cause: undefined });
    case "unreachable": {
      const why = end.cause === null ? "the connection ends again and again" : describeError(end.cause);
      return describeCutShort(deployments, rolloutId, { why: `lost the coordinator: ${why}`, cause: end.cause });
    }
    case "interrupted":
      return new NixdeployError("interrupted", `stopped following; ${describeGoingOn(deployments)}`, {
        hint: `${hintToFollow(rolloutId)}, or cancel with: nixdeploy cancel ${rolloutId}`,
      });
    default:
      return end satisfies never;
  }
}

/** The command that takes the following up again. */
export function hintToFollow(rolloutId: RolloutId): string {
  return `Follow with: nixdeploy logs ${rolloutId} --follow`;
}

type Cut = { readonly why: string; readonly cause: unknown };

function describeCutShort(deployments: readonly DeploymentDto[], rolloutId: RolloutId, cut: Cut): NixdeployError {
  const rest = `${cut.why}; ${describeGoingOn(deployments)}`;
  if (decideCutShort(deployments) === 1)
    return describeBad(deployments, `Not all have ended: ${rest}. ${hintToFollow(rolloutId)}`);
  return new NixdeployError("unreachable", `cannot follow to the end: ${rest}`, {
    hint: hintToFollow(rolloutId),
    cause: cut.cause,
  });
}

function describeBad(deployments: readonly DeploymentDto[], hint: string | null): NixdeployError {
  const bad = deployments.filter(({ state, contact }) => standingOf(state, contact) === "bad");
  const whom = deployments.length === 1 ? `${bad[0]?.agent}` : `${bad.length} of ${deployments.length} agents`;
  return new NixdeployError("refused", `cannot deploy to ${whom}`, {
    details: bad.map(formatDeploymentLine),
    ...(hint === null ? {} : { hint }),
  });
}

function describeGoingOn(deployments: readonly DeploymentDto[]): string {
  const count = deployments.filter(({ state, contact }) => {
    const standing = standingOf(state, contact);
    return standing === "running" || standing === "parked";
  }).length;
  return `${formatCount(count, "deployment")} ${count === 1 ? "goes" : "go"} on, nothing is cancelled`;
}
