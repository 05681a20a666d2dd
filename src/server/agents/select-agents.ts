/**
 * The agents that somebody names (`agent-selector.ts`), among those of the workspaces in which they may. A selector that
 * chooses none is a fault which names it: a mistyped pattern must not look like a fleet without such agents.
 */
import { type AgentSelector, matchesAgent, parseAgentSelector } from "../../agent-selector.ts";
import { NixdeployError } from "../../errors.ts";
import { type AgentName, parseAgentName, type TokenId } from "../../names.ts";
import { type AgentRow, findAgentByName, listAgents } from "../database/agents.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { labelsOf } from "./change-agents.ts";

export type Selection = {
  readonly selectors: readonly string[];
  /** Only those that this token admitted. */
  readonly admittedBy?: TokenId | undefined;
  readonly workspaceIds: readonly string[];
};

/** By name. Without selectors all of them. @throws NixdeployError `usage`, `refused` with every fault in its details */
export async function loadSelectedAgents(
  database: CoordinatorDatabase,
  { selectors, admittedBy, workspaceIds }: Selection,
): Promise<readonly AgentRow[]> {
  const parsed = [...new Set(selectors)].map(readSelector);
  const admitted = (agent: AgentRow) => admittedBy === undefined || agent.admitted_by === admittedBy;
  const candidates = (await loadCandidates(database, { selectors: parsed, workspaceIds })).filter(admitted);
  if (parsed.length === 0) return candidates;
  const faults = parsed
    .filter((selector) => match(candidates, [selector]).length === 0)
    .map(({ text }) => `${text}: no agent is selected by it`);
  if (faults.length === 0) return match(candidates, parsed);
  throw new NixdeployError("refused", "cannot select the agents: nothing was done", {
    details: faults,
    hint: "`nixdeploy agents` lists the agents and their labels.",
  });
}

/** By name, those that any of the selectors chooses; none is no fault here. */
export async function findMatchingAgents(
  database: CoordinatorDatabase,
  query: { readonly selectors: readonly AgentSelector[]; readonly workspaceIds: readonly string[] },
): Promise<readonly AgentRow[]> {
  return match(await loadCandidates(database, query), query.selectors);
}

function match(agents: readonly AgentRow[], selectors: readonly AgentSelector[]): readonly AgentRow[] {
  return agents.filter((agent) => {
    const named = { name: agent.name, labels: labelsOf(agent) };
    return selectors.some((selector) => matchesAgent(selector, named));
  });
}

/** @throws NixdeployError `usage` */
function readSelector(text: string): AgentSelector {
  try {
    return parseAgentSelector(text);
  } catch (cause) {
    throw new NixdeployError("usage", cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

/** Names alone are looked up: whoever names one of ten thousand does not wait for all. */
async function loadCandidates(
  database: CoordinatorDatabase,
  {
    selectors,
    workspaceIds,
  }: { readonly selectors: readonly AgentSelector[]; readonly workspaceIds: readonly string[] },
): Promise<readonly AgentRow[]> {
  if (selectors.length === 0 || selectors.some(({ kind }) => kind !== "name")) {
    return (await listAgents(database, null)).filter((agent) => workspaceIds.includes(agent.workspace_id));
  }
  const found: AgentRow[] = [];
  for (const { text } of selectors) {
    found.push(...(await findAgentsNamed(database, { name: parseAgentName(text), workspaceIds })));
  }
  return found;
}

/** At most one in each workspace. */
export async function findAgentsNamed(
  database: CoordinatorDatabase,
  { name, workspaceIds }: { readonly name: AgentName; readonly workspaceIds: Iterable<string> },
): Promise<readonly AgentRow[]> {
  const found: AgentRow[] = [];
  for (const workspaceId of workspaceIds) {
    const agent = await findAgentByName(database, { workspaceId, name });
    if (agent !== null) found.push(agent);
  }
  return found;
}

/** For what must not reach into several workspaces at once. @throws NixdeployError `refused` */
export function requireOneWorkspace(agents: readonly AgentRow[]): void {
  if (agents.every((agent) => agent.workspace_id === agents[0]?.workspace_id)) return;
  throw new NixdeployError("refused", "cannot select the agents: several workspaces have such agents", {
    hint: "Say which with --workspace.",
  });
}
