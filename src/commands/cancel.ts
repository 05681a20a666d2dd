/** `nixdeploy cancel`: what waits is gone at once, what runs is asked to stop or to go back. Waits for nobody. */
import { describeCancelled } from "../client/follow-text.ts";
import { parseWorkspaceName } from "../names.ts";
import { defineNixdeployCommand } from "./args.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { printResult } from "./output.ts";

export const command = defineNixdeployCommand({
  name: "cancel",
  summary: "Cancel deployments that wait or run",
  details:
    "What waits is gone at once. What runs is asked to stop; once its activation has begun, it is asked to go back. " +
    "`nixdeploy logs ID --follow` shows how it ends. What the coordinator would try again by itself is not.",
  examples: [{ comment: "Whatever one device has to do", command: "nixdeploy cancel nuc" }],
  args: {
    workspace: {
      type: "string",
      valueHint: "NAME",
      parse: parseWorkspaceName,
      description: "Where the agents are (default: wherever the token may)",
    },
  },
  positionals: {
    what: { label: "ID|AGENT", description: "Rollout, deployment or agent", required: true, repeatable: true },
  },
  async run({ args, context }) {
    await using coordinator = await openCoordinator(context, "activate");
    const { workspace } = args;
    const request = { of: [...args.what], ...(workspace === undefined ? {} : { workspace }) };
    const deployments = await coordinator.cancel(request, context.signal);
    const text = deployments.map(describeCancelled).join("\n");
    await printResult(context, { json: { deployments }, text });
  },
});
