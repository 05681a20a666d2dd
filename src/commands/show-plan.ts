/** What `activate` says before it starts anything: what would change on each agent. */
import type { RolloutPlanDto } from "../api/rollout-plans.ts";
import type { CreateRollout } from "../api/rollouts.ts";
import type { CoordinatorClient } from "../client/api/coordinator.ts";
import { BRIEF, formatPlan, WHOLE } from "../client/plan-text.ts";
import { NixdeployError } from "../errors.ts";
import type { CommandContext } from "./command-line/context.ts";
import { printEvent } from "./rollout-view/events-view.ts";
import { printResult } from "./terminal/output.ts";

export type ShowPlanOptions = {
  readonly coordinator: Pick<CoordinatorClient, "planRollout">;
  readonly request: CreateRollout;
  /** It is all that was asked for: the result of the command. */
  readonly dryRun: boolean;
  readonly events: boolean;
};

/**
 * @returns null when the coordinator is of a version that cannot tell
 * @throws NixdeployError as the rollout would be refused
 */
export async function showPlan(context: CommandContext, options: ShowPlanOptions): Promise<RolloutPlanDto | null> {
  const { coordinator, request, dryRun } = options;
  let plan: RolloutPlanDto;
  try {
    plan = await coordinator.planRollout(request, context.signal);
  } catch (error) {
    // An older coordinator; where it is something else that is not found, the rollout itself will say so.
    if (!dryRun && error instanceof NixdeployError && error.kind === "not-found") return null;
    throw error;
  }
  if (options.events) {
    await printEvent(context, "plan", plan);
    return plan;
  }
  if (dryRun) {
    await printResult(context, { json: plan, text: formatPlan(plan, WHOLE).join("\n") });
    context.log.info("nothing was started (--dry-run)");
    return plan;
  }
  for (const line of formatPlan(plan, BRIEF)) context.log.info(line);
  return plan;
}
