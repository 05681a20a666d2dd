/** What several answers and requests of the REST API have in common: times, counts, names, cursors. */
import { z } from "zod";
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

/** The `after` of the page that follows; null at the end. */
export const cursor = z.string().nullable().default(null);
