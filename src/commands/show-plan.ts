/** What the commands that start a rollout say before they do: what would change on each agent. */
import type { RolloutPlanDto } from "../api/rollout-plans.ts";
import { BRIEF, formatPlan, WHOLE } from "../client/plan-text.ts";
import { NixdeployError } from "../errors.ts";
import type { CommandContext } from "./command-line/context.ts";
import { printEvent } from "./rollout-view/events-view.ts";
import { formatTable, printResult } from "./terminal/output.ts";

export type ShowPlanOptions = {
  readonly ask: () => Promise<RolloutPlanDto>;
  /** It is all that was asked for: the result of the command. */
  readonly dryRun: boolean;
  readonly events: boolean;
  /** The coordinator chose the paths: whoever asks does not know them. */
  readonly isChosenThere: boolean;
  /** The rollout may stand already, and what it is about would be refused by now. */
  readonly isMaybeStarted: boolean;
};

/**
 * @returns null when the coordinator is of a version that cannot tell, or, of a rollout that may stand already, does not
 * @throws NixdeployError as the rollout would be refused
 */
export async function showPlan(context: CommandContext, options: ShowPlanOptions): Promise<RolloutPlanDto | null> {
  const { dryRun, isMaybeStarted } = options;
  let plan: RolloutPlanDto;
  try {
    plan = await options.ask();
  } catch (error) {
    // The rollout itself will say so: an older coordinator takes it, and one that stands is followed.
    const passed = isMaybeStarted ? ["not-found", "refused", "conflict"] : ["not-found"];
    if (!dryRun && error instanceof NixdeployError && passed.includes(error.kind)) return null;
    throw error;
  }
  if (options.events) {
    await printEvent(context, "plan", plan);
    return plan;
  }
  if (dryRun) {
    const texts = [...(options.isChosenThere ? [formatPaths(plan)] : []), formatPlan(plan, WHOLE).join("\n")];
    await printResult(context, { json: plan, text: texts.join("\n\n") });
    context.log.info("nothing was started (--dry-run)");
    return plan;
  }
  for (const line of formatPlan(plan, BRIEF)) context.log.info(line);
  return plan;
}

function formatPaths({ agents }: RolloutPlanDto): string {
  return formatTable(
    ["agent", "runs", "would get"],
    agents.map(({ agent, from, to }) => [agent, from ?? "-", to]),
  );
}
