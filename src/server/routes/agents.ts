import { z } from "zod";
import { type AgentDto, agentListSchema } from "../../api/agents.ts";
import { type StatusDto, statusSchema } from "../../api/status.ts";
import { agentToDto, contactOf } from "../convert.ts";
import { listAgents } from "../database/agents.ts";
import {
  countDeployments,
  loadLatestDeployments,
  loadRecentDeployments,
  RUNNING_STATES,
} from "../database/deployments.ts";
import type { Services } from "../services.ts";
import { visibleWorkspaces } from "./context.ts";
import { defineRoute, type Route } from "./route.ts";

export function createAgentRoutes(services: Services): readonly Route[] {
  const list = defineRoute({
    ...{ method: "GET", path: "/agents", right: "watch" },
    summary: "List the agents and what really runs on their machines",
    query: z.object({ workspace: z.string().optional() }),
    answers: { 200: agentListSchema },
    async handle(context) {
      const workspaces = await visibleWorkspaces(services, context, "watch");
      const agents = (await listAgents(services.database, null)).filter((agent) => workspaces.has(agent.workspace_id));
      const latest = await loadLatestDeployments(
        services.database,
        agents.map((agent) => agent.id),
      );
      const listed: AgentDto[] = [];
      for (const agent of agents) {
        const recent = await loadRecentDeployments(services.database, agent.id);
        const workspace = workspaces.get(agent.workspace_id);
        listed.push(agentToDto(services, { agent, latest: latest.get(agent.id), recent, workspace }));
      }
      return context.json({ agents: listed });
    },
  });
  const status = defineRoute({
    ...{ method: "GET", path: "/status", right: "watch" },
    summary: "Say what this coordinator is and how much it has to do",
    query: z.object({ workspace: z.string().optional() }),
    answers: { 200: statusSchema },
    async handle(context) {
      const workspaces = await visibleWorkspaces(services, context, "watch");
      const counts = { online: 0, offline: 0, unknown: 0 };
      for (const agent of await listAgents(services.database, null)) {
        if (workspaces.has(agent.workspace_id)) counts[contactOf(services, agent)] += 1;
      }
      const workspaceIds = [...workspaces.keys()];
      const answer: StatusDto = {
        version: services.version,
        url: services.publicUrl(),
        startedAt: new Date(services.startedMs).toISOString(),
        workspaces: [...workspaces.values()],
        agents: counts,
        deploymentsRunning: await countDeployments(services.database, { workspaceIds, states: RUNNING_STATES }),
        deploymentsQueued: await countDeployments(services.database, { workspaceIds, states: ["queued"] }),
      };
      return context.json(answer);
    },
  });
  return [list, status];
}
