/** Agents in the REST API: who they are and what really runs on their machines. */
import { z } from "zod";
import { DEPLOYMENT_STATES } from "../deployment.ts";
import { parseKeyFingerprint } from "../key-fingerprint.ts";
import { labelChangesSchema } from "../labels.ts";
import { parsedWith, storePathSchema } from "../protocol.ts";
import { VERSION_STATUSES } from "../version-skew.ts";
import {
  agentName,
  count,
  cursor,
  deploymentId,
  lateOutcome,
  stopReason,
  time,
  tokenId,
  workspaceName,
} from "./fields.ts";

export const agentSchema = z
  .object({
    name: agentName,
    workspace: workspaceName,
    /** `unknown`: silent, but for less than 90 s (counted from the coordinator's start too). */
    contact: z.enum(["online", "offline", "unknown"]),
    lastSeenAt: time.nullable(),
    registeredAt: time,
    agentVersion: z.string(),
    /** Against the coordinator's; see `version-skew.ts`. `outdated` ones get their deployments all the same. */
    versionStatus: z.enum(VERSION_STATUSES).default("unknown"),
    nixVersion: z.string().nullable(),
    system: z.string(),
    hostName: z.string(),
    profile: z.string(),
    /** SHA-256 of the agent's public key, `SHA256:base64`, as the agent prints it too. */
    keyFingerprint: z.string(),
    /** The token that admitted its key. */
    admittedBy: tokenId.nullable().default(null),
    /** Those that count, and those of them that the operator set. */
    labels: z.record(z.string(), z.string()).default({}),
    operatorLabels: z.record(z.string(), z.string()).default({}),
    /** Names that its device may still log in by. */
    formerNames: z.array(agentName).default([]),
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
        offeredAt: time.nullable().default(null),
        stopRequested: stopReason,
        lateOutcome,
        stalledSince: time.nullable().default(null),
        /** When it ended, else when it began, else when it was asked for. */
        changedAt: time.nullable().default(null),
      })
      .nullable(),
  })
  .meta({ id: "Agent" });
export type AgentDto = z.output<typeof agentSchema>;

/** Selectors in one call. */
export const SELECTORS_MAX = 100;
const SELECTOR_LENGTH_MAX = 250;
const selectors = z.array(z.string().min(1).max(SELECTOR_LENGTH_MAX)).max(SELECTORS_MAX);

/**
 * GET /api/v1/agents[?workspace=NAME&select=SELECTOR,…&admittedBy=TOKEN-ID&limit=N&after=CURSOR]: selectors as in `agent-selector.ts`; one that
 * chooses none is refused (422).
 */
export const agentListSchema = z.object({ agents: z.array(agentSchema), next: cursor });

/** PATCH /api/v1/agents/NAME[?workspace=NAME]: another name. The answer is the agent. */
export const renameAgentSchema = z.object({ name: agentName });

/** POST /api/v1/agent-labels: sets and takes away the operator's labels of some agents, of all or of none. */
export const labelAgentsSchema = z.object({
  select: selectors.min(1),
  workspace: workspaceName.optional(),
  labels: labelChangesSchema,
});
export type LabelAgentsRequest = z.input<typeof labelAgentsSchema>;

/** POST /api/v1/agent-removals: all that are selected, or that a token admitted, or both; all or none. */
export const removeAgentsSchema = z.object({
  select: selectors.default([]),
  admittedBy: tokenId.optional(),
  workspace: workspaceName.optional(),
});
export type RemoveAgentsRequest = z.input<typeof removeAgentsSchema>;
export const removedAgentsSchema = z.object({ removed: z.array(agentName) });

export const enrolmentRequestSchema = z
  .object({
    /** The name that is taken. */
    name: agentName,
    workspace: workspaceName,
    /** Of the key that asks for it. */
    fingerprint: z.string(),
    address: z.string().nullable(),
    hostName: z.string(),
    system: z.string(),
    /** The token that it brought. */
    token: tokenId,
    requestedAt: time,
  })
  .meta({ id: "EnrolmentRequest" });
export type EnrolmentRequestDto = z.output<typeof enrolmentRequestSchema>;

/** GET /api/v1/agent-requests[?workspace=NAME]: keys that ask for names that are taken; the newest for each name. */
export const enrolmentRequestListSchema = z.object({ requests: z.array(enrolmentRequestSchema), next: cursor });

/** POST /api/v1/agent-approvals (the answer is the agent) and /api/v1/agent-rejections (204): about exactly this key. */
export const keyDecisionSchema = z.object({
  name: agentName,
  fingerprint: parsedWith(parseKeyFingerprint),
  workspace: workspaceName.optional(),
});
export type KeyDecision = z.input<typeof keyDecisionSchema>;
