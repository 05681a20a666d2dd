/** What several answers and requests of the REST API have in common: times, counts, names, cursors. */
import { z } from "zod";
import { OUTCOMES } from "../deployment.ts";
import {
  parseAgentName,
  parseCacheName,
  parseDeploymentId,
  parseRolloutId,
  parseTokenId,
  parseWorkspaceName,
} from "../names.ts";
import { parsedWith } from "../protocol.ts";

export const count = z.number().int().nonnegative();
export const time = z.iso.datetime();
export const agentName = parsedWith(parseAgentName);
export const workspaceName = parsedWith(parseWorkspaceName);
export const cacheName = parsedWith(parseCacheName);
export const deploymentId = parsedWith(parseDeploymentId);
export const rolloutId = parsedWith(parseRolloutId);
export const tokenId = parsedWith(parseTokenId);

/** What a deployment's agent was asked to stop for, and has not answered; null: nothing. */
export const stopReason = z.enum(["cancelled", "superseded"]).nullable().default(null);
/** What an agent said of a deployment that had ended on the coordinator already; null: nothing. */
export const lateOutcome = z
  .object({ outcome: z.enum(OUTCOMES), reason: z.string(), at: time })
  .nullable()
  .default(null);

/** The `after` of the page that follows; null at the end. */
export const cursor = z.string().nullable().default(null);
