/**
 * Starting rollouts: the whole request is checked, every fault is named at once, and then all its deployments exist or
 * none does.
 */
import type { z } from "zod";
import type { createRolloutSchema } from "../../api/rollouts.ts";
import { NixdeployError } from "../../errors.ts";
import { describeClash, type HealthCheck, storePathOf } from "../../health-check.ts";
import { parseAgentName, type TokenId } from "../../names.ts";
import { quoteExcerpt } from "../../nix/parse-error.ts";
import { parseStorePath, type StorePath } from "../../nix/store-path.ts";
import type { Random } from "../../runtime.ts";
import type { AgentRegistry } from "../agents/registry.ts";
import type { Bus } from "../bus.ts";
import { type CheckedClosures, type CompletenessDeps, checkClosures } from "../completeness/completeness.ts";
import { type AgentRow, listAgents } from "../database/agents.ts";
import type { RolloutRow } from "../database/deployments.ts";
import type { WorkspaceRow } from "../database/workspaces.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import { completePolicy, parseWorkspaceSettings } from "../workspaces/settings.ts";
import type { Dispatcher } from "./dispatcher.ts";
import type { Once } from "./once.ts";
import { EXPIRES_AFTER_DEFAULT_MS, FIRST_ATTEMPT, startRollout } from "./start-rollout.ts";

export type RolloutDeps = CompletenessDeps & {
  readonly writes: WriteQueue;
  readonly registry: AgentRegistry;
  readonly dispatcher: Dispatcher;
  readonly bus: Bus;
  readonly random: Random;
};

/** What checking a request takes. */
export type RolloutCheckDeps = CompletenessDeps & Pick<RolloutDeps, "registry">;

export type RolloutRequest = z.output<typeof createRolloutSchema>;

type Assignment = {
  readonly agent: AgentRow;
  readonly storePath: StorePath;
  readonly rollbackScript: StorePath | null;
  readonly healthChecks: readonly HealthCheck[];
};
type CheckedRequest = CheckedClosures & { readonly assignments: readonly Assignment[] };

/** @throws NixdeployError `refused` with every fault in its details; nothing has been started then */
export async function createRollout(
  deps: RolloutDeps,
  asked: {
    readonly request: RolloutRequest;
    readonly workspace: WorkspaceRow;
    readonly tokenId: TokenId | null;
    readonly once: Once | null;
  },
): Promise<RolloutRow> {
  const { request, workspace } = asked;
  const { assignments, sizes } = await checkRollout(deps, request, workspace);
  const settings = parseWorkspaceSettings(workspace);
  const policy = completePolicy(request.policy ?? {}, settings);
  const expiresMs = deps.clock.nowMs() + (request.expiresInMs ?? settings.expiresMs ?? EXPIRES_AFTER_DEFAULT_MS);
  return await startRollout(deps, {
    once: asked.once,
    workspace_id: workspace.id,
    token_id: asked.tokenId,
    description: request.description ?? null,
    origin: JSON.stringify(request.origin ?? {}),
    deployments: assignments.map(({ agent, storePath, rollbackScript, healthChecks }) => ({
      ...FIRST_ATTEMPT,
      expires_ms: expiresMs,
      lifts_quarantine: request.retry === true ? 1 : 0,
      agent_id: agent.id,
      store_path: storePath,
      mode: request.mode,
      rollback_script: rollbackScript,
      policy: JSON.stringify(policy),
      health_checks: JSON.stringify(healthChecks),
      closure_size_bytes: sizes.get(storePath) ?? 0,
    })),
  });
}

/** What is asked of which agent. @throws NixdeployError `refused` with every fault in its details */
export async function checkRollout(
  deps: RolloutCheckDeps,
  request: RolloutRequest,
  workspace: WorkspaceRow,
): Promise<CheckedRequest> {
  const checked = await checkRequest(deps, request, workspace);
  if (checked.faults.length === 0) return checked;
  throw new NixdeployError("refused", "cannot start the rollout: the spec is refused, nothing was started", {
    details: checked.faults,
    hint: "`nixdeploy agents` lists the agents; `nixdeploy push` brings paths into the cache.",
  });
}

async function checkRequest(
  deps: RolloutCheckDeps,
  request: RolloutRequest,
  workspace: WorkspaceRow,
): Promise<CheckedRequest> {
  const faults: string[] = [];
  const byName = new Map((await listAgents(deps.database, workspace.id)).map((agent) => [String(agent.name), agent]));
  const parsePath = (owner: string, text: string): StorePath | null => {
    try {
      return parseStorePath(text);
    } catch (error) {
      faults.push(`${owner}: ${error instanceof Error ? error.message : String(error)}`);
      return null;
    }
  };
  const scripts = new Map<string, StorePath | null>();
  for (const [system, text] of Object.entries(request.rollbackScript ?? {})) {
    scripts.set(system, parsePath(`rollbackScript for ${system}`, text));
  }
  const assignments: Assignment[] = [];
  const paths = new Set<StorePath | null>(scripts.values());
  for (const name of Object.keys(request.agentHealthChecks ?? {})) {
    if (!Object.hasOwn(request.agents, name))
      faults.push(`health checks for ${quoteExcerpt(name)}: it is not among the agents`);
  }
  for (const [name, text] of Object.entries(request.agents)) {
    const storePath = parsePath(`agent ${name}`, text);
    const agent = byName.get(name);
    paths.add(storePath);
    if (agent === undefined) faults.push(describeUnknownAgent(name, workspace));
    else if (request.requireOnline === true && deps.registry.find(agent.id) === null) {
      faults.push(`agent ${name}: it is not online, and --require-online was given`);
    }
    const healthChecks = [...(request.healthChecks ?? []), ...(request.agentHealthChecks?.[name] ?? [])];
    for (const check of healthChecks) paths.add(storePathOf(check));
    const clash = describeClash(healthChecks);
    if (clash !== null) faults.push(`agent ${name}: ${clash}`);
    if (agent === undefined || storePath === null) continue;
    assignments.push({ agent, storePath, rollbackScript: scripts.get(agent.system) ?? null, healthChecks });
  }
  if (Object.keys(request.agents).length === 0) faults.push("the spec names no agent");
  const closures = await checkClosures(deps, { workspaceId: workspace.id, paths });
  return { assignments, faults: [...faults, ...closures.faults], sizes: closures.sizes, located: closures.located };
}

function describeUnknownAgent(name: string, workspace: WorkspaceRow): string {
  try {
    parseAgentName(name);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return `agent ${name}: no such agent in workspace ${workspace.name} (an agent registers at its first contact)`;
}
