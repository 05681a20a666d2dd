/** The coordinator as a whole in the REST API. */
import { z } from "zod";
import { count, time, workspaceName } from "./fields.ts";

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
  })
  .meta({ id: "Status" });
export type StatusDto = z.output<typeof statusSchema>;
