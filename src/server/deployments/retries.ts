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
import { type DeploymentRow, listDeployments, loadLatestDeployments } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type Again, type Considered, choose, findAgentOf, type Named, REMOVED } from "./again.ts";
import { becameOf } from "./late-outcome.ts";
import { waitMsOf } from "./requeue.ts";
import { askedOf, expiryAgain } from "./start-rollout.ts";
import { findLatestTry, findTargets, type Target } from "./targets.ts";

/** A deployment that is named, by itself or with others, and the newest one of its agent. */
export type Candidate = { readonly row: DeploymentRow; readonly newest: DeploymentRow; readonly isNamed: boolean };

/** @returns why it is not tried again, the end of a sentence; null when it is */
export function whyNotRetry({ row, newest, isNamed }: Candidate, nowMs: number): string | null {
  const what = `deployment ${row.id}`;
  if (becameOf(row) === "succeeded") return `${what} succeeded`;
  const isPutOff = row.state === "queued" && waitMsOf(row, nowMs) > 0;
  if (!isTerminal(row.state) && !isPutOff) return `${what} is ${row.state}`;
  if (isNamed || newest.number <= row.number) return null;
  return `${what} has a newer one behind it (${newest.id}, ${newest.state}); name it by its id to try it all the same`;
}

const WORDS = {
  verb: "try again",
  hint: "`nixdeploy agents` shows each agent's latest deployment; `nixdeploy activate` deploys what it is told.",
  description: "tried again",
} as const;

export async function chooseRetries(database: CoordinatorDatabase, request: Named): Promise<Again> {
  const { targets, faults } = await findTargets(database, request);
  const considered = [];
  for (const target of targets) {
    const candidates = await findCandidates(database, target);
    considered.push({ word: target.word, considered: await considerAll(database, candidates, request.nowMs) });
  }
  const chosen = choose(considered, "nothing to try again");
  return { ...WORDS, choices: chosen.choices, faults: [...faults, ...chosen.faults] };
}

async function considerAll(
  database: CoordinatorDatabase,
  candidates: readonly Candidate[],
  nowMs: number,
): Promise<readonly Considered[]> {
  const considered: Considered[] = [];
  for (const candidate of candidates) {
    const { row } = candidate;
    const { agent, isRemoved } = await findAgentOf(database, row);
    const why = isRemoved ? REMOVED : whyNotRetry(candidate, nowMs);
    const deployment = {
      ...askedOf(row),
      ...{ retry_of: row.id, attempt: 1, not_before_ms: null, lifts_quarantine: 1 },
      expires_ms: expiryAgain(row, nowMs),
    };
    considered.push(
      why === null ? { kind: "choice", agent, choice: { agent, row, deployment } } : { kind: "nothing", agent, why },
    );
  }
  return considered;
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
