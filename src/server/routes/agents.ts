/** /api/v1/agents and /api/v1/status: who is there, and what runs. */
import { z } from "zod";
import { type AgentDto, agentListSchema, SELECTORS_MAX } from "../../api/agents.ts";
import { tokenId } from "../../api/fields.ts";
import { LATEST_ROLLOUTS_MAX, type StatusDto, statusSchema } from "../../api/status.ts";
import { NixdeployError } from "../../errors.ts";
import type { WorkspaceName } from "../../names.ts";
import { loadSelectedAgents } from "../agents/select-agents.ts";
import { agentToDto, rolloutFactsToDto } from "../convert.ts";
import { listAgentPeaks } from "../database/agent-peaks.ts";
import type { AgentRow } from "../database/agents.ts";
import { listSeenAgents } from "../database/counts.ts";
import {
  countDeployments,
  listLatestRollouts,
  loadLatestDeployments,
  loadRecentDeployments,
  RUNNING_STATES,
} from "../database/deployments.ts";
import { countStalled } from "../database/stalls.ts";
import type { Services } from "../services.ts";
import { visibleWorkspaces } from "./context.ts";
import { pageOf, pageParams } from "./pages.ts";
import { defineRoute, type Route } from "./route.ts";

const PAGE_DEFAULT = 1_000;
const PAGE_MAX = 1_000;

export function createAgentRoutes(services: Services): readonly Route[] {
  const list = defineRoute({
    ...{ method: "GET", path: "/agents", right: "watch" },
    summary: "List the agents and what really runs on their machines",
    query: z.object({
      workspace: z.string().optional(),
      select: z.string().optional(),
      admittedBy: tokenId.optional(),
      ...pageParams({ fallback: PAGE_DEFAULT, max: PAGE_MAX }),
    }),
    answers: { 200: agentListSchema },
    async handle(context, { query }) {
      const workspaces = await visibleWorkspaces(services, context, "watch");
      const agents = await loadSelectedAgents(services.database, {
        selectors: splitSelectors(query.select),
        admittedBy: query.admittedBy,
        workspaceIds: [...workspaces.keys()],
      });
      const { page, next } = pageOf(agents, { ...query, cursorOf: ({ name, id }) => [name, id] });
      return context.json({ agents: await listedAgents(services, page, workspaces), next });
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
      for (const { id: agentId, workspaceId, lastSeenMs } of await listSeenAgents(services.database)) {
        if (workspaces.has(workspaceId)) counts[services.registry.contact({ agentId, lastSeenMs })] += 1;
      }
      const workspaceIds = [...workspaces.keys()];
      const latest = await listLatestRollouts(services.database, { workspaceIds, limit: LATEST_ROLLOUTS_MAX });
      const answer: StatusDto = {
        version: services.version,
        url: services.publicUrl(),
        startedAt: new Date(services.startedMs).toISOString(),
        workspaces: [...workspaces.values()],
        agents: counts,
        deploymentsRunning: await countDeployments(services.database, { workspaceIds, states: RUNNING_STATES }),
        deploymentsStalled: await countStalled(services.database, workspaceIds),
        deploymentsQueued: await countDeployments(services.database, { workspaceIds, states: ["queued"] }),
        latestRollouts: await Promise.all(latest.map((row) => rolloutFactsToDto(services, row))),
        agentPeaks: await listPeaks(services, workspaces),
      };
      return context.json(answer);
    },
  });
  return [list, status];
}

/** None of them has a comma. @throws NixdeployError `usage` */
function splitSelectors(text: string | undefined): readonly string[] {
  const selectors = text === undefined ? [] : text.split(",");
  if (selectors.length <= SELECTORS_MAX) return selectors;
  throw new NixdeployError("usage", `cannot list the agents: there are more than ${SELECTORS_MAX} selectors`);
}

/** @param workspaces their names by id */
export async function listedAgents(
  services: Services,
  agents: readonly AgentRow[],
  workspaces: ReadonlyMap<string, WorkspaceName>,
): Promise<AgentDto[]> {
  const ids = agents.map((agent) => agent.id);
  const latest = await loadLatestDeployments(services.database, ids);
  const recent = await loadRecentDeployments(services.database, ids);
  return agents.map((agent) =>
    agentToDto(services, {
      ...{ agent, latest: latest.get(agent.id), recent: recent(agent.id) },
      workspace: workspaces.get(agent.workspace_id),
    }),
  );
}

async function listPeaks(
  services: Services,
  workspaces: ReadonlyMap<string, WorkspaceName>,
): Promise<StatusDto["agentPeaks"]> {
  await services.peaks.save();
  const rows = await listAgentPeaks(services.database, [...workspaces.keys()]);
  return rows.flatMap(({ workspace_id, month, peak, at_ms }) => {
    const workspace = workspaces.get(workspace_id);
    return workspace === undefined ? [] : [{ workspace, month, agents: peak, at: new Date(at_ms).toISOString() }];
  });
}
