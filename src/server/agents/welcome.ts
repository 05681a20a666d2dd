/** What an agent is told when it has logged in: who it is here, where it fetches from, and whether its login proves anything. */
import { isTerminal } from "../../deployment.ts";
import type { DeploymentId } from "../../names.ts";
import type { CoordinatorFrameInput, Hello } from "../../protocol.ts";
import type { Authenticator } from "../access/authentication.ts";
import type { AgentRow } from "../database/agents.ts";
import { findDeployment } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { findWorkspaceById } from "../database/workspaces.ts";
import type { ToldCaches } from "../workspaces/told-caches.ts";

export type WelcomeDeps = {
  readonly database: CoordinatorDatabase;
  readonly toldCaches: ToldCaches;
  readonly authenticator: Authenticator;
};

export async function makeWelcome(
  deps: WelcomeDeps,
  { agent, hello }: { readonly agent: AgentRow; readonly hello: Hello },
): Promise<CoordinatorFrameInput> {
  const workspace = await findWorkspaceById(deps.database, agent.workspace_id);
  if (workspace === null) throw new Error(`agent ${agent.name} belongs to no workspace`);
  return {
    kind: "welcome",
    agentId: agent.id,
    ...(agent.name === hello.name ? {} : { name: agent.name }),
    workspace: workspace.name,
    ...(await deps.toldCaches.describe(workspace.id)),
    readCredential: deps.authenticator.issueReadCredential(agent.id),
    ...(await findProved(deps.database, agent, hello)),
  };
}

/** What of a welcome says that this login proves a deployment: what the machine reports is what was asked for. */
async function findProved(
  database: CoordinatorDatabase,
  agent: AgentRow,
  { proof, state }: Hello,
): Promise<{ readonly proved?: DeploymentId }> {
  if (proof === undefined) return {};
  const row = await findDeployment(database, proof.deploymentId);
  if (row === null || row.agent_id !== agent.id) return {};
  // One that has ended well may have to prove itself once more: after the next reboot.
  if (isTerminal(row.state) && row.state !== "succeeded" && row.state !== "degraded") return {};
  const runs = [state.currentPath, state.currentBasePath, state.profilePath].includes(row.store_path);
  return runs ? { proved: row.id } : {};
}
