/**
 * The contract between the coordinator's REST API (`/api/v1`) and its clients: requests and answers as schemas.
 * Errors are problem+json (RFC 9457) with an `errors` list where several faults are found at once.
 * Times are ISO 8601 in UTC. These are neither database rows nor agent frames; converters stand beside the routes.
 */
import { z } from "zod";
import { DEPLOYMENT_STATES, FAULTS, MODES, PHASES } from "./deployment.ts";
import { specHealthCheckListSchema } from "./health-check.ts";
import {
  parseAgentName,
  parseCacheName,
  parseDeploymentId,
  parseRolloutId,
  parseTokenId,
  parseWorkspaceName,
} from "./names.ts";
import { parseFileHash, parseNarHash } from "./nix/hash.ts";
import { parseStorePath, parseStorePathHash } from "./nix/store-path.ts";
import { activationPolicySchema, parsedListWith, parsedWith, storePathSchema } from "./protocol.ts";
import { TOKEN_KINDS } from "./token.ts";
import { unitChangesSchema } from "./unit-changes.ts";

const count = z.number().int().nonnegative();
const time = z.iso.datetime();
const agentName = parsedWith(parseAgentName);
const workspaceName = parsedWith(parseWorkspaceName);
const cacheName = parsedWith(parseCacheName);
const deploymentId = parsedWith(parseDeploymentId);
const rolloutId = parsedWith(parseRolloutId);
const tokenId = parsedWith(parseTokenId);

/** The `after` of the page that follows; null at the end. */
const cursor = z.string().nullable().default(null);

/** Every error answer. */
export const problemSchema = z
  .object({
    type: z.string().optional(),
    /** The sentence for the person who asked. */
    title: z.string(),
    status: z.number().int(),
    detail: z.string().optional(),
    hint: z.string().optional(),
    /** Several faults found at once, one sentence each. */
    errors: z.array(z.string()).optional(),
  })
  .meta({ id: "Problem" });
export type Problem = z.output<typeof problemSchema>;

// Tokens -----------------------------------------------------------------------------------------------------------

export const TOKEN_DESCRIPTION_LENGTH_MAX = 200;

/** POST /api/v1/tokens */
export const createTokenSchema = z
  .object({
    kind: z.enum(TOKEN_KINDS),
    workspace: workspaceName.optional(),
    /** One line, since lists show it. */
    description: z
      .string()
      .max(TOKEN_DESCRIPTION_LENGTH_MAX)
      .regex(/^\P{Cc}*$/u, "it has a line break or another control character")
      .optional(),
    /** Milliseconds from now; never when absent. */
    expiresInMs: z.number().int().positive().optional(),
  })
  .meta({ id: "CreateToken" });

export const createdTokenSchema = z
  .object({
    id: tokenId,
    /** Shown this once. */
    token: z.string(),
    kind: z.enum(TOKEN_KINDS),
    /** Null for an admin token that is good for every workspace. */
    workspace: workspaceName.nullable(),
    expiresAt: time.nullable(),
  })
  .meta({ id: "CreatedToken" });
export type CreatedToken = z.output<typeof createdTokenSchema>;

export const tokenSchema = z
  .object({
    id: tokenId,
    kind: z.enum(TOKEN_KINDS),
    workspace: workspaceName.nullable(),
    description: z.string(),
    createdAt: time,
    expiresAt: time.nullable(),
    lastUsedAt: time.nullable(),
    revokedAt: time.nullable(),
  })
  .meta({ id: "Token" });
export type TokenDto = z.output<typeof tokenSchema>;

/** GET /api/v1/tokens. Revoking is DELETE /api/v1/tokens/ID → 204. */
export const tokenListSchema = z.object({ tokens: z.array(tokenSchema) });

// Caches -----------------------------------------------------------------------------------------------------------

/** GET /api/v1/caches/NAME, and the answer of PATCH */
export const cacheSchema = z
  .object({
    name: cacheName,
    url: z.string(),
    publicKeys: z.array(z.string()),
    public: z.boolean(),
  })
  .meta({ id: "Cache" });
export type CacheDto = z.output<typeof cacheSchema>;

/** PATCH /api/v1/caches/NAME */
export const updateCacheSchema = z.object({ public: z.boolean() });

/** Hash parts in one `missing` call, and paths in one `paths` call. */
export const PATHS_PER_CALL_MAX = 5_000;
/** Of one path. */
const REFERENCES_MAX = 10_000;
/** One part of an upload; small enough for the strictest proxies. */
export const UPLOAD_PART_BYTES_MAX = 32 * 1024 * 1024;

/** POST /api/v1/caches/NAME/missing: which of these paths have no narinfo here? */
export const missingRequestSchema = z.object({
  hashParts: parsedListWith(parseStorePathHash, PATHS_PER_CALL_MAX),
});
export const missingAnswerSchema = z.object({ missing: parsedListWith(parseStorePathHash, PATHS_PER_CALL_MAX) });

/**
 * PUT /api/v1/caches/NAME/nars/NARHASH?upload=ID&offset=BYTES&narSize=BYTES[&fileHash=HASH]
 *
 * NARHASH and HASH are nix32, ID is 16 lower-case letters and digits that the client draws for one try of one NAR.
 * The body is the next part (up to {@link UPLOAD_PART_BYTES_MAX}) of the zstd-compressed NAR; the part that carries
 * `fileHash` is the last. The coordinator decompresses and checks while the parts arrive.
 * 200 with the new offset; 409 with the offset that it expects (0 when it does not know the upload, say after a
 * restart: the client starts this NAR anew); 422 when the bytes are not what they claim to be.
 */
export const uploadAnswerSchema = z.object({ offset: count, complete: z.boolean() });

/** POST /api/v1/caches/NAME/paths: publish narinfos; every reference is here already or in the same call. */
export const publishRequestSchema = z.object({
  paths: z
    .array(
      z.object({
        storePath: storePathSchema,
        narHash: parsedWith(parseNarHash),
        narSizeBytes: z.number().int().positive(),
        references: parsedListWith(parseStorePath, REFERENCES_MAX),
        deriver: storePathSchema.nullable(),
        /** `name:base64` signatures the path has already; the coordinator adds the cache's own. */
        signatures: z.array(z.string().max(256)).max(32),
        contentAddress: z.string().max(256).nullable(),
        /** Hash of the uploaded, compressed NAR. */
        fileHash: parsedWith(parseFileHash),
      }),
    )
    .min(1)
    .max(PATHS_PER_CALL_MAX),
});
export const publishAnswerSchema = z.object({ published: count });

/** POST /api/v1/caches/NAME/plan: all that an agent needs to fetch a closure, in one answer. */
export const planRequestSchema = z.object({ storePath: storePathSchema });
export const planAnswerSchema = z.object({
  /** narinfo texts of the whole closure, references first; URLs are relative to the cache. */
  narInfos: z.array(z.string()),
});

// Agents -----------------------------------------------------------------------------------------------------------

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
      })
      .nullable(),
  })
  .meta({ id: "Agent" });
export type AgentDto = z.output<typeof agentSchema>;

/** GET /api/v1/agents[?workspace=NAME] */
export const agentListSchema = z.object({ agents: z.array(agentSchema) });

// Rollouts and deployments ------------------------------------------------------------------------------------------

/** Facts that CI knows about itself; recorded with every deployment of a rollout. */
export const originSchema = z
  .object({
    repository: z.string().max(300).optional(),
    commit: z.string().max(100).optional(),
    ref: z.string().max(300).optional(),
    runUrl: z.string().max(1_000).optional(),
    actor: z.string().max(200).optional(),
  })
  .meta({ id: "Origin" });

export const ROLLOUT_DESCRIPTION_LENGTH_MAX = 1_000;

export const AGENTS_PER_ROLLOUT_MAX = 10_000;
const SYSTEMS_MAX = 100;

/** Texts by texts; counted before any of them is looked at, because each wrong one is a fault to be described. */
function textRecord(limits: {
  readonly entriesMax: number;
  readonly keyLengthMax: number;
  readonly valueLengthMax: number;
}) {
  const { entriesMax, keyLengthMax, valueLengthMax } = limits;
  return z
    .custom<Record<string, string>>(
      (value) => isObjectWithFew(value, entriesMax),
      `expected an object with at most ${entriesMax} entries`,
    )
    .meta({ type: "object", additionalProperties: { type: "string" }, maxProperties: entriesMax })
    .pipe(z.record(z.string().max(keyLengthMax), z.string().max(valueLengthMax)));
}

function isObjectWithFew(value: unknown, entriesMax: number): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length <= entriesMax;
}

const agentHealthChecksSchema = z
  .custom<Record<string, z.input<typeof specHealthCheckListSchema>>>(
    (value) => isObjectWithFew(value, AGENTS_PER_ROLLOUT_MAX),
    `expected an object with at most ${AGENTS_PER_ROLLOUT_MAX} entries`,
  )
  .meta({ type: "object", maxProperties: AGENTS_PER_ROLLOUT_MAX })
  .pipe(z.record(z.string().max(200), specHealthCheckListSchema));

/** POST /api/v1/rollouts */
export const createRolloutSchema = z
  .object({
    workspace: workspaceName.optional(),
    agents: textRecord({ entriesMax: AGENTS_PER_ROLLOUT_MAX, keyLengthMax: 200, valueLengthMax: 400 }),
    /** Nix system → store path of a script. */
    rollbackScript: textRecord({ entriesMax: SYSTEMS_MAX, keyLengthMax: 64, valueLengthMax: 400 }).optional(),
    /** For every agent, and besides for some. */
    healthChecks: specHealthCheckListSchema.optional(),
    agentHealthChecks: agentHealthChecksSchema.optional(),
    mode: z.enum(MODES),
    policy: activationPolicySchema.optional(),
    description: z.string().max(ROLLOUT_DESCRIPTION_LENGTH_MAX).optional(),
    origin: originSchema.optional(),
    requireOnline: z.boolean().optional(),
    /** Devices take versions that have failed there before. */
    retry: z.boolean().optional(),
  })
  .meta({ id: "CreateRollout" });
export type CreateRollout = z.input<typeof createRolloutSchema>;

export const deploymentSchema = z
  .object({
    id: deploymentId,
    rollout: rolloutId,
    agent: agentName,
    workspace: workspaceName,
    storePath: storePathSchema,
    previousPath: storePathSchema.nullable(),
    mode: z.enum(MODES),
    state: z.enum(DEPLOYMENT_STATES),
    /** One sentence, once there is something to say. */
    reason: z.string().nullable(),
    /** The agent's contact at this moment; a queued deployment of an offline agent waits for its return. */
    contact: z.enum(["online", "offline", "unknown"]),
    createdAt: time,
    startedAt: time.nullable(),
    finishedAt: time.nullable(),
    closureSizeBytes: count,
    fetchedBytes: count.nullable(),
    exitCode: z.number().int().nullable(),
    phaseMs: z.partialRecord(z.enum(PHASES), count),
    /** Whose fault it was that it was undone; null where that is not said. */
    fault: z.enum(FAULTS).nullable().default(null),
    /** Asked to stop, and has not answered. */
    stopRequested: z.enum(["cancelled", "superseded"]).nullable().default(null),
    /** Counts from 1 up where the coordinator tries again by itself; it is not offered before `notBefore`. */
    attempt: z.number().int().positive().default(1),
    notBefore: time.nullable().default(null),
    /** The deployment that this one tries again, and the latest one that tries this one again. */
    retryOf: deploymentId.nullable().default(null),
    retriedBy: z
      .object({ id: deploymentId, rollout: rolloutId, state: z.enum(DEPLOYMENT_STATES), notBefore: time.nullable() })
      .nullable()
      .default(null),
    /** What a dry activation said it would do; null for everything else. */
    unitChanges: unitChangesSchema.nullable().default(null),
    /** By somebody at the machine (`nixdeploy local`), not through the coordinator. */
    startedOnDevice: z.boolean().default(false),
    url: z.string(),
  })
  .meta({ id: "Deployment" });
export type DeploymentDto = z.output<typeof deploymentSchema>;

/** Ids and names in one call. */
export const TARGETS_MAX = 100;
const targets = {
  /** Ids of deployments or rollouts, or names of agents. */
  of: z.array(z.string().min(1).max(200)).min(1).max(TARGETS_MAX),
  /** Where the agents are; default: wherever the token may. */
  workspace: workspaceName.optional(),
};

/** POST /api/v1/retries: a new rollout of what did not succeed of them. The answer is that of POST /api/v1/rollouts. */
export const retrySchema = z.object({ ...targets, origin: originSchema.optional() });
export type RetryRequest = z.input<typeof retrySchema>;

/** POST /api/v1/cancellations. The answer has those that were cancelled, as they are now. */
export const cancellationSchema = z.object(targets);
export type CancellationRequest = z.input<typeof cancellationSchema>;

/** GET /api/v1/rollouts/ID */
export const rolloutSchema = z
  .object({
    id: rolloutId,
    workspace: workspaceName,
    createdAt: time,
    description: z.string().nullable(),
    url: z.string(),
    deployments: z.array(deploymentSchema),
  })
  .meta({ id: "Rollout" });
export type RolloutDto = z.output<typeof rolloutSchema>;

/**
 * Answer of POST /api/v1/rollouts and the like: 201, or 200 when the same request with the same `Idempotency-Key` has
 * started it within the last 24 hours. The key with another request is 422.
 */
export const startedRolloutSchema = rolloutSchema
  .extend({ isRepeat: z.boolean().default(false) })
  .meta({ id: "StartedRollout" });
export type StartedRolloutDto = z.output<typeof startedRolloutSchema>;

/** Answer of POST /api/v1/cancellations */
export const cancelledSchema = z.object({ deployments: z.array(deploymentSchema) });

/** GET /api/v1/deployments[?workspace=NAME&agent=NAME&limit=N&after=CURSOR], newest first */
export const deploymentListSchema = z.object({ deployments: z.array(deploymentSchema), next: cursor });

export const logLineSchema = z
  .object({
    n: z.number().int().positive(),
    at: time,
    stream: z.enum(["agent", "out", "err"]),
    text: z.string(),
  })
  .meta({ id: "LogLine" });
export type LogLine = z.output<typeof logLineSchema>;

/** GET /api/v1/deployments/ID/log[?after=N&limit=N]; `next` is the `after` of the following page, null at the end. */
export const logPageSchema = z.object({ lines: z.array(logLineSchema), next: count.nullable() });

/**
 * GET /api/v1/rollouts/ID/follow and /api/v1/deployments/ID/follow: server-sent events, resumable by `Last-Event-ID`.
 * First every deployment as it is, then each change, and all log lines; `end` when every deployment is terminal.
 */
export const followEventSchema = z.discriminatedUnion("event", [
  z.object({ event: z.literal("deployment"), data: deploymentSchema }),
  z.object({
    event: z.literal("log"),
    data: z.object({ deployment: deploymentId, agent: agentName, lines: z.array(logLineSchema) }),
  }),
  z.object({
    event: z.literal("progress"),
    data: z.object({
      deployment: deploymentId,
      agent: agentName,
      paths: count,
      pathsTotal: count,
      bytes: count,
      bytesTotal: count,
    }),
  }),
  z.object({ event: z.literal("end"), data: z.object({}) }),
]);
export type FollowEvent = z.output<typeof followEventSchema>;

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
  })
  .meta({ id: "Status" });
export type StatusDto = z.output<typeof statusSchema>;
