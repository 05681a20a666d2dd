/** Agents in the REST API: who they are and what really runs on their machines. */
import { z } from "zod";
import { DEPLOYMENT_STATES } from "../deployment.ts";
import { storePathSchema } from "../protocol.ts";
import { agentName, count, deploymentId, time, workspaceName } from "./fields.ts";

export const agentSchema = z
  .object({
    name: agentName,
    workspace: workspaceName,
    /** `unknown`: silent, but for less than 90 s (counted from the coordinator's start too). */
    contact: z.enum(["online", "offline", "unknown"]),
    lastSeenAt: time.nullable(),
    registeredAt: time,
    agentVersion: z.string(),
    nixVersion: z.string().nullable(),
    system: z.string(),
    hostName: z.string(),
    profile: z.string(),
    /** SHA-256 of the agent's public key, `SHA256:base64`, as the agent prints it too. */
    keyFingerprint: z.string(),
    profilePath: storePathSchema.nullable(),
    generation: count.nullable(),
    currentPath: storePathSchema.nullable(),
    bootedPath: storePathSchema.nullable(),
    storeFreeBytes: count.nullable(),
    /** The system whose specialisation runs; null when none does. */
    currentBasePath: storePathSchema.nullable().default(null),
    /** What differs between the running and the booted system, such as "kernel"; null where it cannot be told. */
    rebootNeeded: z.array(z.string()).nullable().default(null),
    /** The first by name, and how many there are; null where no service manager tells. */
    failedUnits: z.array(z.string()).nullable().default(null),
    failedUnitCount: count.nullable().default(null),
    /** The machine has something else than was deployed; see `server/agents/drift.ts`. Null: it has not, or nothing was. */
    drift: z
      .object({
        /** What the profile should name. */
        expected: storePathSchema,
        profile: storePathSchema.nullable(),
        /** The running system; null where the profile is none of a system. */
        current: storePathSchema.nullable(),
      })
      .nullable()
      .default(null),
    /** The latest deployment. */
    deployment: z
      .object({
        id: deploymentId,
        state: z.enum(DEPLOYMENT_STATES),
        storePath: storePathSchema,
        startedOnDevice: z.boolean().default(false),
        /** See the same of a deployment. */
        attempt: z.number().int().positive().default(1),
        notBefore: time.nullable().default(null),
        expiresAt: time.nullable().default(null),
      })
      .nullable(),
  })
  .meta({ id: "Agent" });
export type AgentDto = z.output<typeof agentSchema>;

/** GET /api/v1/agents[?workspace=NAME] */
export const agentListSchema = z.object({ agents: z.array(agentSchema) });
