/** What starts again what was there: try again what failed, go back to what ran before, deploy an older rollout once more. */
import {
  redeploymentSchema,
  rollbackPlanAnswerSchema,
  rollbackPlanSchema,
  rollbackSchema,
} from "../../api/going-back.ts";
import { retrySchema, startedRolloutSchema } from "../../api/rollouts.ts";
import type { WorkspaceName } from "../../names.ts";
import type { RolloutRow } from "../database/deployments.ts";
import { listWorkspaces } from "../database/workspaces.ts";
import type { AgainRequest } from "../deployments/again.ts";
import { startOnce } from "../deployments/once.ts";
import { startRedeployment } from "../deployments/redeployments.ts";
import { startRetry } from "../deployments/retries.ts";
import { planRollbacks, startRollback } from "../deployments/rollbacks.ts";
import type { Services } from "../services.ts";
import { type RouteContext, workspaceIdsFor } from "./context.ts";
import { defineRoute, type Route } from "./route.ts";
import { answerStarted, readOnce, tokenIdOf } from "./starting.ts";

const STARTED = { 200: startedRolloutSchema, 201: startedRolloutSchema };

export function createAgainRoutes(services: Services): readonly Route[] {
  const retry = defineRoute({
    ...{ method: "POST", path: "/retries", right: "activate" },
    summary: "Start a rollout of what did not succeed of these",
    body: retrySchema,
    answers: STARTED,
    async handle(context, { readBody }) {
      const request = await readBody();
      return await start(services, context, {
        ...{ action: "retry", request },
        run: (asked) => startRetry(services, asked),
      });
    },
  });
  const rollback = defineRoute({
    ...{ method: "POST", path: "/rollbacks", right: "activate" },
    summary: "Start a rollout of what ran before these",
    body: rollbackSchema,
    answers: STARTED,
    async handle(context, { readBody }) {
      const request = await readBody();
      return await start(services, context, {
        ...{ action: "rollback", request },
        run: (asked) => startRollback(services, asked),
      });
    },
  });
  const redeploy = defineRoute({
    ...{ method: "POST", path: "/redeployments", right: "activate" },
    summary: "Start what older rollouts or deployments started once more",
    body: redeploymentSchema,
    answers: STARTED,
    async handle(context, { readBody }) {
      const request = await readBody();
      return await start(services, context, {
        ...{ action: "redeploy", request },
        run: (asked) => startRedeployment(services, { ...asked, agents: request.agents ?? [] }),
      });
    },
  });
  return [retry, rollback, createPlanRoute(services), redeploy];
}

function createPlanRoute(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/rollback-plans", right: "activate", isNoAct: true },
    summary: "Say what a rollback would start, and start nothing",
    body: rollbackPlanSchema,
    answers: { 200: rollbackPlanAnswerSchema },
    async handle(context, { readBody }) {
      const request = await readBody();
      const choices = await planRollbacks(services, {
        words: request.of,
        workspaceIds: await workspaceIdsFor(services, context, { name: request.workspace, right: "activate" }),
        nowMs: services.clock.nowMs(),
      });
      const names = new Map((await listWorkspaces(services.database)).map(({ id, name }) => [id, name]));
      const agents = choices.map(({ agent, row, deployment }) => ({
        ...{ agent, workspace: names.get(row.workspace_id), rollout: row.rollout_id },
        ...{ from: row.store_path, to: deployment.store_path },
      }));
      return context.json({ agents });
    },
  });
}

type Asked = {
  readonly of: readonly string[];
  readonly workspace?: WorkspaceName | undefined;
  readonly origin?: object | undefined;
};

async function start(
  services: Services,
  context: RouteContext,
  how: {
    readonly action: string;
    readonly request: Asked;
    readonly run: (request: AgainRequest) => Promise<RolloutRow>;
  },
): Promise<Response> {
  const { action, request } = how;
  const once = readOnce(services, context, { action, request });
  const asked: AgainRequest = {
    words: request.of,
    workspaceIds: await workspaceIdsFor(services, context, { name: request.workspace, right: "activate" }),
    tokenId: tokenIdOf(context),
    origin: request.origin === undefined ? null : JSON.stringify(request.origin),
    once,
    nowMs: services.clock.nowMs(),
  };
  return await answerStarted(services, context, await startOnce(services.database, once, () => how.run(asked)));
}
