/** `nixdeploy rollback`: a new rollout of what ran before, followed like that of `activate`. */
import { readOrigin } from "../client/origin.ts";
import { CONFIRM_WINDOW_DEFAULT_MS } from "../deployment.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { checkOutput, followStartedRollout } from "./follow-rollout.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { chooseKey, START_ARGS } from "./start-args.ts";
import { readTargets, TARGET_ARGS, TARGET_POSITIONALS } from "./target-args.ts";
import { formatTable, printResult } from "./terminal/output.ts";

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
    dryRun: { type: "boolean", description: "Say what it would go back to, and start nothing" },
  },
  positionals: TARGET_POSITIONALS,
  async run({ args, context }) {
    checkOutput(context, args);
    await using coordinator = await openCoordinator(context, "activate");
    if (args.dryRun) {
      const agents = await coordinator.planRollback(readTargets(args), context.signal);
      const rows = agents.map(({ agent, from, to }) => [agent, from, to]);
      return await printResult(context, {
        json: { agents },
        text: formatTable(["agent", "from", "back to"], rows),
      });
    }
    const origin = readOrigin(context.env);
    const rollout = await coordinator.rollBack({
      request: { ...readTargets(args), ...(origin === undefined ? {} : { origin }) },
      idempotencyKey: chooseKey(context, args.idempotencyKey),
      signal: context.signal,
    });
    await followStartedRollout(context, {
      ...{ coordinator, rollout, how: args },
      extraPatienceMs: CONFIRM_WINDOW_DEFAULT_MS,
    });
  },
});
