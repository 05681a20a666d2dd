/**
 * Deleting workspaces and caches: who may not be deleted without force, what that would take along, and the transaction
 * after which nobody finds it any more. What is left of it then is taken away in the background (`removals.ts`).
 */
import type { DeletedCache } from "../../api/caches.ts";
import type { DeletedWorkspace } from "../../api/workspaces.ts";
import { NixdeployError } from "../../errors.ts";
import { formatCount } from "../../quantity.ts";
import type { Clock } from "../../runtime.ts";
import { TOKENS_TOPIC } from "../access/authentication.ts";
import type { AgentRegistry } from "../agents/registry.ts";
import type { Bus } from "../bus.ts";
import { type AgentRow, listAgents } from "../database/agents.ts";
import { type CacheRow, countPaths, listWorkspaceCaches } from "../database/caches.ts";
import { removeKeyVouchers } from "../database/key-vouchers.ts";
import { markCacheDeleted, markWorkspaceDeleted } from "../database/removals.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { countValidTokens } from "../database/tokens.ts";
import { countWorkspaceDeployments, type WorkspaceRow } from "../database/workspaces.ts";
import type { Removals } from "./removals.ts";

export type DeletionDeps = {
  readonly database: CoordinatorDatabase;
  readonly registry: AgentRegistry;
  readonly bus: Bus;
  readonly removals: Removals;
  readonly clock: Clock;
};

const NAMES_SHOWN_MAX = 5;

/**
 * When it returns, its agents are disconnected and unknown, its tokens are revoked with their streams, and its caches
 * answer nobody.
 * @throws NixdeployError `conflict` when agents are bound to it and force is not given
 */
export async function deleteWorkspace(
  deps: DeletionDeps,
  asked: { readonly workspace: WorkspaceRow; readonly force: boolean },
): Promise<DeletedWorkspace> {
  const { workspace, force } = asked;
  const nowMs = deps.clock.nowMs();
  const { agents, deleted } = await deps.database.transaction().execute(async (transaction) => {
    const bound = await listAgents(transaction, workspace.id);
    const contents = await describeContents(transaction, { workspace, agents: bound.length, nowMs });
    if (bound.length > 0 && !force) throw agentsBound(contents, bound);
    await markWorkspaceDeleted(transaction, { id: workspace.id, atMs: nowMs });
    return { agents: bound, deleted: contents };
  });
  for (const agent of agents) deps.registry.find(agent.id)?.close("its workspace was deleted");
  deps.bus.publish(TOKENS_TOPIC);
  deps.removals.begin();
  return deleted;
}

/** @throws NixdeployError `conflict` for a default, and for one that has paths when force is not given */
export async function deleteCache(
  deps: Pick<DeletionDeps, "database" | "removals" | "clock">,
  asked: { readonly cache: CacheRow; readonly force: boolean },
): Promise<DeletedCache> {
  const { cache, force } = asked;
  const { name } = cache;
  const deleted = await deps.database.transaction().execute(async (transaction) => {
    const [first] = await listWorkspaceCaches(transaction, cache.workspace_id);
    if (first?.id === cache.id) {
      throw new NixdeployError("conflict", `cannot delete the cache ${name}: it is the default of its workspace`, {
        hint: "Make another one the default first: nixdeploy cache set OTHER --default",
      });
    }
    const paths = await countPaths(transaction, cache.id);
    if (paths > 0 && !force) {
      throw new NixdeployError("conflict", `cannot delete the cache ${name}: it has ${formatCount(paths, "path")}`, {
        hint: "--force deletes it with all of them and their files; devices and people that need them find them no more.",
      });
    }
    await markCacheDeleted(transaction, { id: cache.id, atMs: deps.clock.nowMs() });
    // Another one may get its name, and they were not about its keys.
    await removeKeyVouchers(transaction, { workspaceId: cache.workspace_id, cacheName: name });
    return { name, paths };
  });
  deps.removals.begin();
  return deleted;
}

async function describeContents(
  transaction: CoordinatorDatabase,
  of: { readonly workspace: WorkspaceRow; readonly agents: number; readonly nowMs: number },
): Promise<DeletedWorkspace> {
  const { workspace, agents, nowMs } = of;
  const caches: DeletedWorkspace["caches"] = [];
  for (const { id, name } of await listWorkspaceCaches(transaction, workspace.id)) {
    caches.push({ name, paths: await countPaths(transaction, id) });
  }
  return {
    name: workspace.name,
    agents,
    tokens: await countValidTokens(transaction, { workspaceId: workspace.id, nowMs }),
    caches,
    deployments: await countWorkspaceDeployments(transaction, workspace.id),
  };
}

function agentsBound(contents: DeletedWorkspace, agents: readonly AgentRow[]): NixdeployError {
  const names = agents.slice(0, NAMES_SHOWN_MAX).map(({ name }) => name);
  const more = agents.length > names.length ? ` and ${agents.length - names.length} more` : "";
  const bound = agents.length === 1 ? "1 agent is" : `${agents.length} agents are`;
  const caches = contents.caches.map(({ name, paths }) => `the cache ${name} with ${formatCount(paths, "path")}`);
  return new NixdeployError(
    "conflict",
    `cannot delete the workspace ${contents.name}: ${bound} bound to it (${names.join(", ")}${more})`,
    {
      hint:
        `--force disconnects and forgets them, revokes ${formatCount(contents.tokens, "token")}, and deletes ` +
        `${caches.join(", ")}, and ${formatCount(contents.deployments, "deployment")} with their logs. ` +
        "What runs on the devices stays as it is. It cannot be undone.",
    },
  );
}
