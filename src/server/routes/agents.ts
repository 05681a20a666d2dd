import type { StatusDto } from "../../api.ts";
import { agentToDto, contactOf } from "../convert.ts";
import { listAgents } from "../database/agents.ts";
import { countDeployments, loadLatestDeployments, RUNNING_STATES } from "../database/deployments.ts";
import type { Services } from "../services.ts";
import { createRouter, visibleWorkspaces } from "./context.ts";

export function createAgentRoutes(services: Services) {
  const routes = createRouter();
  routes.get("/agents", async (context) => {
    const workspaces = await visibleWorkspaces(services, context, "watch");
    const agents = (await listAgents(services.database, null)).filter((agent) => workspaces.has(agent.workspace_id));
    const latest = await loadLatestDeployments(
      services.database,
      agents.map((agent) => agent.id),
    );
    return context.json({
      agents: agents.map((agent) =>
        agentToDto(services, { agent, latest: latest.get(agent.id), workspace: workspaces.get(agent.workspace_id) }),
      ),
    });
  });
  routes.get("/status", async (context) => {
    const workspaces = await visibleWorkspaces(services, context, "watch");
    const counts = { online: 0, offline: 0, unknown: 0 };
    for (const agent of await listAgents(services.database, null)) {
      if (workspaces.has(agent.workspace_id)) counts[contactOf(services, agent)] += 1;
    }
    const workspaceIds = [...workspaces.keys()];
    const status: StatusDto = {
      version: services.version,
      url: services.publicUrl(),
      startedAt: new Date(services.startedMs).toISOString(),
      workspaces: [...workspaces.values()],
      agents: counts,
      deploymentsRunning: await countDeployments(services.database, { workspaceIds, states: RUNNING_STATES }),
      deploymentsQueued: await countDeployments(services.database, { workspaceIds, states: ["queued"] }),
    };
    return context.json(status);
  });
  return routes;
}
