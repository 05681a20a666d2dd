/** What a rollout would change, without starting it: the same checks, then each agent's closures compared. */
import type { ClosureDiffDto, RolloutPlanDto } from "../../api/rollout-plans.ts";
import { isSystemProfile } from "../../nix/profile.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { type MachineState, machineStateSchema } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import { type Located, locateClosures } from "../completeness/completeness.ts";
import { describeUnknownClosure } from "../completeness/judge.ts";
import type { AgentRow } from "../database/agents.ts";
import type { WorkspaceRow } from "../database/workspaces.ts";
import { compareClosures, keyOf } from "./compare-closures.ts";
import { checkRollout, type RolloutCheckDeps, type RolloutRequest } from "./rollouts.ts";

/** Of what runs, which may be in a foreign cache alone: so long that is asked. What is to run was asked for before. */
const RUNNING_MAX_MS = 5_000;
/** Together with that: the comparison comes after it, and our own clients take silence of 30 s for death. */
const ASKING_MAX_MS = 22_000;

/** Until when others may be asked for a plan that is made now; monotonic. */
export function askUntilMs(clock: Pick<Clock, "monotonicMs">): number {
  return clock.monotonicMs() + ASKING_MAX_MS;
}

/** @throws NixdeployError `refused` with every fault, as the rollout itself would be */
export async function planRollout(
  deps: RolloutCheckDeps,
  asked: { readonly request: RolloutRequest; readonly workspace: WorkspaceRow },
): Promise<RolloutPlanDto> {
  const { request, workspace } = asked;
  const untilMs = askUntilMs(deps.clock);
  const { assignments, located } = await checkRollout(deps, request, workspace);
  return await compareAgents(deps, {
    ...{ workspace, located, untilMs },
    changes: assignments.map(({ agent, storePath: to }) => ({ agent, to })),
  });
}

/** What each agent runs, held against what it would get. In the order of `changes`. */
export async function compareAgents(
  deps: RolloutCheckDeps,
  wanted: {
    readonly workspace: WorkspaceRow;
    readonly changes: readonly { readonly agent: AgentRow; readonly to: StorePath }[];
    /** Where all of what they would get is. */
    readonly located: Located;
    readonly untilMs: number;
  },
): Promise<RolloutPlanDto> {
  const { workspace, located } = wanted;
  const agents = wanted.changes.map(({ agent, to }) => ({
    name: agent.name,
    contact: deps.registry.contact({ agentId: agent.id, lastSeenMs: agent.last_seen_ms }),
    from: findRunning(agent),
    to,
  }));
  const pairs = agents.flatMap(({ from, to }) => (from === null ? [] : [{ from, to }]));
  const paths = pairs.map(({ from }) => from);
  const maxMs = Math.max(0, Math.min(RUNNING_MAX_MS, wanted.untilMs - deps.clock.monotonicMs()));
  const running = await locateClosures(deps, { workspaceId: workspace.id, paths, maxMs });
  const compared = await compareClosures(deps, {
    pairs,
    cacheIds: located.cacheIds,
    foreignPaths: new Map([...running.foreignPaths, ...located.foreignPaths]),
    gaps: findGaps(paths, running),
  });
  const indexes = new Map<ClosureDiffDto, number>();
  for (const diff of compared.values()) if (typeof diff !== "string") indexes.set(diff, indexes.size);
  return {
    workspace: workspace.name,
    agents: agents.map(({ name: agent, contact, from, to }) => {
      const known = from === null ? "nothing is known to run there yet" : compared.get(keyOf({ from, to }));
      if (known === undefined) throw new Error("a pair was not looked at");
      const found =
        typeof known === "string" ? { diff: null, why: known } : { diff: indexes.get(known) ?? null, why: null };
      return { agent, contact, from, to, ...found };
    }),
    diffs: [...indexes.keys()],
  };
}

/** A fault of what runs stops nobody: it is only not compared. */
function findGaps(paths: readonly StorePath[], running: Located): ReadonlyMap<StorePath, string> {
  const gaps = new Map<StorePath, string>();
  for (const path of new Set(paths)) {
    const gap = describeUnknownClosure(path, running);
    if (gap !== null) gaps.set(path, gap);
  }
  return gaps;
}

/** The system that runs, or the profile where it is none of a system. */
function findRunning(agent: AgentRow): StorePath | null {
  return decideRunning(agent.profile, machineStateSchema.parse(JSON.parse(agent.state)));
}

/** Of a running specialisation the system that it belongs to, because that is what is deployed. */
export function decideRunning(
  profile: string,
  state: Pick<MachineState, "profilePath" | "currentPath" | "currentBasePath">,
): StorePath | null {
  if (!isSystemProfile(profile)) return state.profilePath;
  return state.currentBasePath ?? state.currentPath ?? state.profilePath;
}
