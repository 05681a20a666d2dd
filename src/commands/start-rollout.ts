/**
 * What `activate`, `retry`, `rollback` and `redeploy` have in common: they say what would change, start a rollout, once, and
 * follow it to its end.
 */
import type { RolloutPlanDto } from "../api/rollout-plans.ts";
import type { StartedRolloutDto } from "../api/rollouts.ts";
import { CONFIRM_WINDOW_DEFAULT_MS } from "../deployment.ts";
import { NixdeployError } from "../errors.ts";
import { drawId } from "../names.ts";
import { reportRefusal } from "./ci-report.ts";
import type { ArgDeclarations, ArgValues } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { type FollowRolloutOptions, followStartedRollout } from "./follow-rollout.ts";
import { showPlan } from "./show-plan.ts";

const KEY = /^[!-~]{1,255}$/;

export const START_ARGS = {
  dryRun: { type: "boolean", description: "Say what would change on each agent, and start nothing" },
  async: { type: "boolean", description: "Return as soon as the rollout is recorded" },
  timeoutMs: {
    type: "duration",
    flag: "timeout",
    default: "30m",
    description: "How long to follow; deployments go on after that",
  },
  logs: {
    type: "boolean",
    description: "Show every line of every log (what fails shows its log always; up to 10 agents off a terminal, too)",
  },
  events: { type: "boolean", description: "Everything that happens as JSON lines on standard output" },
  idempotencyKey: {
    type: "string",
    valueHint: "KEY",
    description: "Start it once: the same command with the same key follows the rollout that stands (24 hours)",
    parse: parseKey,
  },
} as const satisfies ArgDeclarations;

export type StartArgs = ArgValues<typeof START_ARGS, Readonly<Record<never, never>>>;

/** A rollout that is known well enough to be asked for. */
export type WantedRollout = {
  /** What it would change. */
  readonly plan: () => Promise<RolloutPlanDto>;
  readonly start: (idempotencyKey: string) => Promise<StartedRolloutDto>;
  /** Which path an agent gets is not on the command line. */
  readonly isChosenThere: boolean;
  /** As far as it is known before a deployment tells. Default: the usual one. */
  readonly confirmWindowMs?: number | undefined;
};

/**
 * @param options.prepare whatever may be refused before anything is started
 * @throws NixdeployError whose kind is the exit code, unless every deployment succeeded or waits for an offline agent
 */
export async function startRollout(
  context: CommandContext,
  options: {
    readonly coordinator: FollowRolloutOptions["coordinator"];
    readonly args: StartArgs;
    readonly prepare: () => Promise<WantedRollout>;
  },
): Promise<void> {
  const { coordinator, args } = options;
  const { dryRun, events, idempotencyKey } = args;
  const started = await reportRefusal(context, async () => {
    const wanted = await options.prepare();
    const isMaybeStarted = idempotencyKey !== undefined;
    const plan = await showPlan(context, { ...wanted, ask: wanted.plan, dryRun, events, isMaybeStarted });
    if (dryRun) return null;
    const rollout = await startOnce(context, () => wanted.start(chooseKey(context, idempotencyKey)));
    return { rollout, plan, extraPatienceMs: wanted.confirmWindowMs ?? CONFIRM_WINDOW_DEFAULT_MS };
  });
  if (started !== null) await followStartedRollout(context, { coordinator, how: args, ...started });
}

/** @throws NixdeployError "usage" for two forms of output at once */
export function checkOutput({ json }: Pick<CommandContext, "json">, { events }: Pick<StartArgs, "events">): void {
  if (!events || !json) return;
  throw new NixdeployError("usage", "cannot use --json and --events together: the last event is what --json prints");
}

function parseKey(text: string): string {
  if (!KEY.test(text)) throw new Error("a key has 1 to 255 visible characters, and no spaces");
  return text;
}

/**
 * The key of one invocation: a call whose answer got lost is sent again with it, while the next invocation (a job that
 * somebody starts again) is a new request, unless its user says that it is not.
 */
function chooseKey(context: Pick<CommandContext, "random">, given: string | undefined): string {
  return given ?? `once-${drawId(context.random)}`;
}

/** Whoever leaves while the coordinator is asked does not know what it has done, and is told so. */
async function startOnce(
  { signal }: Pick<CommandContext, "signal">,
  start: () => Promise<StartedRolloutDto>,
): Promise<StartedRolloutDto> {
  try {
    return await start();
  } catch (error) {
    const isAnswer = error instanceof NixdeployError && error.kind !== "unreachable" && error.kind !== "interrupted";
    if (!signal.aborted || isAnswer) throw error;
    throw new NixdeployError("interrupted", "interrupted before the coordinator had answered", {
      hint: "The rollout may have been started all the same: `nixdeploy status` shows the latest ones.",
      cause: error,
    });
  }
}
