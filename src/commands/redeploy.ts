/** `nixdeploy redeploy`: what an older rollout started, once more, followed like that of `activate`. */
import { readOrigin } from "../client/origin.ts";
import { parseAgentName } from "../names.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { checkOutput, START_ARGS, startRollout } from "./start-rollout.ts";
import { readTargets, TARGET_ARGS } from "./target-args.ts";

export const command = defineNixdeployCommand({
  name: "redeploy",
  summary: "Deploy an older rollout once more",
  details:
    "The same paths for the same agents, in the same mode and under the same policy, whatever became of it and whatever " +
    "came after it. A device that holds such a version back because it failed there before tries it all the same. Ends as " +
    "`activate` does.",
  examples: [
    { comment: "All of it", command: "nixdeploy redeploy ROLLOUT" },
    { comment: "For one of its agents", command: "nixdeploy redeploy ROLLOUT --agent nuc" },
  ],
  args: {
    ...START_ARGS,
    ...TARGET_ARGS,
    agent: {
      type: "string",
      repeatable: true,
      valueHint: "NAME",
      parse: parseAgentName,
      description: "Only this agent of them",
    },
  },
  positionals: {
    what: { label: "ID", description: "Rollout or deployment", required: true, repeatable: true },
  },
  async run({ args, context }) {
    checkOutput(context, args);
    const { signal } = context;
    await using coordinator = await openCoordinator(context, "activate");
    const named = {
      ...readTargets(args),
      ...(args.agent.length === 0 ? {} : { agents: [...args.agent] }),
    };
    const request = { ...named, origin: readOrigin(context.env) };
    await startRollout(context, {
      ...{ coordinator, args },
      prepare: async () => ({
        plan: () => coordinator.planRedeployment(named, signal),
        start: (idempotencyKey) => coordinator.redeploy({ request, idempotencyKey, signal }),
        isChosenThere: true,
      }),
    });
  },
});
