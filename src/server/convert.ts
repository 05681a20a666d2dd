/** Rows of the database as the API shows them. One converter per kind, named `…ToDto`. */
import type { AgentDto, EnrolmentRequestDto } from "../api/agents.ts";
import type { CacheDto, ForeignCacheDto } from "../api/caches.ts";
import type { DeploymentDto } from "../api/deployments.ts";
import { originSchema, type RolloutDto, type RolloutFactsDto } from "../api/rollouts.ts";
import type { TokenDto } from "../api/tokens.ts";
import type { WebhookDeliveryDto, WebhookDto } from "../api/webhooks.ts";
import type { WorkspaceDto } from "../api/workspaces.ts";
import { isTerminal, parsePhaseDurations } from "../deployment.ts";
import { formatKeyFingerprint } from "../key-fingerprint.ts";
import type { AgentId, DeploymentId, WorkspaceName } from "../names.ts";
import { formatPublicKey, parseSecretKey, publicKeyOf } from "../nix/signing-key.ts";
import { activationPolicySchema, machineStateSchema } from "../protocol.ts";
import { unitChangesSchema } from "../unit-changes.ts";
import { judgeVersion } from "../version-skew.ts";
import { formerNamesOf, labelsOf, operatorLabelsOf } from "./agents/change-agents.ts";
import { type DriftDeployment, findDrift } from "./agents/drift.ts";
import { loadKeyStatements } from "./cache/rotate-cache-key.ts";
import type { EnrolmentRequestRow } from "./database/agent-keys.ts";
import { type AgentContactRow, type AgentRow, loadAgents } from "./database/agents.ts";
import { type CacheRow, type ForeignCacheRow, listForeignCaches, listWorkspaceCaches } from "./database/caches.ts";
import {
  type DeploymentRow,
  loadRetries,
  loadRolloutDeployments,
  type RecentDeployments,
  type RetryRow,
  type RolloutRow,
} from "./database/deployments.ts";
import { findToken, type TokenRow } from "./database/tokens.ts";
import type { DeliveryRow, WebhookRow } from "./database/webhooks.ts";
import { countWorkspaceAgents, findWorkspaceById, type WorkspaceRow } from "./database/workspaces.ts";
import { becameOf } from "./deployments/late-outcome.ts";
import { notFound } from "./problem.ts";
import type { Services } from "./services.ts";
import { parseEventIds, parseWebhookEvents } from "./webhooks/payload.ts";
import { parseWorkspaceSettings } from "./workspaces/settings.ts";

export function contactOf(services: Services, agent: Pick<AgentRow, "id" | "last_seen_ms">): AgentDto["contact"] {
  return services.registry.contact({ agentId: agent.id, lastSeenMs: agent.last_seen_ms });
}

export function agentToDto(
  services: Services,
  known: {
    readonly agent: AgentRow;
    readonly latest: DeploymentRow | undefined;
    readonly recent: RecentDeployments;
    readonly workspace: WorkspaceName | undefined;
  },
): AgentDto {
  const { agent, latest, recent, workspace } = known;
  if (workspace === undefined) throw new Error(`agent ${agent.name} belongs to no workspace`);
  const state = machineStateSchema.parse(JSON.parse(agent.state));
  return {
    name: agent.name,
    workspace,
    contact: contactOf(services, agent),
    lastSeenAt: formatTime(agent.last_seen_ms),
    registeredAt: new Date(agent.registered_ms).toISOString(),
    agentVersion: agent.agent_version,
    versionStatus: judgeVersion(agent.agent_version, services.version),
    nixVersion: agent.nix_version,
    system: agent.system,
    hostName: agent.host_name,
    profile: agent.profile,
    keyFingerprint: formatKeyFingerprint(agent.public_key),
    admittedBy: agent.admitted_by,
    labels: labelsOf(agent),
    operatorLabels: operatorLabelsOf(agent),
    formerNames: [...formerNamesOf(agent)],
    profilePath: state.profilePath,
    generation: state.generation,
    currentPath: state.currentPath,
    bootedPath: state.bootedPath,
    storeFreeBytes: state.storeFreeBytes,
    currentBasePath: state.currentBasePath ?? null,
    rebootNeeded: state.rebootNeeded ?? null,
    failedUnits: state.failedUnits ?? null,
    failedUnitCount: state.failedUnitCount ?? null,
    drift: findDrift({
      deployments: recent.live.map(deploymentForDrift),
      isRunning: recent.isRunning,
      profile: agent.profile,
      state,
    }),
    deployment:
      latest === undefined
        ? null
        : {
            id: latest.id,
            state: latest.state,
            storePath: latest.store_path,
            startedOnDevice: latest.started_on_device === 1,
            attempt: latest.attempt,
            notBefore: formatTime(latest.not_before_ms),
            expiresAt: formatTime(latest.expires_ms),
            ...lateFactsOf(latest),
            stalledSince: formatTime(latest.stalled_ms),
            changedAt: formatTime(latest.finished_ms ?? latest.started_ms ?? latest.created_ms),
          },
  };
}

function deploymentForDrift(row: DeploymentRow): DriftDeployment {
  return { state: becameOf(row), mode: row.mode, storePath: row.store_path, previousPath: row.previous_path };
}

export async function rolloutToDto(services: Services, row: RolloutRow): Promise<RolloutDto> {
  const deployments = await deploymentsToDtos(services, await loadRolloutDeployments(services.database, row.id));
  return { ...(await rolloutFactsToDto(services, row)), deployments };
}

export async function rolloutFactsToDto(services: Services, row: RolloutRow): Promise<RolloutFactsDto> {
  return {
    id: row.id,
    workspace: await workspaceName(services, row.workspace_id),
    createdAt: new Date(row.created_ms).toISOString(),
    description: row.description,
    origin: originSchema.parse(JSON.parse(row.origin)),
    startedBy: await starterOf(services, row),
    url: `${services.publicUrl()}/rollouts/${row.id}`,
  };
}

export async function deploymentToDto(services: Services, row: DeploymentRow): Promise<DeploymentDto> {
  const [dto] = await deploymentsToDtos(services, [row]);
  if (dto === undefined) throw new Error("one row makes one answer");
  return dto;
}

/** A token of which nothing is left any more is known by its id alone. */
async function starterOf({ database }: Services, { token_id }: RolloutRow): Promise<RolloutDto["startedBy"]> {
  if (token_id === null) return null;
  return { token: token_id, description: (await findToken(database, token_id))?.description ?? "" };
}

/** In the same order, by few queries however many they are. */
export async function deploymentsToDtos(services: Services, rows: readonly DeploymentRow[]): Promise<DeploymentDto[]> {
  const { database } = services;
  const ended = rows.filter((row) => isTerminal(row.state));
  const known: AroundDeployments = {
    agents: await loadAgents(database, [...new Set(rows.map((row) => row.agent_id))]),
    workspaces: await workspaceNames(services, new Set(rows.map((row) => row.workspace_id))),
    retries: await loadRetries(
      database,
      ended.map((row) => row.id),
    ),
  };
  return rows.map((row) => convertDeployment(services, row, known));
}

/** What of other rows is shown with deployments. */
type AroundDeployments = {
  readonly agents: ReadonlyMap<AgentId, AgentContactRow>;
  readonly workspaces: ReadonlyMap<string, WorkspaceName>;
  /** The latest of each, by what it tries again. */
  readonly retries: ReadonlyMap<DeploymentId, RetryRow>;
};

function convertDeployment(services: Services, row: DeploymentRow, known: AroundDeployments): DeploymentDto {
  const agent = known.agents.get(row.agent_id);
  const workspace = known.workspaces.get(row.workspace_id);
  const retry = known.retries.get(row.id);
  if (agent === undefined || workspace === undefined) throw new Error(`deployment ${row.id} belongs to nobody`);
  return {
    id: row.id,
    rollout: row.rollout_id,
    agent: agent.name,
    workspace,
    storePath: row.store_path,
    previousPath: row.previous_path,
    mode: row.mode,
    state: row.state,
    reason: row.reason,
    contact: contactOf(services, agent),
    lastSeenAt: formatTime(agent.last_seen_ms),
    createdAt: new Date(row.created_ms).toISOString(),
    startedAt: formatTime(row.started_ms),
    finishedAt: formatTime(row.finished_ms),
    closureSizeBytes: row.closure_size_bytes,
    fetchedBytes: row.fetched_bytes,
    exitCode: row.exit_code,
    phaseMs: parsePhaseDurations(row.phase_ms),
    confirmWindowMs: row.confirm_window_ms ?? readPolicy(row).confirmWindowMs ?? null,
    fault: row.fault,
    ...lateFactsOf(row),
    attempt: row.attempt,
    notBefore: formatTime(row.not_before_ms),
    expiresAt: formatTime(row.expires_ms),
    stalledSince: formatTime(row.stalled_ms),
    retryOf: row.retry_of,
    retriedBy:
      retry === undefined
        ? null
        : {
            id: retry.id,
            rollout: retry.rollout_id,
            state: retry.state,
            notBefore: formatTime(retry.not_before_ms),
          },
    unitChanges: row.unit_changes === null ? null : unitChangesSchema.parse(JSON.parse(row.unit_changes)),
    startedOnDevice: row.started_on_device === 1,
    logTruncated: row.log_truncated === 1,
    logExpired: row.log_expired === 1,
    url: `${services.publicUrl()}/deployments/${row.id}`,
  };
}

const readPolicy = (row: DeploymentRow) => activationPolicySchema.parse(JSON.parse(row.policy));

/** What is known of one whose agent has been told of it, and is out of contact. */
function lateFactsOf(row: DeploymentRow): Pick<DeploymentDto, "offeredAt" | "stopRequested" | "lateOutcome"> {
  const { offered_ms, stop_requested, late_outcome, late_reason, late_ms } = row;
  return {
    offeredAt: formatTime(offered_ms),
    stopRequested: stop_requested,
    lateOutcome:
      late_outcome === null || late_ms === null
        ? null
        : { outcome: late_outcome, reason: late_reason ?? "", at: new Date(late_ms).toISOString() },
  };
}

async function workspaceNames(services: Services, ids: ReadonlySet<string>) {
  const names = new Map<string, WorkspaceName>();
  for (const id of ids) names.set(id, await workspaceName(services, id));
  return names;
}

/** @throws NixdeployError `not-found` when it was deleted, and what belonged to it is about to go */
export async function workspaceName(services: Pick<Services, "database">, workspaceId: string) {
  const workspace = await findWorkspaceById(services.database, workspaceId);
  if (workspace === null) throw notFound("its workspace");
  return workspace.name;
}

export function tokenToDto(row: TokenRow, workspaces: ReadonlyMap<string, WorkspaceName>): TokenDto {
  return {
    id: row.id,
    kind: row.kind,
    workspace: row.workspace_id === null ? null : (workspaces.get(row.workspace_id) ?? null),
    description: row.description,
    createdAt: new Date(row.created_ms).toISOString(),
    expiresAt: formatTime(row.expires_ms),
    lastUsedAt: formatTime(row.last_used_ms),
    revokedAt: formatTime(row.revoked_ms),
    agent: row.agent_name,
    usesMax: row.uses_max,
    uses: row.uses,
  };
}

export function enrolmentRequestToDto(
  row: EnrolmentRequestRow,
  workspaces: ReadonlyMap<string, WorkspaceName>,
): EnrolmentRequestDto {
  const workspace = workspaces.get(row.workspace_id);
  if (workspace === undefined) throw new Error(`the request for ${row.name} belongs to no workspace`);
  return {
    name: row.name,
    workspace,
    fingerprint: formatKeyFingerprint(row.public_key),
    address: row.address,
    hostName: row.host_name,
    system: row.system,
    token: row.token_id,
    requestedAt: new Date(row.requested_ms).toISOString(),
  };
}

export async function workspaceToDto(services: Services, row: WorkspaceRow): Promise<WorkspaceDto> {
  const caches = await listWorkspaceCaches(services.database, row.id);
  const foreign = await listForeignCaches(services.database, row.id);
  return {
    name: row.name,
    createdAt: new Date(row.created_ms).toISOString(),
    agents: await countWorkspaceAgents(services.database, row.id),
    caches: caches.map(({ name }) => name),
    foreignCaches: foreign.map(({ name }) => name),
    settings: parseWorkspaceSettings(row),
  };
}

export async function cacheToDto(row: CacheRow, services: Services): Promise<CacheDto> {
  const publicKey = publicKeyOf(parseSecretKey(row.secret_key));
  return {
    name: row.name,
    workspace: await workspaceName(services, row.workspace_id),
    url: `${services.publicUrl()}/cache/${row.name}`,
    publicKeys: [formatPublicKey(publicKey)],
    keyFingerprints: [formatKeyFingerprint(publicKey.bytes)],
    keyStatements: [...(await loadKeyStatements(services.database, row))],
    public: row.is_public === 1,
    default: row.is_default === 1,
  };
}

export function foreignCacheToDto(row: ForeignCacheRow, workspace: WorkspaceName): ForeignCacheDto {
  return { name: row.name, workspace, url: row.url, publicKeys: row.public_keys.split("\n") };
}

export function webhookToDto(row: WebhookRow, workspace: WorkspaceName): WebhookDto {
  return {
    workspace,
    url: row.url,
    events: parseWebhookEvents(row.events),
    createdAt: new Date(row.created_ms).toISOString(),
    oldSecretUntil: formatTime(row.old_secret_until_ms),
    failingSince: formatTime(row.failing_since_ms),
    nextAttemptAt: row.failing_since_ms === null ? null : formatTime(row.next_attempt_ms),
  };
}

export function webhookDeliveryToDto(row: DeliveryRow, workspace: WorkspaceName): WebhookDeliveryDto {
  return {
    id: row.id,
    workspace,
    kind: row.kind,
    state: row.state,
    events: parseEventIds(row),
    createdAt: new Date(row.created_ms).toISOString(),
    finishedAt: formatTime(row.finished_ms),
    attempts: row.attempts,
    lastAttemptAt: formatTime(row.attempted_ms),
    status: row.status,
    durationMs: row.duration_ms,
    error: row.error,
  };
}

function formatTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
