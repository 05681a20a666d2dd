/** `nixdeploy retry`: a new rollout of what did not succeed, followed like that of `activate`. */
import { readOrigin } from "../client/origin.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { checkOutput, START_ARGS, startRollout } from "./start-rollout.ts";
import { readTargets, TARGET_ARGS, TARGET_POSITIONALS } from "./target-args.ts";

export const command = defineNixdeployCommand({
  name: "retry",
  summary: "Try again what did not succeed",
  details:
    "Of a rollout, those of its deployments that ended failed, rolled back, degraded, cancelled or expired and have no " +
    "newer one behind them; of an agent, its latest; a deployment by its id, whatever came after it. Mode and policy are as they were. " +
    "A device that holds the version back because it failed there before tries it all the same. Ends as `activate` does.",
  examples: [
    { comment: "What failed of a rollout", command: "nixdeploy retry ROLLOUT" },
    { comment: "The latest on one device", command: "nixdeploy retry nuc" },
  ],
  args: {
    ...START_ARGS,
    ...TARGET_ARGS,
  },
  positionals: TARGET_POSITIONALS,
  async run({ args, context }) {
    checkOutput(context, args);
    const { signal } = context;
    await using coordinator = await openCoordinator(context, "activate");
    const named = readTargets(args);
    const request = { ...named, origin: readOrigin(context.env) };
    await startRollout(context, {
      ...{ coordinator, args },
      prepare: async () => ({
        plan: () => coordinator.planRetry(named, signal),
        start: (idempotencyKey) => coordinator.retry({ request, idempotencyKey, signal }),
        isChosenThere: true,
      }),
    });
  },
});
