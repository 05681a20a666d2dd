/** `nixdeploy activate`: starts a rollout, follows it, and ends with the truth about it. */
import { ROLLOUT_DESCRIPTION_LENGTH_MAX, type RolloutDto } from "../api.ts";
import { type FollowResult, followDeployments } from "../client/follow.ts";
import { hintToFollow, toFollowFailure } from "../client/follow-failure.ts";
import type { FollowNote } from "../client/follow-state.ts";
import { formatDeploymentLine, formatLogLine, formatProgress, summarize } from "../client/follow-text.ts";
import { readOrigin } from "../client/origin.ts";
import { planRolloutRequest } from "../client/rollout-request.ts";
import { selectAgents } from "../client/spec.ts";
import { readSpec } from "../client/spec-source.ts";
import { CONFIRM_WINDOW_DEFAULT_MS } from "../deployment.ts";
import { parseCacheName, parseWorkspaceName } from "../names.ts";
import { defineNixdeployCommand } from "./args.ts";
import type { CommandContext } from "./context.ts";
import { parseDescription } from "./description.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { formatTable, printResult } from "./output.ts";
import { POLICY_ARGS, readPolicy } from "./policy-args.ts";
import { createProgressLine, type ProgressLine } from "./progress-line.ts";

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
    { comment: "Start only", command: "nixdeploy activate --async ./result" },
  ],
  args: {
    agent: { type: "string", repeatable: true, valueHint: "NAME", description: "Only this agent of the spec" },
    async: { type: "boolean", description: "Return as soon as the rollout is recorded" },
    timeoutMs: {
      type: "duration",
      flag: "timeout",
      default: "30m",
      description: "How long to follow; deployments go on after that",
    },
    ...POLICY_ARGS,
    requireOnline: { type: "boolean", description: "Refuse the whole rollout if an agent is offline" },
    description: {
      type: "string",
      description: "What this rollout is, for people",
      parse: (text) => parseDescription(text, { lengthMax: ROLLOUT_DESCRIPTION_LENGTH_MAX }),
    },
    workspace: {
      type: "string",
      valueHint: "NAME",
      parse: parseWorkspaceName,
      description: "Where the agents are (default: the token's)",
    },
  },
  positionals: {
    spec: { label: "SPEC|NAME=PATH", description: "What to deploy", required: true, repeatable: true },
  },
  async run({ args, context }) {
    const { signal } = context;
    const policy = readPolicy(args);
    await using coordinator = await openCoordinator(context, "activate");
    // A workspace's cache has its name.
    const cache = coordinator.cacheReader(parseCacheName(args.workspace ?? "default"));
    const { spec, warnings } = await readSpec({ words: args.spec, cwd: process.cwd(), cache, signal });
    for (const warning of warnings) context.log.warn(warning);
    const { mode, workspace, description, requireOnline } = args;
    const request = planRolloutRequest({
      spec: selectAgents(spec, args.agent),
      mode,
      policy,
      workspace,
      description,
      requireOnline,
      origin: readOrigin(context.env),
    });
    const rollout = await coordinator.createRollout(request, signal);
    context.log.info(`rollout ${rollout.id}: ${rollout.url}`);
    for (const deployment of rollout.deployments) context.log.info(formatDeploymentLine(deployment));
    if (args.async) return await printAsync(context, rollout);
    const line = createProgressLine(context);
    const result = await followDeployments({
      openEvents: coordinator.followRollout(rollout.id),
      deployments: rollout.deployments,
      until: "settled",
      timeoutMs: args.timeoutMs,
      extraPatienceMs: request.policy?.confirmWindowMs ?? CONFIRM_WINDOW_DEFAULT_MS,
      clock: context.clock,
      random: context.random,
      signal,
      onNote: (note) => printNote(line, note),
      onContact: (contact) => {
        void line.clear();
        context.log.warn(describeContact(contact));
      },
    }).finally(() => line.clear());
    await printSummary(context, rollout, result);
    const failure = toFollowFailure(result, rollout.id);
    if (failure !== null) throw failure;
  },
});

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
  await printResult(context, { json: { ...rollout, deployments: result.deployments }, text });
}
