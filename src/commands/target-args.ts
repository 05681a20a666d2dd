/** How `retry`, `cancel` and `rollback` are told what to act on: ids of rollouts or deployments, or names of agents. */
import { SELECTOR_HINT } from "../agent-selector.ts";
import type { ArgDeclarations, ArgValues, PositionalDeclarations } from "./command-line/args.ts";
import { workspaceArg } from "./workspace-arg.ts";

export const TARGET_ARGS = {
  workspace: workspaceArg("Where the agents are (default: wherever the token may)"),
} as const satisfies ArgDeclarations;

export const TARGET_POSITIONALS = {
  what: {
    label: "ID|AGENT",
    description: `Rollout, deployment, or agents: ${SELECTOR_HINT}`,
    required: true,
    repeatable: true,
  },
} as const satisfies PositionalDeclarations;

/** As the API takes them. */
export function readTargets({ what, workspace }: ArgValues<typeof TARGET_ARGS, typeof TARGET_POSITIONALS>) {
  return { of: [...what], ...(workspace === undefined ? {} : { workspace }) };
}
