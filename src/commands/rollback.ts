/** `nixdeploy rollback`: a new rollout of what ran before, followed like that of `activate`. */
import { readOrigin } from "../client/origin.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { checkOutput, START_ARGS, startRollout } from "./start-rollout.ts";
import { readTargets, TARGET_ARGS, TARGET_POSITIONALS } from "./target-args.ts";

export const command = defineNixdeployCommand({
  name: "rollback",
  summary: "Go back to what ran before",
  details:
    "Of an agent, what ran before its latest deployment; of a rollout, what ran before it wherever nothing newer came " +
    "since; of a deployment by its id, what ran before that. It is a deployment like any other: proved, or undone. " +
    "Twice is where it began. Refused as a whole where nothing is known to have run before, or where it is no longer in " +
    "the cache. Ends as `activate` does.",
  examples: [
    { comment: "What would it be?", command: "nixdeploy rollback nuc --dry-run" },
    { comment: "A rollout that succeeded and should not have", command: "nixdeploy rollback ROLLOUT" },
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
        plan: () => coordinator.planRollback(named, signal),
        start: (idempotencyKey) => coordinator.rollBack({ request, idempotencyKey, signal }),
        isChosenThere: true,
      }),
    });
  },
});
