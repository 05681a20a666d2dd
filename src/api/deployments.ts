/** Deployments in the REST API: one of them, its log, and following it. */
import { z } from "zod";
import { DEPLOYMENT_STATES, FAULTS, MODES, PHASES } from "../deployment.ts";
import { storePathSchema } from "../protocol.ts";
import { unitChangesSchema } from "../unit-changes.ts";
import {
  agentName,
  count,
  cursor,
  deploymentId,
  lateOutcome,
  rolloutId,
  stopReason,
  time,
  workspaceName,
} from "./fields.ts";

export const deploymentSchema = z
  .object({
    id: deploymentId,
    rollout: rolloutId,
    agent: agentName,
    workspace: workspaceName,
    storePath: storePathSchema,
    previousPath: storePathSchema.nullable(),
    mode: z.enum(MODES),
    state: z.enum(DEPLOYMENT_STATES),
    /** One sentence, once there is something to say. */
    reason: z.string().nullable(),
    /** The agent's contact at this moment; a queued deployment of an offline agent waits for its return. */
    contact: z.enum(["online", "offline", "unknown"]),
    /** When the agent was heard of last; null: never. */
    lastSeenAt: time.nullable().default(null),
    createdAt: time,
    startedAt: time.nullable(),
    finishedAt: time.nullable(),
    closureSizeBytes: count,
    fetchedBytes: count.nullable(),
    exitCode: z.number().int().nullable(),
    phaseMs: z.partialRecord(z.enum(PHASES), count),
    /**
     * How long the new version may take to prove itself, milliseconds: as its device says once it activates, until then as
     * it was asked for; null: nobody has said, and the device's default counts.
     */
    confirmWindowMs: count.nullable().default(null),
    /** Whose fault it was that it was undone; null where that is not said. */
    fault: z.enum(FAULTS).nullable().default(null),
    stopRequested: stopReason,
    /** When its agent was told of it; null: it was not. */
    offeredAt: time.nullable().default(null),
    /** What the agent said when it had ended here already: it was offered, and not heard of until it expired. */
    lateOutcome,
    /** Counts from 1 up where the coordinator tries again by itself; it is not offered before `notBefore`. */
    attempt: z.number().int().positive().default(1),
    notBefore: time.nullable().default(null),
    /** Nothing has come of it since, although it runs, for longer than is usual in its state; null: all is well. */
    stalledSince: time.nullable().default(null),
    /** Waits no longer than until then; null: for ever. */
    expiresAt: time.nullable().default(null),
    /** The deployment that this one tries again, and the latest one that tries this one again. */
    retryOf: deploymentId.nullable().default(null),
    retriedBy: z
      .object({ id: deploymentId, rollout: rolloutId, state: z.enum(DEPLOYMENT_STATES), notBefore: time.nullable() })
      .nullable()
      .default(null),
    /** What a dry activation said it would do; null for everything else. */
    unitChanges: unitChangesSchema.nullable().default(null),
    /** By somebody at the machine (`nixdeploy local`), not through the coordinator. */
    startedOnDevice: z.boolean().default(false),
    /** It was longer than what is kept of a log; its last line says so. */
    logTruncated: z.boolean().default(false),
    /** It is there no more: too old, or too many newer ones. */
    logExpired: z.boolean().default(false),
    url: z.string(),
  })
  .meta({ id: "Deployment" });
export type DeploymentDto = z.output<typeof deploymentSchema>;

/** GET /api/v1/deployments[?workspace=NAME&agent=NAME&limit=N&after=CURSOR], newest first */
export const deploymentListSchema = z.object({ deployments: z.array(deploymentSchema), next: cursor });

export const logLineSchema = z
  .object({
    n: z.number().int().positive(),
    at: time,
    stream: z.enum(["agent", "out", "err"]),
    text: z.string(),
  })
  .meta({ id: "LogLine" });
export type LogLine = z.output<typeof logLineSchema>;

/** GET /api/v1/deployments/ID/log[?after=N&limit=N]; `next` is the `after` of the following page, null at the end. */
export const logPageSchema = z.object({ lines: z.array(logLineSchema), next: count.nullable() });

/**
 * GET /api/v1/rollouts/ID/follow and /api/v1/deployments/ID/follow: server-sent events, resumable by `Last-Event-ID`.
 * First every deployment as it is, then as it is whenever it has changed, and all log lines; `phase` for each state that a
 * deployment went through in between, also before the first look; `end` when every deployment is terminal.
 */
export const followEventSchema = z.discriminatedUnion("event", [
  z.object({ event: z.literal("deployment"), data: deploymentSchema }),
  z.object({
    event: z.literal("log"),
    data: z.object({ deployment: deploymentId, agent: agentName, lines: z.array(logLineSchema) }),
  }),
  z.object({
    event: z.literal("phase"),
    data: z.object({ deployment: deploymentId, agent: agentName, state: z.enum(DEPLOYMENT_STATES), at: time }),
  }),
  z.object({
    event: z.literal("progress"),
    data: z.object({
      deployment: deploymentId,
      agent: agentName,
      paths: count,
      pathsTotal: count,
      bytes: count,
      bytesTotal: count,
    }),
  }),
  z.object({ event: z.literal("end"), data: z.object({}) }),
]);
export type FollowEvent = z.output<typeof followEventSchema>;
