/** The coordinator as a whole in the REST API. */
import { z } from "zod";
import { count, time, workspaceName } from "./fields.ts";
import { rolloutFactsSchema } from "./rollouts.ts";

export const LATEST_ROLLOUTS_MAX = 3;

/** GET /api/v1/status */
export const statusSchema = z
  .object({
    version: z.string(),
    url: z.string(),
    startedAt: time,
    workspaces: z.array(workspaceName),
    agents: z.object({ online: count, offline: count, unknown: count }),
    deploymentsRunning: count,
    deploymentsQueued: count,
    /** Of those that run, those of which nothing comes any more. */
    deploymentsStalled: count.default(0),
    /** The newest first. */
    latestRollouts: z.array(rolloutFactsSchema).max(LATEST_ROLLOUTS_MAX).default([]),
    /** Agents connected at once at most, by workspace and month (UTC), the newest month first. */
    agentPeaks: z
      .array(z.object({ workspace: workspaceName, month: z.string().regex(/^\d{4}-\d{2}$/), agents: count, at: time }))
      .default([]),
  })
  .meta({ id: "Status" });
export type StatusDto = z.output<typeof statusSchema>;
