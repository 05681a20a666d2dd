/**
 * The calls for tokens, caches, agents and the coordinator as a whole: those that also work on the coordinator's own host without a token.
 */
import { z } from "zod";
import {
  type AgentDto,
  agentListSchema,
  agentSchema,
  type EnrolmentRequestDto,
  enrolmentRequestListSchema,
  type KeyDecision,
  type LabelAgentsRequest,
  type RemoveAgentsRequest,
  removedAgentsSchema,
} from "../../api/agents.ts";
import { type AuditEntryDto, auditListSchema } from "../../api/audit.ts";
import { type CacheDto, cacheSchema } from "../../api/caches.ts";
import { type StatusDto, statusSchema } from "../../api/status.ts";
import {
  type CreatedToken,
  createdTokenSchema,
  type createTokenSchema,
  type Identity,
  identitySchema,
  type TokenDto,
  tokenListSchema,
} from "../../api/tokens.ts";
import type { AgentName, CacheName, TokenId, WorkspaceName } from "../../names.ts";
import { readList } from "./all-pages.ts";
import type { CallApi } from "./api-call.ts";
import { createWebhookClient, type WebhookClient } from "./webhooks.ts";
import { createWorkspaceClient, type WorkspaceClient } from "./workspaces.ts";

export type AuditFilter = {
  /** ISO time. */
  readonly since: string | undefined;
  readonly workspace: WorkspaceName | undefined;
  readonly limit: number;
};

type OfWorkspaces = WorkspaceClient & WebhookClient;

/** Every call @throws NixdeployError as {@link CallApi} does. */
export type AdministrationClient = OfWorkspaces & {
  loadStatus(workspace: WorkspaceName | undefined, signal: AbortSignal): Promise<StatusDto>;
  createToken(request: z.input<typeof createTokenSchema>, signal: AbortSignal): Promise<CreatedToken>;
  /** What our own token is. */
  identify(signal: AbortSignal): Promise<Identity>;
  listTokens(workspace: WorkspaceName | undefined, signal: AbortSignal): Promise<readonly TokenDto[]>;
  revokeToken(id: TokenId, signal: AbortSignal): Promise<void>;
  /** Newest first. */
  listAudit(filter: AuditFilter, signal: AbortSignal): Promise<readonly AuditEntryDto[]>;
  /** Another signing key. */
  rotateCacheKey(name: CacheName, signal: AbortSignal): Promise<CacheDto>;
  listAgents(filter: AgentFilter, signal: AbortSignal): Promise<readonly AgentDto[]>;
  renameAgent(change: AgentRename, signal: AbortSignal): Promise<AgentDto>;
  /** @returns them as they are now */
  labelAgents(request: LabelAgentsRequest, signal: AbortSignal): Promise<readonly AgentDto[]>;
  /** @returns the names of those that were removed */
  removeAgents(request: RemoveAgentsRequest, signal: AbortSignal): Promise<readonly AgentName[]>;
  /** Keys that ask for names that are taken. */
  listAgentRequests(workspace: WorkspaceName | undefined, signal: AbortSignal): Promise<readonly EnrolmentRequestDto[]>;
  approveKey(decision: KeyDecision, signal: AbortSignal): Promise<AgentDto>;
  rejectKey(decision: KeyDecision, signal: AbortSignal): Promise<void>;
};

export type AgentFilter = {
  readonly workspace?: WorkspaceName | undefined;
  /** See `agent-selector.ts`; none selects all. */
  readonly select?: readonly string[];
  readonly admittedBy?: TokenId | undefined;
};
export type AgentRename = {
  readonly workspace: WorkspaceName | undefined;
  readonly from: AgentName;
  readonly to: AgentName;
};

export function createAdministrationClient(call: CallApi): AdministrationClient {
  return {
    ...createWorkspaceClient(call),
    ...createWebhookClient(call),
    loadStatus: (workspace, signal) =>
      call({ method: "GET", path: "/status", query: { workspace }, schema: statusSchema, signal }),
    createToken: (body, signal) => call({ method: "POST", path: "/tokens", body, schema: createdTokenSchema, signal }),
    identify: (signal) => call({ method: "GET", path: "/identity", schema: identitySchema, signal }),
    listTokens: (workspace, signal) =>
      readList(
        call,
        { path: "/tokens", query: { workspace }, schema: tokenListSchema, signal },
        ({ tokens }) => tokens,
      ),
    async revokeToken(id, signal) {
      await call({ method: "DELETE", path: `/tokens/${id}`, schema: z.null(), signal });
    },
    async listAudit(query, signal) {
      return (await call({ method: "GET", path: "/audit", query, schema: auditListSchema, signal })).entries;
    },
    rotateCacheKey: (name, signal) =>
      call({ method: "POST", path: `/caches/${name}/key-rotations`, schema: cacheSchema, signal }),
    async listAgents({ select = [], ...filter }, signal) {
      const query = { ...filter, select: select.length === 0 ? undefined : select.join(",") };
      return await readList(call, { path: "/agents", query, schema: agentListSchema, signal }, ({ agents }) => agents);
    },
    renameAgent: ({ workspace, from, to }, signal) =>
      call({
        method: "PATCH",
        path: `/agents/${from}`,
        query: { workspace },
        body: { name: to },
        schema: agentSchema,
        signal,
      }),
    async labelAgents(body, signal) {
      const how = { isIdempotent: true, signal };
      return (await call({ method: "POST", path: "/agent-labels", body, schema: agentListSchema, ...how })).agents;
    },
    listAgentRequests: (workspace, signal) =>
      readList(
        call,
        { path: "/agent-requests", query: { workspace }, schema: enrolmentRequestListSchema, signal },
        ({ requests }) => requests,
      ),
    approveKey: (body, signal) => call({ method: "POST", path: "/agent-approvals", body, schema: agentSchema, signal }),
    async rejectKey(body, signal) {
      await call({ method: "POST", path: "/agent-rejections", body, schema: z.null(), signal });
    },
    async removeAgents(body, signal) {
      return (await call({ method: "POST", path: "/agent-removals", body, schema: removedAgentsSchema, signal }))
        .removed;
    },
  };
}
