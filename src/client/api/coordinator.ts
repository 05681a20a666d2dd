/**
 * The coordinator's REST API as functions, one for each call of `src/api/`. Knows paths and schemas, decides nothing:
 * what is sent again when it fails is for the callers to say.
 */
import { z } from "zod";
import { missingAnswerSchema, publishAnswerSchema, uploadAnswerSchema } from "../../api/caches.ts";
import {
  type DeploymentDto,
  deploymentListSchema,
  deploymentSchema,
  type LogLine,
  logPageSchema,
} from "../../api/deployments.ts";
import {
  type AgainPlanDto,
  type AgainPlanRequest,
  againPlanSchema,
  type RedeploymentPlanRequest,
  type RedeploymentRequest,
  type RollbackRequest,
} from "../../api/going-back.ts";
import { type RolloutPlanDto, rolloutPlanSchema } from "../../api/rollout-plans.ts";
import {
  type CancellationRequest,
  type CreateRollout,
  cancelledSchema,
  type RetryRequest,
  type RolloutDto,
  rolloutSchema,
  type StartedRolloutDto,
  startedRolloutSchema,
} from "../../api/rollouts.ts";
import type { CacheName, DeploymentId, RolloutId, WorkspaceName } from "../../names.ts";
import type { UploadTarget } from "../../nix/cache/upload/upload-target.ts";
import { formatHashNix32 } from "../../nix/hash.ts";
import type { OpenEvents } from "../follow/follow.ts";
import type { WatchOptions } from "../follow/watch-events.ts";
import type { CacheReader } from "../nix-files/cache-file.ts";
import { type AdministrationClient, createAdministrationClient } from "./administration.ts";
import { type CallApi, formatApiPath } from "./api-call.ts";
import type { HttpTransport } from "./transport.ts";

export type LogPage = { readonly lines: readonly LogLine[]; readonly next: number | null };
export type DeploymentFilter = {
  readonly workspace?: WorkspaceName | undefined;
  readonly agent?: string;
  readonly limit?: number;
};

/** What starts a rollout. It is sent again when its answer gets lost: the key sees to it that it is done once. */
export type Start<Request> = {
  readonly request: Request;
  readonly idempotencyKey: string;
  readonly signal: AbortSignal;
};

/** Every call @throws NixdeployError as `CallApi` does. */
export type CoordinatorClient = AdministrationClient & {
  createRollout(start: Start<CreateRollout>): Promise<StartedRolloutDto>;
  /** What that would change; refuses what that refuses, and starts nothing. */
  planRollout(request: CreateRollout, signal: AbortSignal): Promise<RolloutPlanDto>;
  /** A new rollout of what did not succeed. */
  retry(start: Start<RetryRequest>): Promise<StartedRolloutDto>;
  planRetry(request: AgainPlanRequest, signal: AbortSignal): Promise<AgainPlanDto>;
  /** A new rollout of what ran before. */
  rollBack(start: Start<RollbackRequest>): Promise<StartedRolloutDto>;
  planRollback(request: AgainPlanRequest, signal: AbortSignal): Promise<AgainPlanDto>;
  /** An older rollout once more. */
  redeploy(start: Start<RedeploymentRequest>): Promise<StartedRolloutDto>;
  planRedeployment(request: RedeploymentPlanRequest, signal: AbortSignal): Promise<AgainPlanDto>;
  /** @returns those that were cancelled, as they are now */
  cancel(request: CancellationRequest, signal: AbortSignal): Promise<readonly DeploymentDto[]>;
  loadRollout(id: RolloutId, signal: AbortSignal): Promise<RolloutDto>;
  loadDeployment(id: DeploymentId, signal: AbortSignal): Promise<DeploymentDto>;
  /** Newest first. */
  listDeployments(filter: DeploymentFilter, signal: AbortSignal): Promise<readonly DeploymentDto[]>;
  /** Lines behind number `after`. */
  readLog(from: { id: DeploymentId; after: number }, signal: AbortSignal): Promise<LogPage>;
  followRollout(id: RolloutId): OpenEvents;
  /** Everything that changes, of one workspace or of all. */
  openEvents(workspace: WorkspaceName | undefined): WatchOptions["open"];
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
    createRollout: (start) => startRollout(call, "/rollouts", start),
    planRollout: (body, signal) =>
      call({ method: "POST", path: "/rollout-plans", body, schema: rolloutPlanSchema, isIdempotent: true, signal }),
    planRetry: (body, signal) =>
      call({ method: "POST", path: "/retry-plans", body, schema: againPlanSchema, isIdempotent: true, signal }),
    planRollback: (body, signal) =>
      call({ method: "POST", path: "/rollback-plans", body, schema: againPlanSchema, isIdempotent: true, signal }),
    planRedeployment: (body, signal) =>
      call({ method: "POST", path: "/redeployment-plans", body, schema: againPlanSchema, isIdempotent: true, signal }),
    retry: (start) => startRollout(call, "/retries", start),
    rollBack: (start) => startRollout(call, "/rollbacks", start),
    redeploy: (start) => startRollout(call, "/redeployments", start),
    async cancel(body, signal) {
      const how = { isIdempotent: true, signal };
      return (await call({ method: "POST", path: "/cancellations", body, schema: cancelledSchema, ...how }))
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
    openEvents: (workspace) => (lastEventId, signal) =>
      http.openChanges({ path: formatApiPath({ path: "/events", query: { workspace } }), lastEventId, signal }),
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

async function startRollout<Request>(call: CallApi, path: string, start: Start<Request>): Promise<StartedRolloutDto> {
  const { request: body, ...how } = start;
  return await call({ method: "POST", path, body, schema: startedRolloutSchema, ...how });
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
