/** `nixdeploy agents remove`, `rename` and `label`: what an operator does to agents. */
import { parseAgentSelector, SELECTOR_HINT } from "../agent-selector.ts";
import { NixdeployError } from "../errors.ts";
import { formatLabels, parseLabelChange } from "../labels.ts";
import { parseAgentName, parseTokenId } from "../names.ts";
import { formatCount } from "../quantity.ts";
import { type ArgDeclarations, defineNixdeployCommand, type PositionalDeclaration } from "./command-line/args.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { printResult } from "./terminal/output.ts";
import { workspaceArg } from "./workspace-arg.ts";

export const AGENTS_ARGS = {
  workspace: workspaceArg("Only those of this workspace"),
  dataDir: DATA_DIR_ARG,
} as const satisfies ArgDeclarations;

export const ADMITTED_BY_ARG = {
  type: "string",
  valueHint: "TOKEN-ID",
  parse: parseTokenId,
  description: "Only those that this token admitted",
} as const;

/** What selects agents on a command line; the coordinator reads it once more. */
export const SELECTORS = {
  label: "AGENT",
  description: `Agents: ${SELECTOR_HINT}`,
  repeatable: true,
  parse: (text: string) => parseAgentSelector(text).text,
} as const satisfies PositionalDeclaration;

export const remove = defineNixdeployCommand({
  name: "agents remove",
  summary: "Remove agents: their keys are refused from then on",
  details:
    "What waits for them is cancelled. What runs on one ends as degraded, and goes back by itself, since it cannot prove " +
    "itself any more. Their history can still be read (`nixdeploy logs`), their names are free. Revoke the token that " +
    "admitted them as well, if it is not to admit them again under new keys.",
  examples: [
    { comment: "One device that is gone", command: "nixdeploy agents remove nuc" },
    {
      comment: "All that a stolen token admitted",
      command: "nixdeploy agents remove --admitted-by 0123456789abcdfg",
    },
  ],
  args: { ...AGENTS_ARGS, admittedBy: ADMITTED_BY_ARG },
  positionals: { select: SELECTORS },
  async run({ args, context }) {
    const { workspace, admittedBy } = args;
    if (args.select.length === 0 && admittedBy === undefined) {
      throw new NixdeployError("usage", "cannot remove agents: AGENT or --admitted-by is missing");
    }
    await using coordinator = await openAdministration(context, args.dataDir);
    const removed = await coordinator.removeAgents(
      {
        select: [...args.select],
        ...(admittedBy === undefined ? {} : { admittedBy }),
        ...(workspace === undefined ? {} : { workspace }),
      },
      context.signal,
    );
    await printResult(context, { json: { removed }, text: removed.join("\n") });
    context.log.info(`removed ${formatCount(removed.length, "agent")}`);
  },
});

export const rename = defineNixdeployCommand({
  name: "agents rename",
  summary: "Give an agent another name; its history follows",
  details:
    "Its device keeps working with the --name that it has: the coordinator knows it by its key. Give it the new one when " +
    "it is convenient, with --state-dir if it has used the default directory, whose name is the old one.",
  args: AGENTS_ARGS,
  positionals: {
    from: { label: "OLD", description: "The agent", required: true, parse: parseAgentName },
    to: { label: "NEW", description: "Its new name", required: true, parse: parseAgentName },
  },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const { from, to, workspace } = args;
    const agent = await coordinator.renameAgent({ from, to, workspace }, context.signal);
    await printResult(context, { json: agent, text: "" });
    context.log.info(`${from} is called ${agent.name} now`);
  },
});

export const label = defineNixdeployCommand({
  name: "agents label",
  summary: "Set and take away labels of agents",
  details:
    "KEY=VALUE sets one, KEY- takes it away. A device gives labels of its own (`nixdeploy agent --label`); those set here " +
    "win, and one that is taken away here shows the device's again.",
  examples: [
    { comment: "One device", command: "nixdeploy agents label nuc role=web room-" },
    { comment: "Several", command: "nixdeploy agents label 'web-*' ring=2" },
  ],
  args: AGENTS_ARGS,
  positionals: {
    select: { label: SELECTORS.label, description: SELECTORS.description, required: true, parse: SELECTORS.parse },
    changes: {
      label: "KEY=VALUE|KEY-",
      description: "What to change",
      required: true,
      repeatable: true,
      parse: parseLabelChange,
    },
  },
  async run({ args, context }) {
    const { workspace, changes } = args;
    const labels = Object.fromEntries(changes.map(({ key, value }) => [key, value]));
    if (Object.keys(labels).length < changes.length) {
      throw new NixdeployError("usage", "cannot label agents: a label is named twice");
    }
    await using coordinator = await openAdministration(context, args.dataDir);
    const request = { select: [args.select], labels, ...(workspace === undefined ? {} : { workspace }) };
    const agents = await coordinator.labelAgents(request, context.signal);
    const text = agents.map((agent) => `${agent.name}: ${formatLabels(agent.labels) || "no labels"}`).join("\n");
    await printResult(context, { json: { agents }, text });
  },
});
