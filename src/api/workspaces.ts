/** Workspaces in the REST API: groups of agents with their caches, tokens and settings. */
import { z } from "zod";
import { cacheName, count, cursor, time, workspaceName } from "./fields.ts";

const SECOND_MS = 1_000;
const HOUR_MS = 60 * 60 * SECOND_MS;
const DAY_MS = 24 * HOUR_MS;
const YEARS_10_MS = 3_660 * DAY_MS;
const duration = (least: number, most: number) => z.number().int().min(least).max(most).nullable();

/** The first two have the limits of an activation's policy (`protocol.ts`). */
const settings = {
  confirmWindowMs: duration(SECOND_MS, HOUR_MS),
  activationTimeoutMs: duration(SECOND_MS, DAY_MS),
  /** How long a deployment waits for an agent that is offline. */
  expiresMs: duration(60 * SECOND_MS, YEARS_10_MS),
  /** How long the logs of deployments that have ended are kept. */
  logRetentionMs: duration(HOUR_MS, YEARS_10_MS),
  /** How long rollouts that have ended are kept, with their deployments. */
  deploymentRetentionMs: duration(DAY_MS, YEARS_10_MS),
};

/**
 * What holds in a workspace where a rollout does not say otherwise, in milliseconds. Null: the default of the coordinator
 * or the device.
 */
export const workspaceSettingsSchema = z
  .object({
    confirmWindowMs: settings.confirmWindowMs.default(null),
    activationTimeoutMs: settings.activationTimeoutMs.default(null),
    expiresMs: settings.expiresMs.default(null),
    logRetentionMs: settings.logRetentionMs.default(null),
    deploymentRetentionMs: settings.deploymentRetentionMs.default(null),
  })
  .meta({ id: "WorkspaceSettings" });
export type WorkspaceSettings = z.output<typeof workspaceSettingsSchema>;

/** GET /api/v1/workspaces/NAME, and the answer of POST, PATCH and …/rename */
export const workspaceSchema = z
  .object({
    name: workspaceName,
    createdAt: time,
    agents: count,
    /** Its own, the default first. */
    caches: z.array(cacheName),
    foreignCaches: z.array(cacheName),
    settings: workspaceSettingsSchema,
  })
  .meta({ id: "Workspace" });
export type WorkspaceDto = z.output<typeof workspaceSchema>;

/** GET /api/v1/workspaces, by name */
export const workspaceListSchema = z.object({ workspaces: z.array(workspaceSchema), next: cursor });

/** POST /api/v1/workspaces: with a cache of the same name. And POST /api/v1/workspaces/NAME/rename */
export const nameWorkspaceSchema = z.object({ name: workspaceName });

/** PATCH /api/v1/workspaces/NAME: what is absent stays as it is, null goes back to the default. */
export const updateWorkspaceSchema = z
  .object({
    confirmWindowMs: settings.confirmWindowMs.optional(),
    activationTimeoutMs: settings.activationTimeoutMs.optional(),
    expiresMs: settings.expiresMs.optional(),
    logRetentionMs: settings.logRetentionMs.optional(),
    deploymentRetentionMs: settings.deploymentRetentionMs.optional(),
  })
  .refine((change) => Object.values(change).some((value) => value !== undefined), "it changes nothing")
  .meta({ id: "UpdateWorkspace" });
export type WorkspaceSettingsChange = z.output<typeof updateWorkspaceSchema>;

/** Answer of DELETE /api/v1/workspaces/NAME[?force=true]: what was in it. */
export const deletedWorkspaceSchema = z
  .object({
    name: workspaceName,
    agents: count,
    /** Those that were good until now. */
    tokens: count,
    caches: z.array(z.object({ name: cacheName, paths: count })),
    deployments: count,
  })
  .meta({ id: "DeletedWorkspace" });
export type DeletedWorkspace = z.output<typeof deletedWorkspaceSchema>;
