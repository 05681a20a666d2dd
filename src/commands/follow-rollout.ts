/** What the commands do with the rollout that they have started: show it while it runs, end with the truth. */
import type { RolloutPlanDto } from "../api/rollout-plans.ts";
import type { StartedRolloutDto } from "../api/rollouts.ts";
import type { CoordinatorClient } from "../client/api/coordinator.ts";
import { type FollowResult, followDeployments } from "../client/follow/follow.ts";
import { hintToFollow, toFollowFailure } from "../client/follow/follow-failure.ts";
import { formatDeploymentLine, listUnitChanges, summarize } from "../client/follow/follow-text.ts";
import { type RolloutResult, toRolloutResult } from "../client/follow/rollout-result.ts";
import { reportRollout, reportStarted } from "./ci-report.ts";
import type { CommandContext } from "./command-line/context.ts";
import { chooseView } from "./rollout-view/choose-view.ts";
import { createEndedLogs } from "./rollout-view/ended-logs.ts";
import { printEvent } from "./rollout-view/events-view.ts";
import { formatTable, printResult } from "./terminal/output.ts";

/** Deployments that are named one by one when a rollout begins. */
const NAMED_MAX = 50;

export type FollowRolloutOptions = {
  readonly coordinator: Pick<CoordinatorClient, "followRollout" | "readLog">;
  readonly rollout: StartedRolloutDto;
  /** What was said that it would change; null: nothing was. */
  readonly plan: RolloutPlanDto | null;
  readonly how: {
    /** Only say that it is recorded. */
    readonly async: boolean;
    readonly timeoutMs: number;
    readonly logs: boolean;
    readonly events: boolean;
  };
  readonly extraPatienceMs: number;
};

/** @throws NixdeployError whose kind is the exit code, unless every deployment succeeded or waits for an offline agent */
export async function followStartedRollout(context: CommandContext, options: FollowRolloutOptions): Promise<void> {
  const { rollout, how, coordinator } = options;
  if (how.events) await printEvent(context, "rollout", rollout);
  else announce(context, rollout);
  if (how.async) return await printAsync(context, options);
  const endedLogs = createEndedLogs(context, coordinator);
  const view = chooseView(context, { rollout, logs: how.logs, events: how.events, endedLogs });
  const result = await followDeployments({
    openEvents: coordinator.followRollout(rollout.id),
    deployments: rollout.deployments,
    until: "settled",
    timeoutMs: how.timeoutMs,
    extraPatienceMs: options.extraPatienceMs,
    clock: context.clock,
    random: context.random,
    signal: context.signal,
    onNote: (note) => view.note(note),
    onContact: (contact) => view.contact(contact),
  }).finally(() => view.close());
  const { isRepeat: _, ...record } = rollout;
  const end = toRolloutResult(record, { deployments: result.deployments, plan: options.plan });
  if (how.events) await printEvent(context, "result", end);
  else await printSummary(context, { end, result });
  await reportRollout(context, { result: end, logs: endedLogs.tails });
  const failure = toFollowFailure(result, rollout.id);
  if (failure !== null) throw failure;
}

function announce(context: CommandContext, rollout: StartedRolloutDto): void {
  const again = rollout.isRepeat ? "was started with this idempotency key already, nothing is started again: " : "";
  context.log.info(`rollout ${rollout.id}: ${again}${rollout.url}`);
  for (const deployment of rollout.deployments.slice(0, NAMED_MAX)) context.log.info(formatDeploymentLine(deployment));
  const rest = rollout.deployments.length - NAMED_MAX;
  if (rest > 0) context.log.info(`and ${rest} more`);
}

async function printAsync(context: CommandContext, { rollout, how }: FollowRolloutOptions): Promise<void> {
  if (!how.events) await printResult(context, { json: rollout, text: rollout.id });
  context.log.info(hintToFollow(rollout.id));
  await reportStarted(context, rollout);
}

async function printSummary(
  context: CommandContext,
  { end, result }: { readonly end: RolloutResult; readonly result: FollowResult },
): Promise<void> {
  const rows = result.deployments.map(summarize);
  // The reason may be long: nothing stands behind it.
  const text = formatTable(
    ["agent", "outcome", "duration", "url", "reason"],
    rows.map(({ agent, outcome, duration, url, reason }) => [agent, outcome, duration, url, reason]),
  );
  const changes = listUnitChanges(result.deployments).map(({ agent, would, units }) => [agent, would, units]);
  const texts = changes.length === 0 ? [text] : [text, formatTable(["agent", "would", "units"], changes)];
  await printResult(context, { json: end, text: texts.join("\n\n") });
}
