/** Going back to what ran before, and deploying an older rollout once more, in the REST API. */
import { z } from "zod";
import { storePathSchema } from "../protocol.ts";
import { agentName, rolloutId, workspaceName } from "./fields.ts";
import { originSchema, targets } from "./rollouts.ts";

/** POST /api/v1/rollbacks: a new rollout of what ran before. The answer is that of POST /api/v1/rollouts. */
export const rollbackSchema = z.object({ ...targets, origin: originSchema.optional() });
export type RollbackRequest = z.input<typeof rollbackSchema>;

/** POST /api/v1/rollback-plans: what a rollback would start; nothing is started. */
export const rollbackPlanSchema = z.object(targets);
export type RollbackPlanRequest = z.input<typeof rollbackPlanSchema>;

export const rollbackPlanAnswerSchema = z.object({
  agents: z.array(
    z.object({
      agent: agentName,
      workspace: workspaceName,
      /** The rollout that is gone back from. */
      rollout: rolloutId,
      from: storePathSchema,
      to: storePathSchema,
    }),
  ),
});
export type RollbackPlan = z.output<typeof rollbackPlanAnswerSchema>["agents"][number];

/** POST /api/v1/redeployments: an older rollout, or a deployment of it, once more; only for some of its agents if so asked. */
export const redeploymentSchema = z.object({
  ...targets,
  agents: z.array(agentName).max(10_000).optional(),
  origin: originSchema.optional(),
});
export type RedeploymentRequest = z.input<typeof redeploymentSchema>;
