/** What `retry` and `cancel` are told to act on: ids of deployments or rollouts, or agents (`agent-selector.ts`). */
import { parseAgentSelector } from "../../agent-selector.ts";
import { parseDeploymentId, parseRolloutId } from "../../names.ts";
import { quoteExcerpt } from "../../nix/parse-error.ts";
import { findMatchingAgents } from "../agents/select-agents.ts";
import type { AgentRow } from "../database/agents.ts";
import {
  type DeploymentRow,
  findDeployment,
  findRetry,
  findRollout,
  loadRolloutDeployments,
} from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

export type Target =
  | { readonly kind: "deployment"; readonly word: string; readonly row: DeploymentRow }
  | { readonly kind: "rollout"; readonly word: string; readonly rows: readonly DeploymentRow[] }
  /** At least one, all of one workspace. */
  | { readonly kind: "agents"; readonly word: string; readonly agents: readonly AgentRow[] };

type Query = {
  readonly words: readonly string[];
  /** Those in which whoever asks may do it. */
  readonly workspaceIds: readonly string[];
};

/** Ids come first: 16 lower-case letters and digits may be a name as well. @returns also what was not found, a fault each */
export async function findTargets(
  database: CoordinatorDatabase,
  { words, workspaceIds }: Query,
): Promise<{ readonly targets: readonly Target[]; readonly faults: readonly string[] }> {
  const targets: Target[] = [];
  const faults: string[] = [];
  for (const word of new Set(words)) {
    const found =
      (await findById(database, word, workspaceIds)) ?? (await findBySelector(database, word, workspaceIds)) ?? "none";
    if (found === "none") faults.push(`${quoteExcerpt(word)}: no deployment, rollout or agent is called so`);
    else if (found === "several") faults.push(`${word}: several workspaces have such agents; give --workspace`);
    else targets.push(found);
  }
  return { targets, faults };
}

/** The latest try of a deployment: itself, or what tried it again last. */
export async function findLatestTry(database: CoordinatorDatabase, row: DeploymentRow): Promise<DeploymentRow> {
  let latest = row;
  for (let next = await findRetry(database, row.id); next !== null; next = await findRetry(database, next.id)) {
    latest = next;
  }
  return latest;
}

async function findById(
  database: CoordinatorDatabase,
  word: string,
  workspaceIds: readonly string[],
): Promise<Target | null> {
  const deploymentId = parseOrNull(parseDeploymentId, word);
  const rolloutId = parseOrNull(parseRolloutId, word);
  if (deploymentId === null || rolloutId === null) return null;
  const row = await findDeployment(database, deploymentId);
  if (row !== null && workspaceIds.includes(row.workspace_id)) return { kind: "deployment", word, row };
  const rollout = await findRollout(database, rolloutId);
  if (rollout === null || !workspaceIds.includes(rollout.workspace_id)) return null;
  return { kind: "rollout", word, rows: await loadRolloutDeployments(database, rolloutId) };
}

async function findBySelector(
  database: CoordinatorDatabase,
  word: string,
  workspaceIds: readonly string[],
): Promise<Target | "several" | null> {
  const selector = parseOrNull(parseAgentSelector, word);
  if (selector === null) return null;
  const agents = await findMatchingAgents(database, { selectors: [selector], workspaceIds });
  if (agents.some((agent) => agent.workspace_id !== agents[0]?.workspace_id)) return "several";
  return agents.length === 0 ? null : { kind: "agents", word, agents };
}

function parseOrNull<Value>(parse: (text: string) => Value, text: string): Value | null {
  try {
    return parse(text);
  } catch {
    // Not of this form: it is tried as something else.
    return null;
  }
}
