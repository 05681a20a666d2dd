/**
 * What starts again what was there: try again what failed, go back to what ran before, deploy an older rollout once more.
 * Each also as a plan: what it would change, without starting it.
 */
import {
  againPlanRequestSchema,
  againPlanSchema,
  redeploymentPlanRequestSchema,
  redeploymentSchema,
  rollbackSchema,
} from "../../api/going-back.ts";
import { retrySchema, startedRolloutSchema } from "../../api/rollouts.ts";
import type { WorkspaceName } from "../../names.ts";
import { type Again, type AgainRequest, type Named, planAgain, startAgain } from "../deployments/again.ts";
import { startOnce } from "../deployments/once.ts";
import { chooseRedeployments } from "../deployments/redeployments.ts";
import { chooseRetries } from "../deployments/retries.ts";
import { chooseRollbacks } from "../deployments/rollbacks.ts";
import type { Services } from "../services.ts";
import { type RouteContext, workspaceIdsFor } from "./context.ts";
import { defineRoute, type Route } from "./route.ts";
import { answerStarted, readOnce, tokenIdOf } from "./starting.ts";

const START = {
  method: "POST",
  right: "activate",
  answers: { 200: startedRolloutSchema, 201: startedRolloutSchema },
} as const;
const PLAN = { method: "POST", right: "activate", isNoAct: true, answers: { 200: againPlanSchema } } as const;

export function createAgainRoutes(services: Services): readonly Route[] {
  return [...createStartRoutes(services), ...createPlanRoutes(services)];
}

function createStartRoutes(services: Services): readonly Route[] {
  const { database } = services;
  const retry = defineRoute({
    ...{ ...START, path: "/retries", body: retrySchema },
    summary: "Start a rollout of what did not succeed of these",
    async handle(context, { readBody }) {
      const request = await readBody();
      const how = { action: "retry", request, choose: (named: Named) => chooseRetries(database, named) };
      return await start(services, context, how);
    },
  });
  const rollback = defineRoute({
    ...{ ...START, path: "/rollbacks", body: rollbackSchema },
    summary: "Start a rollout of what ran before these",
    async handle(context, { readBody }) {
      const request = await readBody();
      const how = { action: "rollback", request, choose: (named: Named) => chooseRollbacks(database, named) };
      return await start(services, context, how);
    },
  });
  const redeploy = defineRoute({
    ...{ ...START, path: "/redeployments", body: redeploymentSchema },
    summary: "Start what older rollouts or deployments started once more",
    async handle(context, { readBody }) {
      const request = await readBody();
      const { agents = [] } = request;
      const choose = (named: Named) => chooseRedeployments(database, { ...named, agents });
      return await start(services, context, { action: "redeploy", request, choose });
    },
  });
  return [retry, rollback, redeploy];
}

function createPlanRoutes(services: Services): readonly Route[] {
  const { database } = services;
  const retry = defineRoute({
    ...{ ...PLAN, path: "/retry-plans", body: againPlanRequestSchema },
    summary: "Say what a retry would change on each agent, and start nothing",
    async handle(context, { readBody }) {
      const named = await readNamed(services, context, await readBody());
      return context.json(await planAgain(services, await chooseRetries(database, named)));
    },
  });
  const rollback = defineRoute({
    ...{ ...PLAN, path: "/rollback-plans", body: againPlanRequestSchema },
    summary: "Say what a rollback would change on each agent, and start nothing",
    async handle(context, { readBody }) {
      const named = await readNamed(services, context, await readBody());
      return context.json(await planAgain(services, await chooseRollbacks(database, named)));
    },
  });
  const redeploy = defineRoute({
    ...{ ...PLAN, path: "/redeployment-plans", body: redeploymentPlanRequestSchema },
    summary: "Say what deploying older rollouts or deployments once more would change, and start nothing",
    async handle(context, { readBody }) {
      const { agents = [], ...request } = await readBody();
      const named = await readNamed(services, context, request);
      return context.json(await planAgain(services, await chooseRedeployments(database, { ...named, agents })));
    },
  });
  return [retry, rollback, redeploy];
}

type Asked = {
  readonly of: readonly string[];
  readonly workspace?: WorkspaceName | undefined;
  readonly origin?: object | undefined;
};

async function readNamed(services: Services, context: RouteContext, { of, workspace }: Asked): Promise<Named> {
  const workspaceIds = await workspaceIdsFor(services, context, { name: workspace, right: "activate" });
  return { words: of, workspaceIds, nowMs: services.clock.nowMs() };
}

async function start(
  services: Services,
  context: RouteContext,
  how: {
    readonly action: string;
    readonly request: Asked;
    readonly choose: (named: Named) => Promise<Again>;
  },
): Promise<Response> {
  const { action, request, choose } = how;
  const once = readOnce(services, context, { action, request });
  const asked: AgainRequest = {
    ...(await readNamed(services, context, request)),
    tokenId: tokenIdOf(context),
    origin: request.origin === undefined ? null : JSON.stringify(request.origin),
    once,
  };
  const run = async () => await startAgain(services, asked, await choose(asked));
  return await answerStarted(services, context, await startOnce(services.database, once, run));
}
