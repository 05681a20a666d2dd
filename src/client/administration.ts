/**
 * The calls for tokens, caches and agents: those that also work on the coordinator's own host without a token.
 */
import { z } from "zod";
import { type AgentDto, agentListSchema } from "../api/agents.ts";
import { type CacheDto, cacheSchema } from "../api/caches.ts";
import {
  type CreatedToken,
  createdTokenSchema,
  type createTokenSchema,
  type TokenDto,
  tokenListSchema,
} from "../api/tokens.ts";
import type { CacheName, TokenId, WorkspaceName } from "../names.ts";
import type { CallApi } from "./api-call.ts";

/** Every call @throws NixdeployError as {@link CallApi} does. */
export type AdministrationClient = {
  createToken(request: z.input<typeof createTokenSchema>, signal: AbortSignal): Promise<CreatedToken>;
  listTokens(signal: AbortSignal): Promise<readonly TokenDto[]>;
  revokeToken(id: TokenId, signal: AbortSignal): Promise<void>;
  loadCache(name: CacheName, signal: AbortSignal): Promise<CacheDto>;
  setCachePublic(change: { name: CacheName; isPublic: boolean }, signal: AbortSignal): Promise<CacheDto>;
  listAgents(workspace: WorkspaceName | undefined, signal: AbortSignal): Promise<readonly AgentDto[]>;
};

export function createAdministrationClient(call: CallApi): AdministrationClient {
  return {
    createToken: (body, signal) => call({ method: "POST", path: "/tokens", body, schema: createdTokenSchema, signal }),
    async listTokens(signal) {
      return (await call({ method: "GET", path: "/tokens", schema: tokenListSchema, signal })).tokens;
    },
    async revokeToken(id, signal) {
      await call({ method: "DELETE", path: `/tokens/${id}`, schema: z.null(), signal });
    },
    loadCache: (name, signal) => call({ method: "GET", path: `/caches/${name}`, schema: cacheSchema, signal }),
    setCachePublic: ({ name, isPublic }, signal) =>
      call({
        method: "PATCH",
        path: `/caches/${name}`,
        body: { public: isPublic },
        schema: cacheSchema,
        isIdempotent: true,
        signal,
      }),
    async listAgents(workspace, signal) {
      const query = { workspace };
      return (await call({ method: "GET", path: "/agents", query, schema: agentListSchema, signal })).agents;
    },
  };
}
