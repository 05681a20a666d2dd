/** Starting, retrying and cancelling rollouts in the REST API. */
import { z } from "zod";
import { MODES } from "../deployment.ts";
import { specHealthCheckListSchema } from "../health-check.ts";
import { activationPolicySchema } from "../protocol.ts";
import { deploymentSchema } from "./deployments.ts";
import { rolloutId, time, tokenId, workspaceName } from "./fields.ts";

/** Facts that CI knows about itself; recorded with every deployment of a rollout. */
export const originSchema = z
  .object({
    repository: z.string().max(300).optional(),
    commit: z.string().max(100).optional(),
    ref: z.string().max(300).optional(),
    runUrl: z.string().max(1_000).optional(),
    actor: z.string().max(200).optional(),
  })
  .meta({ id: "Origin" });

export const ROLLOUT_DESCRIPTION_LENGTH_MAX = 1_000;

export const AGENTS_PER_ROLLOUT_MAX = 10_000;
const SYSTEMS_MAX = 100;
/** Ten years. */
const EXPIRES_IN_MS_MAX = 3_660 * 24 * 3_600_000;

/** Texts by texts; counted before any of them is looked at, because each wrong one is a fault to be described. */
function textRecord(limits: {
  readonly entriesMax: number;
  readonly keyLengthMax: number;
  readonly valueLengthMax: number;
}) {
  const { entriesMax, keyLengthMax, valueLengthMax } = limits;
  return z
    .custom<Record<string, string>>(
      (value) => isObjectWithFew(value, entriesMax),
      `expected an object with at most ${entriesMax} entries`,
    )
    .meta({ type: "object", additionalProperties: { type: "string" }, maxProperties: entriesMax })
    .pipe(z.record(z.string().max(keyLengthMax), z.string().max(valueLengthMax)));
}

function isObjectWithFew(value: unknown, entriesMax: number): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length <= entriesMax;
}

const agentHealthChecksSchema = z
  .custom<Record<string, z.input<typeof specHealthCheckListSchema>>>(
    (value) => isObjectWithFew(value, AGENTS_PER_ROLLOUT_MAX),
    `expected an object with at most ${AGENTS_PER_ROLLOUT_MAX} entries`,
  )
  .meta({ type: "object", maxProperties: AGENTS_PER_ROLLOUT_MAX })
  .pipe(z.record(z.string().max(200), specHealthCheckListSchema));

/** POST /api/v1/rollouts */
export const createRolloutSchema = z
  .object({
    workspace: workspaceName.optional(),
    agents: textRecord({ entriesMax: AGENTS_PER_ROLLOUT_MAX, keyLengthMax: 200, valueLengthMax: 400 }),
    /** Nix system → store path of a script. */
    rollbackScript: textRecord({ entriesMax: SYSTEMS_MAX, keyLengthMax: 64, valueLengthMax: 400 }).optional(),
    /** For every agent, and besides for some. */
    healthChecks: specHealthCheckListSchema.optional(),
    agentHealthChecks: agentHealthChecksSchema.optional(),
    mode: z.enum(MODES),
    policy: activationPolicySchema.optional(),
    description: z.string().max(ROLLOUT_DESCRIPTION_LENGTH_MAX).optional(),
    origin: originSchema.optional(),
    requireOnline: z.boolean().optional(),
    /** Devices take versions that have failed there before. */
    retry: z.boolean().optional(),
    /** What waits for its agent for that long is given up; default 30 days. */
    expiresInMs: z.number().int().min(1_000).max(EXPIRES_IN_MS_MAX).optional(),
  })
  .meta({ id: "CreateRollout" });
export type CreateRollout = z.input<typeof createRolloutSchema>;

/** Ids and names in one call. */
export const TARGETS_MAX = 100;
export const targets = {
  /** Ids of deployments or rollouts, or names of agents. */
  of: z.array(z.string().min(1).max(200)).min(1).max(TARGETS_MAX),
  /** Where the agents are; default: wherever the token may. */
  workspace: workspaceName.optional(),
};

/** POST /api/v1/retries: a new rollout of what did not succeed of them. The answer is that of POST /api/v1/rollouts. */
export const retrySchema = z.object({ ...targets, origin: originSchema.optional() });
export type RetryRequest = z.input<typeof retrySchema>;

/** POST /api/v1/cancellations. The answer has those that were cancelled, as they are now. */
export const cancellationSchema = z.object(targets);
export type CancellationRequest = z.input<typeof cancellationSchema>;

/** A rollout without what became of it. */
export const rolloutFactsSchema = z
  .object({
    id: rolloutId,
    workspace: workspaceName,
    createdAt: time,
    description: z.string().nullable(),
    /** What the CI that started it said of itself. */
    origin: originSchema.default({}),
    /** The token that started it; null: somebody on the coordinator's own host did. */
    startedBy: z.object({ token: tokenId, description: z.string() }).nullable().default(null),
    url: z.string(),
  })
  .meta({ id: "RolloutFacts" });
export type RolloutFactsDto = z.output<typeof rolloutFactsSchema>;

/** GET /api/v1/rollouts/ID */
export const rolloutSchema = z
  .object({
    ...rolloutFactsSchema.shape,
    deployments: z.array(deploymentSchema),
  })
  .meta({ id: "Rollout" });
export type RolloutDto = z.output<typeof rolloutSchema>;

/**
 * Answer of POST /api/v1/rollouts and the like: 201, or 200 when the same request with the same `Idempotency-Key` has
 * started it within the last 24 hours. The key with another request is 422.
 */
export const startedRolloutSchema = rolloutSchema
  .extend({ isRepeat: z.boolean().default(false) })
  .meta({ id: "StartedRollout" });
export type StartedRolloutDto = z.output<typeof startedRolloutSchema>;

/** Answer of POST /api/v1/cancellations */
export const cancelledSchema = z.object({ deployments: z.array(deploymentSchema) });
