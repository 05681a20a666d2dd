/** Asking what a rollout would change. */
import { rolloutPlanSchema } from "../../api/rollout-plans.ts";
import { createRolloutSchema } from "../../api/rollouts.ts";
import { planRollout } from "../deployments/rollout-plans.ts";
import type { Services } from "../services.ts";
import { findTargetWorkspace } from "./context.ts";
import { defineRoute, type Route } from "./route.ts";

export function createRolloutPlanRoutes(services: Services): readonly Route[] {
  const plan = defineRoute({
    ...{ method: "POST", path: "/rollout-plans", right: "activate", isNoAct: true },
    summary: "Say what a rollout would change on each agent, and start nothing",
    body: createRolloutSchema,
    answers: { 200: rolloutPlanSchema },
    async handle(context, { readBody }) {
      const request = await readBody();
      const workspace = await findTargetWorkspace(services, context, { name: request.workspace, right: "activate" });
      return context.json(await planRollout(services, { request, workspace }));
    },
  });
  return [plan];
}
