/** A deployment as the coordinator describes it, with whatever fields a test wants to be different. */
import { type DeploymentDto, deploymentSchema } from "../../src/api/deployments.ts";

export const EXAMPLE_HASH_PART = "0123456789abcdfghijklmnpqrsvwxyz";

export function createDeployment(fields: Partial<Record<keyof DeploymentDto, unknown>> = {}): DeploymentDto {
  return deploymentSchema.parse({
    id: "aaaaaaaaaaaaaaaa",
    rollout: "rrrrrrrrrrrrrrrr",
    agent: "nuc",
    workspace: "default",
    storePath: `/nix/store/${EXAMPLE_HASH_PART}-system`,
    previousPath: null,
    mode: "switch",
    state: "queued",
    reason: null,
    contact: "online",
    createdAt: "2026-01-01T00:00:00Z",
    startedAt: null,
    finishedAt: null,
    closureSizeBytes: 1,
    fetchedBytes: null,
    exitCode: null,
    phaseMs: {},
    url: "http://localhost/d/a",
    ...fields,
  });
}
