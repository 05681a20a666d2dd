/** /api/v1/agent-requests, -approvals and -rejections: keys that ask for names that are taken. For admins. */
import { z } from "zod";
import { agentSchema, enrolmentRequestListSchema, keyDecisionSchema } from "../../api/agents.ts";
import { NixdeployError } from "../../errors.ts";
import { approveKey, rejectKey } from "../agents/approve-key.ts";
import { loadSelectedAgents, requireOneWorkspace } from "../agents/select-agents.ts";
import { enrolmentRequestToDto } from "../convert.ts";
import { listEnrolmentRequests } from "../database/agent-keys.ts";
import type { AgentRow } from "../database/agents.ts";
import type { Services } from "../services.ts";
import { listedAgents } from "./agents.ts";
import { noteAct, type RouteContext, visibleWorkspaces, workspaceIdsFor } from "./context.ts";
import { LIST_PAGES, pageOf } from "./pages.ts";
import { defineRoute, NOTHING, type Route } from "./route.ts";

type Decision = z.output<typeof keyDecisionSchema>;

export function createAgentKeyRoutes(services: Services): readonly Route[] {
  const list = defineRoute({
    ...{ method: "GET", path: "/agent-requests", right: "administrate" },
    summary: "List the keys that ask for names that are taken, the newest for each name",
    query: z.object({ workspace: z.string().optional(), ...LIST_PAGES }),
    answers: { 200: enrolmentRequestListSchema },
    async handle(context, { query }) {
      const visible = await visibleWorkspaces(services, context, "administrate");
      const rows = await listEnrolmentRequests(services.database, [...visible.keys()]);
      const { page, next } = pageOf(rows, { ...query, cursorOf: (row) => [row.name, row.workspace_id] });
      return context.json({ requests: page.map((row) => enrolmentRequestToDto(row, visible)), next });
    },
  });
  const approve = defineRoute({
    ...{ method: "POST", path: "/agent-approvals", right: "administrate" },
    summary: "Give an agent the key that asks for its name; its old key is refused from then on",
    body: keyDecisionSchema,
    answers: { 200: agentSchema },
    async handle(context, { readBody }) {
      const decision = await readBody();
      const agent = await findAgent(services, context, decision);
      const approved = await approveKey(services, { agent, fingerprint: decision.fingerprint });
      noteAct(context, actOn(agent, `approved: key ${decision.fingerprint}`));
      services.log.info("agent key approved", { name: agent.name, fingerprint: decision.fingerprint });
      const [listed] = await listedAgents(
        services,
        [approved],
        await visibleWorkspaces(services, context, "administrate"),
      );
      return context.json(listed);
    },
  });
  const reject = defineRoute({
    ...{ method: "POST", path: "/agent-rejections", right: "administrate" },
    summary: "Refuse the key that asks for an agent's name, for good",
    body: keyDecisionSchema,
    answers: { 204: NOTHING },
    async handle(context, { readBody }) {
      const decision = await readBody();
      const agent = await findAgent(services, context, decision);
      await rejectKey(services, { agent, fingerprint: decision.fingerprint });
      noteAct(context, actOn(agent, `rejected: key ${decision.fingerprint}`));
      services.log.info("agent key rejected", { name: agent.name, fingerprint: decision.fingerprint });
      return context.body(null, 204);
    },
  });
  return [list, approve, reject];
}

/** For the audit log. */
function actOn({ workspace_id: workspaceId, name }: AgentRow, effect: string) {
  return { workspaceId, target: name, effect };
}

async function findAgent(
  services: Services,
  context: RouteContext,
  { name, workspace }: Pick<Decision, "name" | "workspace">,
): Promise<AgentRow> {
  const workspaceIds = await workspaceIdsFor(services, context, { name: workspace, right: "administrate" });
  const agents = await loadSelectedAgents(services.database, { selectors: [name], workspaceIds });
  requireOneWorkspace(agents);
  const [agent] = agents;
  if (agent === undefined) throw new NixdeployError("not-found", `cannot find the agent ${name}`);
  return agent;
}
