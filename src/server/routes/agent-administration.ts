/** What operators do to agents: a new name, labels, removal. For admins. */
import { z } from "zod";
import {
  agentListSchema,
  agentSchema,
  labelAgentsSchema,
  removeAgentsSchema,
  removedAgentsSchema,
  renameAgentSchema,
} from "../../api/agents.ts";
import { NixdeployError } from "../../errors.ts";
import { parseAgentName, type WorkspaceName } from "../../names.ts";
import type { Right } from "../access/authorization.ts";
import { labelAgents, renameAgent } from "../agents/change-agents.ts";
import { removeAgents } from "../agents/remove-agents.ts";
import { findAgentsNamed, loadSelectedAgents, requireOneWorkspace } from "../agents/select-agents.ts";
import type { AgentRow } from "../database/agents.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import { listedAgents } from "./agents.ts";
import { noteAct, type RouteContext, readId, visibleWorkspaces, workspaceIdsFor } from "./context.ts";
import { defineRoute, type Route } from "./route.ts";

export function createAgentAdministrationRoutes(services: Services): readonly Route[] {
  return [renameOne(services), labelSome(services), removeSome(services)];
}

function renameOne(services: Services): Route {
  return defineRoute({
    ...{ method: "PATCH", path: "/agents/:name", right: "administrate" },
    summary: "Give an agent another name; its history follows, its device may keep the old one",
    query: z.object({ workspace: z.string().optional() }),
    body: renameAgentSchema,
    answers: { 200: agentSchema },
    async handle(context, { readBody }) {
      const { agent, visible } = await findTargetAgent(services, context, "administrate");
      const { name } = await readBody();
      const renamed = await renameAgent(services, { agent, name });
      noteAct(context, { workspaceId: agent.workspace_id, target: agent.name, effect: `renamed to ${name}` });
      services.log.info("agent renamed", { from: agent.name, to: name });
      const [listed] = await listedAgents(services, [renamed], visible);
      return context.json(listed);
    },
  });
}

function labelSome(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/agent-labels", right: "administrate" },
    summary: "Set and take away the operator's labels of agents, of all that are selected or of none",
    body: labelAgentsSchema,
    answers: { 200: agentListSchema },
    async handle(context, { readBody }) {
      const { select: selectors, workspace: name, labels } = await readBody();
      const workspaceIds = await workspaceIdsFor(services, context, { name, right: "administrate" });
      const agents = await loadSelectedAgents(services.database, { selectors, workspaceIds });
      requireOneWorkspace(agents);
      const labeled = await labelAgents(services, { agents, labels });
      noteAct(context, { ...actOn(agents), effect: `labels: ${JSON.stringify(labels)}` });
      services.log.info("agents labeled", { agents: labeled.length });
      const visible = await visibleWorkspaces(services, context, "administrate");
      return context.json({ agents: await listedAgents(services, labeled, visible) });
    },
  });
}

function removeSome(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/agent-removals", right: "administrate" },
    summary: "Remove agents, all that are selected or none: their keys are refused from then on",
    body: removeAgentsSchema,
    answers: { 200: removedAgentsSchema },
    async handle(context, { readBody }) {
      const { select: selectors, admittedBy, workspace: name } = await readBody();
      if (selectors.length === 0 && admittedBy === undefined) {
        throw new NixdeployError("usage", "cannot remove agents: none is named");
      }
      const workspaceIds = await workspaceIdsFor(services, context, { name, right: "administrate" });
      const agents = await loadSelectedAgents(services.database, { selectors, admittedBy, workspaceIds });
      requireOneWorkspace(agents);
      await removeAgents(services, agents);
      const names = agents.map((agent) => agent.name);
      noteAct(context, { ...actOn(agents), effect: "removed" });
      services.log.info("agents removed", { agents: names.join(" ").slice(0, LOGGED_MAX) });
      return context.json({ removed: names });
    },
  });
}

/** For the audit log: these, which are all of one workspace. */
function actOn(agents: readonly AgentRow[]) {
  return { workspaceId: agents[0]?.workspace_id ?? null, target: agents.map((agent) => agent.name).join(" ") };
}

/** Characters of a list of names in a line of the coordinator's own log. */
const LOGGED_MAX = 200;

/** The agent that the path names. @throws NixdeployError `not-found`, `refused` when several workspaces have one */
export async function findTargetAgent(
  services: Services,
  context: RouteContext,
  right: Right,
): Promise<{ readonly agent: AgentRow; readonly visible: ReadonlyMap<string, WorkspaceName> }> {
  const visible = await visibleWorkspaces(services, context, right);
  const name = readId(() => parseAgentName(context.req.param("name") ?? ""));
  const found = await findAgentsNamed(services.database, { name, workspaceIds: visible.keys() });
  requireOneWorkspace(found);
  const [agent] = found;
  if (agent === undefined) throw notFound(`the agent ${name}`, "`nixdeploy agents` lists the agents.");
  return { agent, visible };
}
