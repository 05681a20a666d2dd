/** `nixdeploy workspace`: groups of agents, each with its own caches, tokens and settings. */
import type { DeletedWorkspace, WorkspaceDto } from "../api/workspaces.ts";
import { NixdeployError } from "../errors.ts";
import { parseWorkspaceName } from "../names.ts";
import { formatCount } from "../quantity.ts";
import {
  type ArgDeclaration,
  defineNixdeployCommand,
  defineNixdeployGroup,
  type PositionalDeclaration,
} from "./command-line/args.ts";
import { formatDuration, parseDuration } from "./command-line/duration.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { formatTable, printResult } from "./terminal/output.ts";

const NAME = {
  label: "NAME",
  description: "The workspace",
  required: true,
  parse: parseWorkspaceName,
} as const satisfies PositionalDeclaration;

const create = defineNixdeployCommand({
  name: "workspace create",
  summary: "Make a workspace, with a cache of the same name",
  details: "It takes an admin token that is good for every workspace, or --data-dir on the coordinator's own host.",
  examples: [
    { comment: "A workspace and a token for its devices", command: "nixdeploy workspace create prod" },
    { comment: "", command: "nixdeploy token create --kind agent --workspace prod" },
  ],
  args: { dataDir: DATA_DIR_ARG },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const workspace = await coordinator.createWorkspace(args.name, context.signal);
    await printResult(context, { json: workspace, text: formatWorkspace(workspace) });
  },
});

const list = defineNixdeployCommand({
  name: "workspace list",
  summary: "List the workspaces that the token may see",
  args: { dataDir: DATA_DIR_ARG },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const workspaces = await coordinator.listWorkspaces(context.signal);
    const rows = workspaces.map(({ name, agents, caches }) => [name, String(agents), caches.join(", ")]);
    await printResult(context, { json: { workspaces }, text: formatTable(["workspace", "agents", "caches"], rows) });
  },
});

const show = defineNixdeployCommand({
  name: "workspace show",
  summary: "Show a workspace, its caches and its settings",
  args: { dataDir: DATA_DIR_ARG },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const workspace = await coordinator.loadWorkspace(args.name, context.signal);
    await printResult(context, { json: workspace, text: formatWorkspace(workspace) });
  },
});

const rename = defineNixdeployCommand({
  name: "workspace rename",
  summary: "Rename a workspace",
  details: "Agents and tokens keep working. Its caches keep their names, which stand in URLs and configurations.",
  args: { dataDir: DATA_DIR_ARG },
  positionals: { name: { ...NAME, label: "OLD" }, newName: { ...NAME, label: "NEW", description: "Its new name" } },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const workspace = await coordinator.renameWorkspace({ from: args.name, to: args.newName }, context.signal);
    await printResult(context, { json: workspace, text: formatWorkspace(workspace) });
  },
});

const setting = (flag: string, description: string) =>
  ({
    type: "string",
    flag,
    valueHint: "DURATION",
    description,
    parse: (text) => (text === "default" ? null : parseDuration(text)),
  }) as const satisfies ArgDeclaration;

const set = defineNixdeployCommand({
  name: "workspace set",
  summary: "Set what holds in a workspace where nobody says otherwise",
  details: "Durations as in 90s or 30d; `default` goes back to the default of the coordinator or the device.",
  examples: [
    { comment: "Slow machines", command: "nixdeploy workspace set prod --confirm-window 5m --activation-timeout 2h" },
    { comment: "As before", command: "nixdeploy workspace set prod --confirm-window default" },
  ],
  args: {
    confirmWindowMs: setting("confirm-window", "How long a new version may take to prove itself"),
    activationTimeoutMs: setting("activation-timeout", "How long the activation script may run"),
    expiresMs: setting("expires", "How long a deployment waits for an agent that is offline"),
    logRetentionMs: setting("log-retention", "How long logs of deployments that have ended are kept"),
    deploymentRetentionMs: setting(
      "deployment-retention",
      "How long rollouts and deployments that have ended are kept",
    ),
    dataDir: DATA_DIR_ARG,
  },
  positionals: { name: NAME },
  async run({ args, context }) {
    const { confirmWindowMs, activationTimeoutMs, expiresMs, logRetentionMs, deploymentRetentionMs } = args;
    const change = { confirmWindowMs, activationTimeoutMs, expiresMs, logRetentionMs, deploymentRetentionMs };
    if (Object.values(change).every((value) => value === undefined)) {
      throw new NixdeployError("usage", "cannot set the workspace: no setting is given");
    }
    await using coordinator = await openAdministration(context, args.dataDir);
    const workspace = await coordinator.setWorkspace(args.name, change, context.signal);
    await printResult(context, { json: workspace, text: formatWorkspace(workspace) });
  },
});

const remove = defineNixdeployCommand({
  name: "workspace delete",
  summary: "Delete a workspace",
  details:
    "Refused while agents are bound to it. With --force they are disconnected and forgotten; what runs on the devices " +
    "stays as it is. Its tokens are revoked, its caches with all their paths and its deployments with their logs are " +
    "deleted. It cannot be undone.",
  args: { force: { type: "boolean", description: "Although agents are bound to it" }, dataDir: DATA_DIR_ARG },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const deleted = await coordinator.deleteWorkspace({ name: args.name, force: args.force }, context.signal);
    await printResult(context, { json: deleted, text: "" });
    context.log.info(describeDeleted(deleted));
  },
});

export const command = defineNixdeployGroup({
  name: "workspace",
  summary: "Make, show, set and delete workspaces",
  commands: [create, list, show, rename, set, remove],
});

function describeDeleted({ name, agents, tokens, caches, deployments }: DeletedWorkspace): string {
  const paths = caches.map((cache) => `the cache ${cache.name} with ${formatCount(cache.paths, "path")}`);
  return (
    `deleted the workspace ${name}: ${formatCount(agents, "agent")} forgotten, ${formatCount(tokens, "token")} revoked, ` +
    `${[...paths, formatCount(deployments, "deployment")].join(", ")} deleted`
  );
}

function formatWorkspace({ name, agents, caches, foreignCaches, settings }: WorkspaceDto): string {
  const or = (ms: number | null) => (ms === null ? "default" : formatDuration(ms));
  return [
    `name:               ${name}`,
    `agents:             ${agents}`,
    `caches:             ${caches.join(", ")}`,
    ...(foreignCaches.length === 0 ? [] : [`foreign caches:     ${foreignCaches.join(", ")}`]),
    `confirm window:     ${or(settings.confirmWindowMs)}`,
    `activation timeout: ${or(settings.activationTimeoutMs)}`,
    `expires:            ${or(settings.expiresMs)}`,
    `log retention:      ${or(settings.logRetentionMs)}`,
    `rollouts kept:      ${or(settings.deploymentRetentionMs)}`,
  ].join("\n");
}
