/** `nixdeploy cancel`: what waits is gone at once, what runs is asked to stop or to go back. Waits for nobody. */
import { describeCancelled } from "../client/follow/follow-text.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { readTargets, TARGET_ARGS, TARGET_POSITIONALS } from "./target-args.ts";
import { printResult } from "./terminal/output.ts";

export const command = defineNixdeployCommand({
  name: "cancel",
  summary: "Cancel deployments that wait or run",
  details:
    "What waits is gone at once. What runs is asked to stop; once its activation has begun, it is asked to go back. " +
    "`nixdeploy logs ID --follow` shows how it ends. What the coordinator would try again by itself is not.",
  examples: [{ comment: "Whatever one device has to do", command: "nixdeploy cancel nuc" }],
  args: {
    ...TARGET_ARGS,
  },
  positionals: TARGET_POSITIONALS,
  async run({ args, context }) {
    await using coordinator = await openCoordinator(context, "activate");
    const deployments = await coordinator.cancel(readTargets(args), context.signal);
    const text = deployments.map(describeCancelled).join("\n");
    await printResult(context, { json: { deployments }, text });
  },
});
