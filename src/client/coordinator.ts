/**
 * The coordinator's REST API as functions, one for each call of `api.ts`. Knows paths and schemas, decides nothing:
 * what is sent again when it fails is for the callers to say.
 */
import { z } from "zod";
import {
  type CancellationRequest,
  type CreateRollout,
  type DeploymentDto,
  deploymentListSchema,
  deploymentSchema,
  type LogLine,
  logPageSchema,
  missingAnswerSchema,
  publishAnswerSchema,
  type RetryRequest,
  type RolloutDto,
  rolloutSchema,
  type StatusDto,
  statusSchema,
  uploadAnswerSchema,
} from "../api.ts";
import type { CacheName, DeploymentId, RolloutId, WorkspaceName } from "../names.ts";
import type { UploadTarget } from "../nix/cache/upload/upload-target.ts";
import { formatHashNix32 } from "../nix/hash.ts";
import { type AdministrationClient, createAdministrationClient } from "./administration.ts";
import { formatApiPath } from "./api-call.ts";
import type { CacheReader } from "./cache-file.ts";
import type { OpenEvents } from "./follow.ts";
import type { HttpTransport } from "./transport.ts";

export type LogPage = { readonly lines: readonly LogLine[]; readonly next: number | null };
export type DeploymentFilter = {
  readonly workspace?: WorkspaceName | undefined;
  readonly agent?: string;
  readonly limit?: number;
};

/** Every call @throws NixdeployError as `CallApi` does. */
export type CoordinatorClient = AdministrationClient & {
  loadStatus(signal: AbortSignal): Promise<StatusDto>;
  createRollout(request: CreateRollout, signal: AbortSignal): Promise<RolloutDto>;
  /** A new rollout of what did not succeed. */
  retry(request: RetryRequest, signal: AbortSignal): Promise<RolloutDto>;
  /** @returns those that were cancelled, as they are now */
  cancel(request: CancellationRequest, signal: AbortSignal): Promise<readonly DeploymentDto[]>;
  loadRollout(id: RolloutId, signal: AbortSignal): Promise<RolloutDto>;
  loadDeployment(id: DeploymentId, signal: AbortSignal): Promise<DeploymentDto>;
  /** Newest first. */
  listDeployments(filter: DeploymentFilter, signal: AbortSignal): Promise<readonly DeploymentDto[]>;
  /** Lines behind number `after`. */
  readLog(from: { id: DeploymentId; after: number }, signal: AbortSignal): Promise<LogPage>;
  followRollout(id: RolloutId): OpenEvents;
  followDeployment(id: DeploymentId): OpenEvents;
  /** Where `push` sends a closure. */
  uploadTarget(cache: CacheName): UploadTarget;
  /** Reads files as vanilla Nix does, below `/cache/NAME/`. */
  cacheReader(cache: CacheName): CacheReader;
};

/** A 409 tells where to go on; so does a 200. */
const partAnswerSchema = z.union([uploadAnswerSchema, z.object({ offset: z.number().int().nonnegative() })]);

export function createCoordinatorClient(http: HttpTransport): CoordinatorClient {
  const { call } = http;
  return {
    ...createAdministrationClient(call),
    loadStatus: (signal) => call({ method: "GET", path: "/status", schema: statusSchema, signal }),
    createRollout: (body, signal) => call({ method: "POST", path: "/rollouts", body, schema: rolloutSchema, signal }),
    retry: (body, signal) => call({ method: "POST", path: "/retries", body, schema: rolloutSchema, signal }),
    async cancel(body, signal) {
      const how = { isIdempotent: true, signal };
      return (await call({ method: "POST", path: "/cancellations", body, schema: deploymentListSchema, ...how }))
        .deployments;
    },
    loadRollout: (id, signal) => call({ method: "GET", path: `/rollouts/${id}`, schema: rolloutSchema, signal }),
    loadDeployment: (id, signal) =>
      call({ method: "GET", path: `/deployments/${id}`, schema: deploymentSchema, signal }),
    async listDeployments(query, signal) {
      return (await call({ method: "GET", path: "/deployments", query, schema: deploymentListSchema, signal }))
        .deployments;
    },
    readLog: ({ id, after }, signal) =>
      call({ method: "GET", path: `/deployments/${id}/log`, query: { after }, schema: logPageSchema, signal }),
    followRollout: (id) => (lastEventId, signal) =>
      http.openEvents({ path: formatApiPath({ path: `/rollouts/${id}/follow` }), lastEventId, signal }),
    followDeployment: (id) => (lastEventId, signal) =>
      http.openEvents({ path: formatApiPath({ path: `/deployments/${id}/follow` }), lastEventId, signal }),
    uploadTarget: (cache) => createUploadTarget(http, cache),
    cacheReader: (cache) => ({
      readFile: (path, options) => http.readFile({ path: `/cache/${cache}/${path}`, ...options }),
    }),
  };
}

function createUploadTarget(http: HttpTransport, cache: CacheName): UploadTarget {
  const { call } = http;
  const path = `/caches/${cache}`;
  return {
    async findMissing(hashParts, signal) {
      const body = { hashParts };
      const { missing } = await call({
        method: "POST",
        path: `${path}/missing`,
        body,
        schema: missingAnswerSchema,
        isIdempotent: true,
        signal,
      });
      return new Set(missing);
    },
    async putPart(part, signal) {
      const fileHash = part.fileHash === null ? undefined : formatHashNix32(part.fileHash);
      const { uploadId: upload, offset, narSizeBytes: narSize } = part;
      const query = { upload, offset, narSize, fileHash };
      const { status, answer } = await http.putBody({
        path: formatApiPath({ path: `${path}/nars/${formatHashNix32(part.narHash)}`, query }),
        body: part.body,
        schema: partAnswerSchema,
        signal,
      });
      if (status === 409) return { kind: "expects", offset: answer.offset };
      return { kind: "stored", offset: answer.offset, complete: "complete" in answer && answer.complete };
    },
    async publish(paths, signal) {
      const body = { paths };
      await call({
        method: "POST",
        path: `${path}/paths`,
        body,
        schema: publishAnswerSchema,
        isIdempotent: true,
        signal,
      });
    },
  };
}
