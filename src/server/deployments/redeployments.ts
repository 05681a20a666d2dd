/**
 * Starting what an older rollout (or one deployment of it) has started once more, whatever became of it and whatever came
 * after it: the same paths for the same agents, in the same mode, under the same policy. A person asks for just these
 * versions, so it lifts the devices' quarantine.
 */
import type { CoordinatorDatabase } from "../database/schema.ts";
import { type Again, type Considered, choose, findAgentOf, type Named, REMOVED } from "./again.ts";
import { askedOf, expiryAgain } from "./start-rollout.ts";
import { findTargets, type Target } from "./targets.ts";

const WORDS = {
  verb: "deploy again",
  hint: "`nixdeploy logs NAME` and `GET /api/v1/deployments` show earlier deployments with their rollouts.",
  description: "deployed again",
} as const;

/** @param request.agents only these of them; empty: all */
export async function chooseRedeployments(
  database: CoordinatorDatabase,
  request: Named & { readonly agents: readonly string[] },
): Promise<Again> {
  const { targets, faults: unknown } = await findTargets(database, request);
  const faults = [...unknown];
  const considered: { readonly word: string; readonly considered: readonly Considered[] }[] = [];
  const wanted = new Set(request.agents);
  const met = new Set<string>();
  for (const target of targets) {
    if (target.kind === "agents") {
      faults.push(`${target.word}: it is an agent; name a rollout or a deployment, or use \`nixdeploy rollback\``);
      continue;
    }
    const all = await considerAll(database, target, request.nowMs);
    for (const { agent } of all) met.add(agent);
    considered.push({
      word: target.word,
      considered: all.filter(({ agent }) => wanted.size === 0 || wanted.has(agent)),
    });
  }
  for (const name of wanted) if (!met.has(name)) faults.push(`agent ${name}: nothing of what is named was for it`);
  const chosen = choose(
    considered.filter((each) => each.considered.length > 0),
    "nothing to deploy again",
  );
  return { ...WORDS, choices: chosen.choices, faults: [...faults, ...chosen.faults] };
}

async function considerAll(
  database: CoordinatorDatabase,
  target: Exclude<Target, { kind: "agents" }>,
  nowMs: number,
): Promise<readonly Considered[]> {
  const considered: Considered[] = [];
  for (const row of target.kind === "deployment" ? [target.row] : target.rows) {
    const { agent, isRemoved } = await findAgentOf(database, row);
    if (isRemoved) {
      considered.push({ kind: "nothing", agent, why: REMOVED });
      continue;
    }
    const deployment = {
      ...askedOf(row),
      ...{ retry_of: null, attempt: 1, not_before_ms: null, lifts_quarantine: 1 },
      expires_ms: expiryAgain(row, nowMs),
    };
    considered.push({ kind: "choice", agent, choice: { agent, row, deployment } });
  }
  return considered;
}
