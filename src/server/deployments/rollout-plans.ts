/** What a rollout would change, without starting it: the same checks, then each agent's closures compared. */
import type { ClosureDiffDto, RolloutPlanDto } from "../../api/rollout-plans.ts";
import { isSystemProfile } from "../../nix/profile.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { type MachineState, machineStateSchema } from "../../protocol.ts";
import type { AgentRow } from "../database/agents.ts";
import type { WorkspaceRow } from "../database/workspaces.ts";
import { compareClosures, keyOf } from "./compare-closures.ts";
import { checkRollout, type RolloutCheckDeps, type RolloutRequest } from "./rollouts.ts";

/** @throws NixdeployError `refused` with every fault, as the rollout itself would be */
export async function planRollout(
  deps: RolloutCheckDeps,
  asked: { readonly request: RolloutRequest; readonly workspace: WorkspaceRow },
): Promise<RolloutPlanDto> {
  const { request, workspace } = asked;
  const { assignments } = await checkRollout(deps, request, workspace);
  return await compareAgents(deps, {
    workspace,
    changes: assignments.map(({ agent, storePath: to }) => ({ agent, to })),
  });
}

/** What each agent runs, held against what it would get. In the order of `changes`. */
export async function compareAgents(
  deps: RolloutCheckDeps,
  wanted: {
    readonly workspace: WorkspaceRow;
    readonly changes: readonly { readonly agent: AgentRow; readonly to: StorePath }[];
  },
): Promise<RolloutPlanDto> {
  const { workspace } = wanted;
  const agents = wanted.changes.map(({ agent, to }) => ({
    name: agent.name,
    contact: deps.registry.contact({ agentId: agent.id, lastSeenMs: agent.last_seen_ms }),
    from: findRunning(agent),
    to,
  }));
  const pairs = agents.flatMap(({ from, to }) => (from === null ? [] : [{ from, to }]));
  const compared = await compareClosures(deps, { workspaceId: workspace.id, pairs });
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
