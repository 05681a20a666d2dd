/** /api/v1/rollouts and /api/v1/deployments: start, cancel, look at, follow, read the log. Starting again: `again.ts`. */
import { z } from "zod";
import { parseAgentSelector } from "../../agent-selector.ts";
import { deploymentListSchema, deploymentSchema, logPageSchema } from "../../api/deployments.ts";
import {
  cancellationSchema,
  cancelledSchema,
  createRolloutSchema,
  rolloutSchema,
  startedRolloutSchema,
} from "../../api/rollouts.ts";
import { type AgentId, parseAgentName, parseDeploymentId, parseRolloutId } from "../../names.ts";
import { mayDo, type Right } from "../access/authorization.ts";
import { loadSelectedAgents } from "../agents/select-agents.ts";
import { deploymentsToDtos, deploymentToDto, rolloutToDto } from "../convert.ts";
import { findAgentByName, findRemovedAgentByName } from "../database/agents.ts";
import {
  type DeploymentRow,
  findDeployment,
  findRollout,
  listDeployments,
  type RolloutRow,
} from "../database/deployments.ts";
import { loadLogLines } from "../database/logs.ts";
import { cancelDeployments } from "../deployments/cancellations.ts";
import { followRollout } from "../deployments/follow.ts";
import { startOnce } from "../deployments/once.ts";
import { createRollout } from "../deployments/rollouts.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import {
  findTargetWorkspace,
  noteAct,
  type RouteContext,
  readId,
  visibleWorkspaces,
  workspaceIdsFor,
} from "./context.ts";
import { pageParams, parseCursor, toPage } from "./pages.ts";
import { countParam, defineRoute, EVENT_STREAM, type Route } from "./route.ts";
import { answerStarted, readOnce, tokenIdOf } from "./starting.ts";

const LIST_LIMIT_MAX = 1_000;
const LOG_LIMIT_MAX = 10_000;
/** Characters of a list of ids in a line of the coordinator's own log. */
const LOGGED_MAX = 200;

export function createDeploymentRoutes(services: Services): readonly Route[] {
  return [...createRolloutRoutes(services), ...createCancelRoutes(services), ...createReadingRoutes(services)];
}

function createRolloutRoutes(services: Services): readonly Route[] {
  const start = defineRoute({
    ...{ method: "POST", path: "/rollouts", right: "activate" },
    summary: "Start deployments, all of them or none",
    body: createRolloutSchema,
    answers: { 200: startedRolloutSchema, 201: startedRolloutSchema },
    async handle(context, { readBody }) {
      const request = await readBody();
      const workspace = await findTargetWorkspace(services, context, { name: request.workspace, right: "activate" });
      const once = readOnce(services, context, { action: "rollout", request });
      const started = await startOnce(services.database, once, () =>
        createRollout(services, { request, workspace, tokenId: tokenIdOf(context), once }),
      );
      return await answerStarted(services, context, started);
    },
  });
  const show = defineRoute({
    ...{ method: "GET", path: "/rollouts/:id", right: "watch" },
    summary: "Show a rollout and its deployments as they are now",
    answers: { 200: rolloutSchema },
    async handle(context) {
      return context.json(await rolloutToDto(services, await findTargetRollout(services, context, "watch")));
    },
  });
  const follow = defineRoute({
    ...{ method: "GET", path: "/rollouts/:id/follow", right: "watch" },
    summary: "Follow a rollout to its end, log lines included; resumable by Last-Event-ID",
    answers: { 200: EVENT_STREAM },
    async handle(context) {
      const rollout = await findTargetRollout(services, context, "watch");
      return followRollout(services, { rolloutId: rollout.id, only: null, request: context.req.raw });
    },
  });
  return [start, show, follow];
}

function createCancelRoutes(services: Services): readonly Route[] {
  const cancel = defineRoute({
    ...{ method: "POST", path: "/cancellations", right: "activate" },
    summary: "Cancel what waits of these, and ask what runs to stop",
    body: cancellationSchema,
    answers: { 200: cancelledSchema },
    async handle(context, { readBody }) {
      const request = await readBody();
      const rows = await cancelDeployments(services, {
        words: request.of,
        workspaceIds: await workspaceIdsFor(services, context, { name: request.workspace, right: "activate" }),
      });
      const ids = rows.map((row) => row.id).join(" ");
      noteAct(context, {
        workspaceId: rows[0]?.workspace_id ?? null,
        target: request.of.join(" "),
        effect: `cancelled: ${ids}`,
      });
      services.log.info("cancelled", { deployments: ids.slice(0, LOGGED_MAX) });
      return context.json({ deployments: await deploymentsToDtos(services, rows) });
    },
  });
  return [cancel];
}

function createReadingRoutes(services: Services): readonly Route[] {
  const list = defineRoute({
    ...{ method: "GET", path: "/deployments", right: "watch" },
    summary: "List deployments, newest first",
    query: z.object({
      workspace: z.string().optional(),
      agent: z.string().optional(),
      ...pageParams({ fallback: 50, max: LIST_LIMIT_MAX }),
    }),
    answers: { 200: deploymentListSchema },
    async handle(context, { query }) {
      const workspaceIds = [...(await visibleWorkspaces(services, context, "watch")).keys()];
      const { agent: selector, limit } = query;
      const rows = await listDeployments(services.database, {
        ...(selector === undefined
          ? { workspaceIds }
          : { agentIds: await findAgentIds(services, { workspaceIds, selector }) }),
        beforeNumber: parseCursor(query.after, z.tuple([z.number().int()]))?.[0] ?? null,
        limit: limit + 1,
      });
      const { page, next } = toPage(rows, { limit, cursorOf: ({ number }) => [number] });
      return context.json({ deployments: await deploymentsToDtos(services, page), next });
    },
  });
  const show = defineRoute({
    ...{ method: "GET", path: "/deployments/:id", right: "watch" },
    summary: "Show a deployment as it is now",
    answers: { 200: deploymentSchema },
    async handle(context) {
      return context.json(await deploymentToDto(services, await findTargetDeployment(services, context, "watch")));
    },
  });
  const log = defineRoute({
    ...{ method: "GET", path: "/deployments/:id/log", right: "watch" },
    summary: "Read the log of a deployment in pages, from line `after` on",
    query: z.object({
      limit: countParam({ fallback: 1_000, max: LOG_LIMIT_MAX }),
      after: countParam({ fallback: 0, max: Number.MAX_SAFE_INTEGER }),
    }),
    answers: { 200: logPageSchema },
    async handle(context, { query: { limit, after } }) {
      const row = await findTargetDeployment(services, context, "watch");
      const lines = await loadLogLines(services.database, { deploymentId: row.id, afterN: after, limit });
      return context.json({ lines, next: lines.length < limit ? null : (lines.at(-1)?.n ?? null) });
    },
  });
  const follow = defineRoute({
    ...{ method: "GET", path: "/deployments/:id/follow", right: "watch" },
    summary: "Follow a deployment to its end, log lines included; resumable by Last-Event-ID",
    answers: { 200: EVENT_STREAM },
    async handle(context) {
      const row = await findTargetDeployment(services, context, "watch");
      return followRollout(services, { rolloutId: row.rollout_id, only: row.id, request: context.req.raw });
    },
  });
  return [list, show, log, follow];
}

/** Those that are selected; those that were removed only by their names, for their history. */
async function findAgentIds(
  services: Services,
  query: { readonly workspaceIds: readonly string[]; readonly selector: string },
): Promise<readonly AgentId[]> {
  const { workspaceIds, selector } = query;
  const chosen = readId(() => parseAgentSelector(selector));
  if (chosen.kind !== "name") {
    const agents = await loadSelectedAgents(services.database, { selectors: [selector], workspaceIds });
    return agents.map(({ id }) => id);
  }
  const name = readId(() => parseAgentName(selector));
  const found: AgentId[] = [];
  for (const workspaceId of workspaceIds) {
    const target = { workspaceId, name };
    const agent =
      (await findAgentByName(services.database, target)) ?? (await findRemovedAgentByName(services.database, target));
    if (agent !== null) found.push(agent.id);
  }
  return found;
}

async function findTargetRollout(services: Services, context: RouteContext, right: Right): Promise<RolloutRow> {
  const id = readId(() => parseRolloutId(context.req.param("id") ?? ""));
  const row = await findRollout(services.database, id);
  if (row === null || !mayDo(context.get("principal"), right, row.workspace_id)) throw notFound(`the rollout ${id}`);
  return row;
}

async function findTargetDeployment(services: Services, context: RouteContext, right: Right): Promise<DeploymentRow> {
  const id = readId(() => parseDeploymentId(context.req.param("id") ?? ""));
  const row = await findDeployment(services.database, id);
  if (row === null || !mayDo(context.get("principal"), right, row.workspace_id)) throw notFound(`the deployment ${id}`);
  return row;
}
