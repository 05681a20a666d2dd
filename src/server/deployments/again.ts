/**
 * What trying again, going back and deploying an older rollout have in common: of what is named, something is chosen for
 * each agent, every fault is named at once, and one new rollout starts it all, or nothing is started.
 */
import type { AgainPlanDto } from "../../api/going-back.ts";
import { NixdeployError } from "../../errors.ts";
import { parseOwnHealthChecks, storePathOf } from "../../health-check.ts";
import type { AgentId, TokenId } from "../../names.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { type CheckedClosures, type CompletenessDeps, checkClosures } from "../completeness/completeness.ts";
import { findAgent, listAgents } from "../database/agents.ts";
import { type DeploymentRow, findRollout, type RolloutRow } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { findWorkspaceById } from "../database/workspaces.ts";
import type { Once } from "./once.ts";
import { askUntilMs, compareAgents } from "./rollout-plans.ts";
import type { RolloutCheckDeps, RolloutDeps } from "./rollouts.ts";
import { type Asked, type Attempt, startRollout } from "./start-rollout.ts";

export type AgainRequest = {
  /** Ids of deployments or rollouts, or names of agents. */
  readonly words: readonly string[];
  /** Those in which whoever asks may activate. */
  readonly workspaceIds: readonly string[];
  readonly tokenId: TokenId | null;
  /** CI facts, JSON; null takes those of the rollout that is named. */
  readonly origin: string | null;
  readonly once: Once | null;
  readonly nowMs: number;
};

/** For one agent: the deployment that is named, or stands for what is, and what is asked for now. */
export type Choice = {
  readonly agent: string;
  readonly row: DeploymentRow;
  readonly deployment: Asked & Attempt;
};

/** A choice, or why there is none: the end of a sentence. */
export type Considered = { readonly agent: string } & (
  | { readonly kind: "choice"; readonly choice: Choice }
  | { readonly kind: "nothing"; readonly why: string }
);

export type Chosen = { readonly choices: readonly Choice[]; readonly faults: readonly string[] };

/** What is chosen, and how people are told of it. */
export type Again = Chosen & {
  /** The end of "cannot …: nothing was started". */
  readonly verb: string;
  readonly hint: string;
  readonly description: string;
};

/** What is named, by whom: enough to choose. */
export type Named = Pick<AgainRequest, "words" | "workspaceIds" | "nowMs">;

/** Of a pattern that chooses a whole fleet, nobody reads more. */
const REASONS_MAX = 50;

/** The agent of a deployment, by its name; `isRemoved`: nothing can be deployed to it any more. */
export async function findAgentOf(
  database: CoordinatorDatabase,
  row: Pick<DeploymentRow, "agent_id">,
): Promise<{ readonly agent: string; readonly isRemoved: boolean }> {
  const agent = await findAgent(database, row.agent_id);
  return { agent: agent?.name ?? row.agent_id, isRemoved: agent === null || agent.removed_ms !== null };
}

export const REMOVED = "the agent was removed";

/**
 * An agent can take only one. What is not chosen of a target is a fault only when nothing of it is.
 * @param nothing how the sentence about that begins, such as "nothing to try again"
 */
export function choose(
  targets: readonly { readonly word: string; readonly considered: readonly Considered[] }[],
  nothing: string,
): Chosen {
  const chosen = new Map<AgentId, Choice>();
  const faults: string[] = [];
  for (const { word, considered } of targets) {
    const choices = considered.flatMap((each) => (each.kind === "choice" ? [each.choice] : []));
    for (const choice of choices) {
      const { agent, row } = choice;
      const other = chosen.get(row.agent_id)?.row;
      if (other === undefined) chosen.set(row.agent_id, choice);
      else if (other.id !== row.id) {
        faults.push(`${agent}: two deployments are named (${other.id}, ${row.id}), and it can take only one`);
      }
    }
    if (choices.length > 0) continue;
    if (considered.length === 0) faults.push(`${word}: nothing was deployed`);
    const reasons = considered.flatMap((each) => (each.kind === "nothing" ? [`${each.agent}: ${each.why}`] : []));
    faults.push(...reasons.slice(0, REASONS_MAX).map((reason) => `${nothing}: ${reason}`));
  }
  return { choices: [...chosen.values()], faults };
}

/** @throws NixdeployError `refused` with every fault in its details; nothing has been started then */
export async function startAgain(deps: RolloutDeps, request: AgainRequest, again: Again): Promise<RolloutRow> {
  const { first, sizes } = await requireStartable(deps, again);
  const before = await findRollout(deps.database, first.rollout_id);
  return await startRollout(deps, {
    once: request.once,
    workspace_id: first.workspace_id,
    token_id: request.tokenId,
    description: `${again.description}: ${request.words.join(", ")}`.slice(0, 1_000),
    origin: request.origin ?? before?.origin ?? "{}",
    deployments: again.choices.map(({ deployment }) => ({
      ...deployment,
      closure_size_bytes: sizes.get(deployment.store_path) ?? deployment.closure_size_bytes,
    })),
  });
}

/** What {@link startAgain} would change; nothing is started. @throws NixdeployError as it does */
export async function planAgain(deps: RolloutCheckDeps, again: Again): Promise<AgainPlanDto> {
  const untilMs = askUntilMs(deps.clock);
  const { first, located } = await requireStartable(deps, again);
  const workspace = await findWorkspaceById(deps.database, first.workspace_id);
  const agents = new Map((await listAgents(deps.database, first.workspace_id)).map((agent) => [agent.id, agent]));
  const wanted = again.choices.flatMap(({ row, deployment }) => {
    const agent = agents.get(row.agent_id);
    return agent === undefined ? [] : [{ agent, to: deployment.store_path, row }];
  });
  // Both were there a moment ago.
  if (workspace === null || wanted.length < again.choices.length) {
    throw new NixdeployError("conflict", `cannot ${again.verb}: the workspace or an agent was removed meanwhile`);
  }
  const plan = await compareAgents(deps, { workspace, changes: wanted, located, untilMs });
  const rowOf = new Map(wanted.map(({ agent, row }) => [agent.name, row]));
  return {
    ...plan,
    agents: plan.agents.flatMap((each) => {
      const row = rowOf.get(each.agent);
      return row === undefined ? [] : [{ ...each, deployment: row.id, rollout: row.rollout_id }];
    }),
  };
}

/** @returns the first of what is chosen, and its closures. @throws NixdeployError `refused` with every fault in its details */
async function requireStartable(
  deps: CompletenessDeps,
  { choices, verb, hint, ...chosen }: Again,
): Promise<{ readonly first: DeploymentRow } & CheckedClosures> {
  const checked = await checkCommon(deps, choices);
  const faults = [...chosen.faults, ...checked.faults];
  const [first] = choices;
  if (faults.length === 0 && first !== undefined && "sizes" in checked) return { first: first.row, ...checked };
  throw new NixdeployError("refused", `cannot ${verb}: nothing was started`, { details: faults, hint });
}

/** One rollout belongs to one workspace, whose caches still hold the paths. */
async function checkCommon(
  deps: CompletenessDeps,
  choices: readonly Choice[],
): Promise<CheckedClosures | Pick<CheckedClosures, "faults">> {
  const [first] = choices;
  if (first === undefined) return { faults: [] };
  const { workspace_id } = first.row;
  if (choices.some(({ row }) => row.workspace_id !== workspace_id)) {
    return { faults: ["they belong to several workspaces; do it one workspace at a time (--workspace)"] };
  }
  const paths = new Set(
    choices.flatMap(({ deployment }) => [
      deployment.store_path,
      deployment.rollback_script,
      ...checkedPathsOf(deployment),
    ]),
  );
  return await checkClosures(deps, { workspaceId: workspace_id, paths });
}

/** The programs among its health checks. */
function checkedPathsOf({ health_checks }: Asked): readonly (StorePath | null)[] {
  const parsed = parseOwnHealthChecks(JSON.parse(health_checks), "health checks");
  return parsed.kind === "faults" ? [] : parsed.checks.map(storePathOf);
}
