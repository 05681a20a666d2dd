/**
 * Trying again what did not succeed, because a person asks for it: of what is named, a new rollout of only that, which
 * lifts the devices' quarantine. What is asked for is as it was: path, mode, policy, script.
 *
 * | named is     | tried again is                                                                        |
 * | ------------ | ------------------------------------------------------------------------------------- |
 * | a deployment | it, unless it succeeded or goes on; whatever came after it                            |
 * | a rollout    | all of it that has ended, did not succeed, and has no newer deployment of its agent   |
 * | an agent     | its latest deployment                                                                 |
 *
 * What was tried again already stands for what it tried. One that the coordinator would try again later goes now.
 */
import { isTerminal } from "../../deployment.ts";
import { NixdeployError } from "../../errors.ts";
import { parseOwnHealthChecks, storePathOf } from "../../health-check.ts";
import type { AgentId, TokenId } from "../../names.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { findAgent } from "../database/agents.ts";
import {
  type DeploymentRow,
  findRollout,
  listDeployments,
  loadLatestDeployments,
  type RolloutRow,
} from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { Once } from "./once.ts";
import { waitMsOf } from "./requeue.ts";
import { describeAbsentPaths, type RolloutDeps } from "./rollouts.ts";
import { askedOf, expiryAgain, startRollout } from "./start-rollout.ts";
import { findLatestTry, findTargets, type Target } from "./targets.ts";

export type RetryRequest = {
  /** Ids of deployments or rollouts, or names of agents. */
  readonly words: readonly string[];
  /** Those in which whoever asks may activate. */
  readonly workspaceIds: readonly string[];
  readonly tokenId: TokenId | null;
  /** CI facts, JSON; null takes those of the rollout that is tried again. */
  readonly origin: string | null;
  readonly once: Once | null;
  readonly nowMs: number;
};

/** A deployment that is named, by itself or with others, and the newest one of its agent. */
export type Candidate = { readonly row: DeploymentRow; readonly newest: DeploymentRow; readonly isNamed: boolean };

/** @returns why it is not tried again, the end of a sentence; null when it is */
export function whyNotRetry({ row, newest, isNamed }: Candidate, nowMs: number): string | null {
  const what = `deployment ${row.id}`;
  if (row.state === "succeeded") return `${what} succeeded`;
  const isPutOff = row.state === "queued" && waitMsOf(row, nowMs) > 0;
  if (!isTerminal(row.state) && !isPutOff) return `${what} is ${row.state}`;
  if (isNamed || newest.number <= row.number) return null;
  return `${what} has a newer one behind it (${newest.id}, ${newest.state}); name it by its id to try it all the same`;
}

/** @throws NixdeployError `refused` with every fault in its details; nothing has been started then */
export async function startRetry(deps: RolloutDeps, request: RetryRequest): Promise<RolloutRow> {
  const { targets, faults: unknown } = await findTargets(deps.database, request);
  const chosen = new Map<AgentId, DeploymentRow>();
  const faults = [...unknown];
  for (const target of targets) faults.push(...(await choose(deps.database, { target, chosen, nowMs: request.nowMs })));
  const rows = [...chosen.values()];
  faults.push(...(await findCommonFaults(deps.database, rows)));
  const [first] = rows;
  if (faults.length > 0 || first === undefined) {
    throw new NixdeployError("refused", "cannot try again: nothing was started", {
      details: faults,
      hint: "`nixdeploy agents` shows each agent's latest deployment; `nixdeploy activate` deploys what it is told.",
    });
  }
  const before = await findRollout(deps.database, first.rollout_id);
  return await startRollout(deps, {
    once: request.once,
    workspace_id: first.workspace_id,
    token_id: request.tokenId,
    description: `tried again: ${request.words.join(", ")}`.slice(0, 1_000),
    origin: request.origin ?? before?.origin ?? "{}",
    deployments: rows.map((row) => ({
      ...askedOf(row),
      ...{ retry_of: row.id, attempt: 1, not_before_ms: null, lifts_quarantine: 1 },
      expires_ms: expiryAgain(row, request.nowMs),
    })),
  });
}

/** Of a pattern that chooses a whole fleet, nobody reads more. */
const REASONS_MAX = 50;

/** Adds to `chosen` what of a target is to be tried again. @returns faults */
async function choose(
  database: CoordinatorDatabase,
  how: { readonly target: Target; readonly chosen: Map<AgentId, DeploymentRow>; readonly nowMs: number },
): Promise<readonly string[]> {
  const { target, chosen, nowMs } = how;
  const reasons: string[] = [];
  const faults: string[] = [];
  let count = 0;
  for (const candidate of await findCandidates(database, target)) {
    const { row } = candidate;
    const agent = await findAgent(database, row.agent_id);
    const name = agent?.name ?? row.agent_id;
    const isRemoved = agent === null || agent.removed_ms !== null;
    const reason = isRemoved ? "the agent was removed" : whyNotRetry(candidate, nowMs);
    const other = chosen.get(row.agent_id);
    if (reason !== null) reasons.push(`${name}: ${reason}`);
    else if (other !== undefined && other.id !== row.id) {
      faults.push(`${name}: two deployments are named (${other.id}, ${row.id}), and it can take only one`);
    } else {
      chosen.set(row.agent_id, row);
      count += 1;
    }
  }
  if (count > 0 || faults.length > 0) return faults;
  return reasons.length === 0
    ? [`${target.word}: nothing was deployed`]
    : reasons.slice(0, REASONS_MAX).map((text) => `nothing to try again: ${text}`);
}

async function findCandidates(database: CoordinatorDatabase, target: Target): Promise<readonly Candidate[]> {
  const isNamed = target.kind === "deployment";
  const candidates: Candidate[] = [];
  for (const named of await rowsOf(database, target)) {
    const row = await findLatestTry(database, named);
    const [newest = row] = await listDeployments(database, { agentIds: [row.agent_id], limit: 1 });
    candidates.push({ row, newest, isNamed });
  }
  return candidates;
}

async function rowsOf(database: CoordinatorDatabase, target: Target): Promise<readonly DeploymentRow[]> {
  switch (target.kind) {
    case "deployment":
      return [target.row];
    case "rollout":
      return target.rows;
    case "agents": {
      const latest = await loadLatestDeployments(
        database,
        target.agents.map(({ id }) => id),
      );
      return [...latest.values()];
    }
    default:
      return target satisfies never;
  }
}

/** One rollout belongs to one workspace, whose cache still holds the paths. */
async function findCommonFaults(
  database: CoordinatorDatabase,
  rows: readonly DeploymentRow[],
): Promise<readonly string[]> {
  const [first] = rows;
  if (first === undefined) return [];
  if (rows.some((row) => row.workspace_id !== first.workspace_id)) {
    return ["they belong to several workspaces; try them again one workspace at a time (--workspace)"];
  }
  const paths = new Set(rows.flatMap((row) => [row.store_path, row.rollback_script, ...checkedPathsOf(row)]));
  return await describeAbsentPaths(database, paths, { id: first.workspace_id });
}

/** The programs among its health checks. */
function checkedPathsOf({ health_checks }: DeploymentRow): readonly (StorePath | null)[] {
  const parsed = parseOwnHealthChecks(JSON.parse(health_checks), "health checks");
  return parsed.kind === "faults" ? [] : parsed.checks.map(storePathOf);
}
