/** `nixdeploy activate`: starts a rollout, follows it, and ends with the truth about it. */
import { type AgentSelector, parseAgentSelector, SELECTOR_HINT } from "../agent-selector.ts";
import { type CreateRollout, ROLLOUT_DESCRIPTION_LENGTH_MAX } from "../api/rollouts.ts";
import type { CoordinatorClient } from "../client/api/coordinator.ts";
import { createWorkspaceCacheReader } from "../client/api/workspace-caches.ts";
import { readOrigin } from "../client/origin.ts";
import { planRolloutRequest } from "../client/spec/rollout-request.ts";
import { needsLabels, selectSpecAgents } from "../client/spec/select-spec.ts";
import { readSpec } from "../client/spec/spec-source.ts";
import type { ActivationPolicy } from "../deployment.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { parseDescription } from "./command-line/description.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { POLICY_ARGS, readPolicy } from "./policy-args.ts";
import { checkOutput, START_ARGS, startRollout } from "./start-rollout.ts";
import { workspaceArg } from "./workspace-arg.ts";

export const command = defineNixdeployCommand({
  name: "activate",
  summary: "Deploy store paths to agents and follow until the end",
  details:
    'SPEC is a file, a ./result symlink or a store path that holds {"agents": {NAME: STORE-PATH}}. ' +
    "The paths must have been pushed. Ends with 0 when every deployment succeeded or waits for an offline agent, " +
    "with 1 when one did not, with 75 when the time was up (deployments go on).",
  examples: [
    { comment: "What a spec built by `nix build` says", command: "nixdeploy activate ./result" },
    { comment: "One system for one agent", command: "nixdeploy activate nuc=./result" },
    { comment: "What would change?", command: "nixdeploy activate --dry-run ./result" },
    { comment: "Start only", command: "nixdeploy activate --async ./result" },
  ],
  args: {
    agent: {
      type: "string",
      repeatable: true,
      valueHint: "AGENT",
      parse: parseAgentSelector,
      description: `Only these agents of the spec: ${SELECTOR_HINT}`,
    },
    ...START_ARGS,
    ...POLICY_ARGS,
    requireOnline: { type: "boolean", description: "Refuse the whole rollout if an agent is offline" },
    expiresInMs: {
      type: "duration",
      flag: "expires",
      description: "How long a deployment may wait for a device that is away (default: the workspace's, else 30d)",
    },
    retry: { type: "boolean", description: "Also versions that have failed on a device before" },
    description: {
      type: "string",
      description: "What this rollout is, for people",
      parse: (text) => parseDescription(text, { lengthMax: ROLLOUT_DESCRIPTION_LENGTH_MAX }),
    },
    workspace: workspaceArg("Where the agents are (default: the token's)"),
  },
  positionals: {
    spec: { label: "SPEC|NAME=PATH", description: "What to deploy", required: true, repeatable: true },
  },
  async run({ args, context }) {
    checkOutput(context, args);
    const policy = readPolicy(args);
    const { signal } = context;
    await using coordinator = await openCoordinator(context, "activate");
    await startRollout(context, {
      ...{ coordinator, args },
      async prepare() {
        const request = await readRequest(context, { coordinator, args, policy });
        return {
          plan: () => coordinator.planRollout(request, signal),
          start: (idempotencyKey) => coordinator.createRollout({ request, idempotencyKey, signal }),
          isChosenThere: false,
          confirmWindowMs: request.policy?.confirmWindowMs,
        };
      },
    });
  },
});

type RequestArgs = Pick<
  Parameters<typeof planRolloutRequest>[0],
  "mode" | "workspace" | "description" | "requireOnline" | "retry" | "expiresInMs"
> & { readonly spec: readonly string[]; readonly agent: readonly AgentSelector[] };

/** What is asked for: the spec, read and cut down to the agents that were chosen, and how it is to be done. */
async function readRequest(
  context: CommandContext,
  from: { readonly coordinator: CoordinatorClient; readonly args: RequestArgs; readonly policy: ActivationPolicy },
): Promise<CreateRollout> {
  const { coordinator, args, policy } = from;
  const { signal } = context;
  const cache = createWorkspaceCacheReader(coordinator, args.workspace);
  const { spec, warnings } = await readSpec({ words: args.spec, cwd: process.cwd(), cache, signal });
  for (const warning of warnings) context.log.warn(warning);
  const known = needsLabels(args.agent) ? await coordinator.listAgents({ workspace: args.workspace }, signal) : [];
  const { mode, workspace, description, requireOnline, retry, expiresInMs } = args;
  return planRolloutRequest({
    spec: selectSpecAgents(spec, { selectors: args.agent, known }),
    ...{ mode, policy, workspace, description, requireOnline, retry, expiresInMs },
    origin: readOrigin(context.env),
  });
}
