/**
 * Going back to what ran before, because a person asks for it: a new rollout of the versions that were there before.
 *
 * | named is     | goes back from                                                                          |
 * | ------------ | --------------------------------------------------------------------------------------- |
 * | an agent     | what its latest deployment left there (succeeded or degraded)                           |
 * | a rollout    | what it left, where nothing newer was left since                                        |
 * | a deployment | what it left, whatever came after it                                                    |
 *
 * Before means: the path that the device itself reported from before that deployment; where it reported none, or the same
 * path, what the history of its deployments says. Twice is where it began. While something is being deployed there, this
 * is no moment to go back: a cancel is. Mode and policy are those of what is gone back from, health checks those of what is
 * gone back to.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { isTerminal } from "../../deployment.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { AgentRow } from "../database/agents.ts";
import { chunksOf } from "../database/bulk.ts";
import { type DeploymentRow, loadRecentDeployments } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type Again, type Considered, choose, findAgentOf, type Named, REMOVED } from "./again.ts";
import { becameOf } from "./late-outcome.ts";
import { type Asked, expiryAgain } from "./start-rollout.ts";
import { findLatestTry, findTargets, type Target } from "./targets.ts";

/** Of a rollout for thousands, between two turns of everybody else. */
const AT_ONCE = 100;

/** A deployment and its agent's history: those that ended live, the newest first. */
type History = { readonly live: readonly DeploymentRow[]; readonly isRunning: boolean };

const WORDS = {
  verb: "go back",
  hint:
    "`nixdeploy agents` shows what runs; at the device itself `nixdeploy local rollback` goes back to what is still in its " +
    "store.",
  description: "rolled back",
} as const;

export async function chooseRollbacks(database: CoordinatorDatabase, request: Named): Promise<Again> {
  const { targets, faults } = await findTargets(database, request);
  const considered = [];
  for (const target of targets) {
    considered.push({ word: target.word, considered: await considerAll(database, target, request.nowMs) });
  }
  const chosen = choose(considered, "nothing to go back to");
  return { ...WORDS, choices: chosen.choices, faults: [...faults, ...chosen.faults] };
}

async function considerAll(
  database: CoordinatorDatabase,
  target: Target,
  nowMs: number,
): Promise<readonly Considered[]> {
  if (target.kind === "agents") return await considerAgents(database, target.agents, nowMs);
  const considered: Considered[] = [];
  const isNamed = target.kind === "deployment";
  for (const some of chunksOf(target.kind === "deployment" ? [target.row] : target.rows, AT_ONCE)) {
    const rows: DeploymentRow[] = [];
    for (const named of some) rows.push(await findLatestTry(database, named));
    const agentIds = rows.map((row) => row.agent_id);
    const historyOf = await loadRecentDeployments(database, agentIds);
    for (const row of rows) {
      const { agent, isRemoved } = await findAgentOf(database, row);
      const history = historyOf(row.agent_id);
      considered.push(
        isRemoved ? { kind: "nothing", agent, why: REMOVED } : consider({ agent, row, history, isNamed, nowMs }),
      );
    }
    await nextTurn();
  }
  return considered;
}

async function considerAgents(
  database: CoordinatorDatabase,
  agents: readonly AgentRow[],
  nowMs: number,
): Promise<readonly Considered[]> {
  const considered: Considered[] = [];
  for (const some of chunksOf(agents, AT_ONCE)) {
    const agentIds = some.map(({ id }) => id);
    const historyOf = await loadRecentDeployments(database, agentIds);
    for (const { id, name: agent } of some) {
      const history = historyOf(id);
      const [row] = history.live;
      considered.push(
        row === undefined
          ? { kind: "nothing", agent, why: "nothing that was deployed runs there" }
          : consider({ agent, row, history, isNamed: false, nowMs }),
      );
    }
    await nextTurn();
  }
  return considered;
}

function consider(what: {
  readonly agent: string;
  readonly row: DeploymentRow;
  readonly history: History;
  readonly isNamed: boolean;
  readonly nowMs: number;
}): Considered {
  const { agent, row, history, nowMs } = what;
  const why = whyNotBack(what);
  if (why !== null) return { kind: "nothing", agent, why };
  const path = findBefore(row, history.live);
  if (path === null) return { kind: "nothing", agent, why: `what ran there before ${row.store_path} is not known` };
  const deployment = {
    ...askFor({ row, path, live: history.live }),
    ...{ retry_of: null, attempt: 1, not_before_ms: null, lifts_quarantine: 1 },
    expires_ms: expiryAgain(row, nowMs),
  };
  return { kind: "choice", agent, choice: { agent, row, deployment } };
}

/** @returns why an agent does not go back from a deployment, the end of a sentence; null when it does */
export function whyNotBack(what: {
  readonly agent: string;
  readonly row: Pick<DeploymentRow, "id" | "state" | "late_outcome" | "mode">;
  readonly history: {
    readonly live: readonly Pick<DeploymentRow, "id" | "state" | "late_outcome">[];
    readonly isRunning: boolean;
  };
  readonly isNamed: boolean;
}): string | null {
  const { agent, row, history, isNamed } = what;
  const name = `deployment ${row.id}`;
  if (!isTerminal(row.state)) return `${name} is ${row.state}: cancel it (\`nixdeploy cancel ${row.id}\`)`;
  if (history.isRunning) return `something is being deployed there: cancel it first (\`nixdeploy cancel ${agent}\`)`;
  const became = becameOf(row);
  if (became !== "succeeded" && became !== "degraded") return `${name} is ${became}: it left nothing there`;
  if (row.mode === "dry-activate") return `${name} only asked what would change`;
  const [newest] = history.live;
  if (isNamed || newest === undefined || newest.id === row.id) return null;
  return `${name} has a newer one behind it (${newest.id}, ${becameOf(newest)}); name it by its id, or the agent`;
}

/** @returns what ran before a deployment, another path than its own; null where neither the device nor the history tells */
export function findBefore(
  row: Pick<DeploymentRow, "id" | "store_path" | "previous_path">,
  live: readonly Pick<DeploymentRow, "id" | "store_path" | "previous_path">[],
): StorePath | null {
  const at = live.findIndex(({ id }) => id === row.id);
  const older = live.slice(at + 1).flatMap((each) => [each.store_path, each.previous_path]);
  return [row.previous_path, ...older].find((path) => path !== null && path !== row.store_path) ?? null;
}

/** As it was asked for when it was deployed, if it was; one that somebody installed by hand has no health checks here. */
function askFor(back: {
  readonly row: DeploymentRow;
  readonly path: StorePath;
  readonly live: readonly DeploymentRow[];
}): Asked {
  const { row, path } = back;
  const before = back.live.find((each) => each.store_path === path && each.started_on_device === 0);
  return {
    agent_id: row.agent_id,
    store_path: path,
    mode: row.mode === "boot" ? "boot" : "switch",
    policy: row.policy,
    rollback_script: before?.rollback_script ?? null,
    health_checks: before?.health_checks ?? "[]",
    // Measured when it is checked whether it is there.
    closure_size_bytes: 0,
  };
}
