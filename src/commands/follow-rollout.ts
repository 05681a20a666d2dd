/** What `activate` and `retry` do with the rollout that they have started: say so, follow it, end with the truth. */
import type { RolloutDto, StartedRolloutDto } from "../api/rollouts.ts";
import type { CoordinatorClient } from "../client/coordinator.ts";
import { type FollowResult, followDeployments } from "../client/follow.ts";
import { hintToFollow, toFollowFailure } from "../client/follow-failure.ts";
import type { FollowNote } from "../client/follow-state.ts";
import {
  formatDeploymentLine,
  formatLogLine,
  formatProgress,
  listUnitChanges,
  summarize,
} from "../client/follow-text.ts";
import type { ArgDeclarations } from "./args.ts";
import type { CommandContext } from "./context.ts";
import { formatTable, printResult } from "./output.ts";
import { createProgressLine, type ProgressLine } from "./progress-line.ts";

export const FOLLOW_ARGS = {
  async: { type: "boolean", description: "Return as soon as the rollout is recorded" },
  timeoutMs: {
    type: "duration",
    flag: "timeout",
    default: "30m",
    description: "How long to follow; deployments go on after that",
  },
} as const satisfies ArgDeclarations;

export type FollowRolloutOptions = {
  readonly coordinator: Pick<CoordinatorClient, "followRollout">;
  readonly rollout: StartedRolloutDto;
  /** Only say that it is recorded. */
  readonly async: boolean;
  readonly timeoutMs: number;
  readonly extraPatienceMs: number;
};

/** @throws NixdeployError whose kind is the exit code, unless every deployment succeeded or waits for an offline agent */
export async function followStartedRollout(context: CommandContext, options: FollowRolloutOptions): Promise<void> {
  const { rollout } = options;
  const again = rollout.isRepeat ? "was started with this idempotency key already, nothing is started again: " : "";
  context.log.info(`rollout ${rollout.id}: ${again}${rollout.url}`);
  for (const deployment of rollout.deployments) context.log.info(formatDeploymentLine(deployment));
  if (options.async) return await printAsync(context, rollout);
  const line = createProgressLine(context);
  const result = await followDeployments({
    openEvents: options.coordinator.followRollout(rollout.id),
    deployments: rollout.deployments,
    until: "settled",
    timeoutMs: options.timeoutMs,
    extraPatienceMs: options.extraPatienceMs,
    clock: context.clock,
    random: context.random,
    signal: context.signal,
    onNote: (note) => printNote(line, note),
    onContact: (contact) => {
      void line.clear();
      context.log.warn(describeContact(contact));
    },
  }).finally(() => line.clear());
  await printSummary(context, rollout, result);
  const failure = toFollowFailure(result, rollout.id);
  if (failure !== null) throw failure;
}

async function printAsync(context: CommandContext, rollout: RolloutDto): Promise<void> {
  await printResult(context, { json: rollout, text: rollout.id });
  context.log.info(hintToFollow(rollout.id));
}

async function printNote(line: ProgressLine, note: FollowNote): Promise<void> {
  switch (note.kind) {
    case "state":
      return await line.say(formatDeploymentLine(note.deployment));
    case "log":
      return await line.say(formatLogLine(note.agent, note.line));
    case "progress":
      return await line.update(() => formatProgress(note.progress));
    default:
      return note satisfies never;
  }
}

function describeContact(contact: "lost" | "back"): string {
  return contact === "lost"
    ? "lost the connection to the coordinator: trying again (the deployments go on)"
    : "the coordinator is there again";
}

async function printSummary(context: CommandContext, rollout: RolloutDto, result: FollowResult): Promise<void> {
  const rows = result.deployments.map(summarize);
  const header = ["agent", "outcome", "duration", "reason"];
  const text = formatTable(
    header,
    rows.map(({ agent, outcome, duration, reason }) => [agent, outcome, duration, reason]),
  );
  const changes = listUnitChanges(result.deployments).map(({ agent, would, units }) => [agent, would, units]);
  const texts = changes.length === 0 ? [text] : [text, formatTable(["agent", "would", "units"], changes)];
  await printResult(context, { json: { ...rollout, deployments: result.deployments }, text: texts.join("\n\n") });
}
