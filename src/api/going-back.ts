/** Going back to what ran before, and deploying an older rollout once more, in the REST API. */
import { z } from "zod";
import { agentName, deploymentId, rolloutId } from "./fields.ts";
import { rolloutPlanSchema } from "./rollout-plans.ts";
import { originSchema, targets } from "./rollouts.ts";

/** POST /api/v1/rollbacks: a new rollout of what ran before. The answer is that of POST /api/v1/rollouts. */
export const rollbackSchema = z.object({ ...targets, origin: originSchema.optional() });
export type RollbackRequest = z.input<typeof rollbackSchema>;

/** POST /api/v1/redeployments: an older rollout, or a deployment of it, once more; only for some of its agents if so asked. */
const ofSomeAgents = { ...targets, agents: z.array(agentName).max(10_000).optional() };
export const redeploymentSchema = z.object({ ...ofSomeAgents, origin: originSchema.optional() });
export type RedeploymentRequest = z.input<typeof redeploymentSchema>;

/**
 * POST /api/v1/retry-plans, /rollback-plans, /redeployment-plans: take what the calls take that start it, refuse what those
 * refuse, say what it would change, and start nothing.
 */
export const againPlanRequestSchema = z.object(targets);
export type AgainPlanRequest = z.input<typeof againPlanRequestSchema>;
export const redeploymentPlanRequestSchema = z.object(ofSomeAgents);
export type RedeploymentPlanRequest = z.input<typeof redeploymentPlanRequestSchema>;

/** What a rollout says that it would change, and for each agent which deployment it is about. */
export const againPlanSchema = z
  .object({
    ...rolloutPlanSchema.shape,
    agents: z.array(
      z.object({
        ...rolloutPlanSchema.shape.agents.element.shape,
        /** The one that is tried again, gone back from, or deployed again. */
        deployment: deploymentId,
        rollout: rolloutId,
      }),
    ),
  })
  .meta({ id: "AgainPlan" });
export type AgainPlanDto = z.output<typeof againPlanSchema>;
