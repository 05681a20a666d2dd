/** `nixdeploy logs`: what was said during a deployment, line by line. */
import { SELECTOR_HINT } from "../agent-selector.ts";
import type { DeploymentDto, LogLine } from "../api/deployments.ts";
import type { CoordinatorClient } from "../client/api/coordinator.ts";
import { followDeployments } from "../client/follow/follow.ts";
import { toFollowFailure } from "../client/follow/follow-failure.ts";
import { formatDeploymentLine, formatLogLine } from "../client/follow/follow-text.ts";
import { findLogTarget, type LogTarget } from "../client/follow/log-target.ts";
import { describeStart } from "../client/origin.ts";
import { isTerminal } from "../deployment.ts";
import { NixdeployError } from "../errors.ts";
import { cleanLine } from "../printable.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { sayContact } from "./terminal/contact.ts";
import { printJsonLine } from "./terminal/output.ts";
import { workspaceArg } from "./workspace-arg.ts";

export const command = defineNixdeployCommand({
  name: "logs",
  summary: "Show the log of a deployment, a rollout or an agent's latest deployment",
  details: "With --json one object a line. With --follow until the end; how it ended is also the exit code.",
  examples: [
    { comment: "The latest on one device", command: "nixdeploy logs nuc" },
    { comment: "As it happens", command: "nixdeploy logs nuc --follow" },
  ],
  args: {
    follow: { type: "boolean", description: "Go on until the deployment is over" },
    workspace: workspaceArg("Where the agents are (default: wherever the token may)"),
  },
  positionals: {
    what: { label: "ID|AGENT", description: `Deployment, rollout, or agents: ${SELECTOR_HINT}`, required: true },
  },
  async run({ args, context }) {
    await using coordinator = await openCoordinator(context, "activate");
    const target = await findLogTarget(coordinator, { text: args.what, workspace: args.workspace }, context.signal);
    const print = createPrinter(context, target);
    await sayOrigin(context, { coordinator, target });
    if (args.follow) return await follow(context, { coordinator, target, print });
    for (const deployment of target.deployments) await printLog(context, { coordinator, deployment, print });
  },
});

/** Who started it and why, for people; of several rollouts nothing. */
async function sayOrigin(
  context: CommandContext,
  { coordinator, target }: { readonly coordinator: CoordinatorClient; readonly target: LogTarget },
): Promise<void> {
  const [id, ...others] = new Set(target.deployments.map(({ rollout }) => rollout));
  if (id === undefined || others.length > 0 || context.json) return;
  const line = describeStart(await coordinator.loadRollout(id, context.signal));
  if (line !== "") context.log.info(line);
}

type Print = (agent: string, line: LogLine) => Promise<void>;

/** Lines of several agents say whose they are. */
function createPrinter(context: CommandContext, { deployments }: LogTarget): Print {
  const isOne = deployments.length === 1;
  return async (agent, line) => {
    if (context.json) return await printJsonLine(context, { agent, ...line });
    await context.stdout.write(`${isOne ? cleanLine(line.text) : formatLogLine(agent, line)}\n`);
  };
}

type Source = { readonly coordinator: CoordinatorClient; readonly print: Print };

async function printLog(
  context: CommandContext,
  { coordinator, deployment, print }: Source & { readonly deployment: DeploymentDto },
): Promise<void> {
  for (let after: number | null = 0; after !== null; ) {
    const page = await coordinator.readLog({ id: deployment.id, after }, context.signal);
    for (const line of page.lines) await print(deployment.agent, line);
    after = page.next;
  }
  if (deployment.logExpired) context.log.warn(`the log of deployment ${deployment.id} is kept no longer`);
  await printState(context, deployment);
}

/** The last line of a log, for people. */
async function printState(context: CommandContext, deployment: DeploymentDto): Promise<void> {
  if (!context.json) await context.stdout.write(`${formatDeploymentLine(deployment)}\n`);
}

async function follow(context: CommandContext, source: Source & { readonly target: LogTarget }): Promise<void> {
  const { coordinator, target, print } = source;
  const [first] = target.deployments;
  if (first === undefined) throw new NixdeployError("not-found", "cannot follow the rollout: it has no deployments");
  if (target.rolloutId === null && target.deployments.length > 1) {
    throw new NixdeployError("usage", "cannot follow several agents at once: name one, or their rollout", {
      hint: `For example: nixdeploy logs ${first.rollout} --follow`,
    });
  }
  const rolloutId = target.rolloutId ?? first.rollout;
  const result = await followDeployments({
    openEvents:
      target.rolloutId === null ? coordinator.followDeployment(first.id) : coordinator.followRollout(target.rolloutId),
    deployments: target.deployments,
    until: "final",
    timeoutMs: null,
    clock: context.clock,
    random: context.random,
    signal: context.signal,
    onNote: async (note) => {
      if (note.kind === "log") await print(note.agent, note.line);
      if (note.kind === "state" && !isTerminal(note.deployment.state)) {
        context.log.info(formatDeploymentLine(note.deployment));
      }
    },
    onContact: (contact) => sayContact(context, contact),
  });
  for (const deployment of result.deployments) await printState(context, deployment);
  if (result.end.kind === "over" && result.isLogCut) throw describeCutLog(context, rolloutId);
  const failure = toFollowFailure(result, rolloutId);
  if (failure !== null) throw failure;
}

/** It is over, and that is not what was asked for. */
function describeCutLog({ signal }: CommandContext, rolloutId: string): NixdeployError {
  const [kind, why] = signal.aborted
    ? (["interrupted", "stopped"] as const)
    : (["unreachable", "the coordinator was lost"] as const);
  return new NixdeployError(kind, `cannot show the log to its end: ${why}`, {
    hint: `All of it: nixdeploy logs ${rolloutId}`,
  });
}
