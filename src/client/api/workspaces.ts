/** The calls for workspaces and their caches: those that also work on the coordinator's own host without a token. */
import { z } from "zod";
import {
  type CacheDto,
  cacheListSchema,
  cacheSchema,
  type createCacheSchema,
  type DeletedCache,
  deletedCacheSchema,
  type ForeignCacheDto,
  foreignCacheListSchema,
  foreignCacheSchema,
  type KeyVoucherDto,
  keyVoucherListSchema,
  type updateCacheSchema,
} from "../../api/caches.ts";
import {
  type DeletedWorkspace,
  deletedWorkspaceSchema,
  type WorkspaceDto,
  type WorkspaceSettingsChange,
  workspaceListSchema,
  workspaceSchema,
} from "../../api/workspaces.ts";
import { type KeyVoucher, keyVoucherSchema } from "../../key-voucher.ts";
import type { CacheName, WorkspaceName } from "../../names.ts";
import { readList } from "./all-pages.ts";
import type { CallApi } from "./api-call.ts";

export type CacheInWorkspace = { readonly workspace: WorkspaceName; readonly name: CacheName };

/** Every call @throws NixdeployError as {@link CallApi} does. */
export type WorkspaceClient = {
  createWorkspace(name: WorkspaceName, signal: AbortSignal): Promise<WorkspaceDto>;
  listWorkspaces(signal: AbortSignal): Promise<readonly WorkspaceDto[]>;
  loadWorkspace(name: WorkspaceName, signal: AbortSignal): Promise<WorkspaceDto>;
  setWorkspace(name: WorkspaceName, change: WorkspaceSettingsChange, signal: AbortSignal): Promise<WorkspaceDto>;
  renameWorkspace(change: { from: WorkspaceName; to: WorkspaceName }, signal: AbortSignal): Promise<WorkspaceDto>;
  deleteWorkspace(what: { name: WorkspaceName; force: boolean }, signal: AbortSignal): Promise<DeletedWorkspace>;
  createCache(request: z.input<typeof createCacheSchema>, signal: AbortSignal): Promise<CacheDto>;
  /** By workspace, the default of each first. */
  listCaches(workspace: WorkspaceName | undefined, signal: AbortSignal): Promise<readonly CacheDto[]>;
  loadCache(name: CacheName, signal: AbortSignal): Promise<CacheDto>;
  setCache(name: CacheName, change: z.input<typeof updateCacheSchema>, signal: AbortSignal): Promise<CacheDto>;
  deleteCache(what: { name: CacheName; force: boolean }, signal: AbortSignal): Promise<DeletedCache>;
  listForeignCaches(workspace: WorkspaceName | undefined, signal: AbortSignal): Promise<readonly ForeignCacheDto[]>;
  saveForeignCache(
    cache: CacheInWorkspace & { readonly url: string; readonly publicKeys: readonly string[] },
    signal: AbortSignal,
  ): Promise<ForeignCacheDto>;
  removeForeignCache(cache: CacheInWorkspace, signal: AbortSignal): Promise<void>;
  /** Those that were signed outside the coordinator. */
  listKeyVouchers(workspace: WorkspaceName | undefined, signal: AbortSignal): Promise<readonly KeyVoucherDto[]>;
  saveKeyVoucher(cache: CacheInWorkspace, voucher: KeyVoucher, signal: AbortSignal): Promise<KeyVoucher>;
  withdrawKeyVouchers(cache: CacheInWorkspace, signal: AbortSignal): Promise<void>;
};

export function createWorkspaceClient(call: CallApi): WorkspaceClient {
  return {
    ...createWorkspaceCalls(call),
    ...createCacheCalls(call),
    ...createForeignCacheCalls(call),
    ...createVoucherCalls(call),
  };
}

function createWorkspaceCalls(call: CallApi) {
  const schema = workspaceSchema;
  return {
    createWorkspace: (name, signal) => call({ method: "POST", path: "/workspaces", body: { name }, schema, signal }),
    listWorkspaces: (signal) =>
      readList(call, { path: "/workspaces", schema: workspaceListSchema, signal }, ({ workspaces }) => workspaces),
    loadWorkspace: (name, signal) => call({ method: "GET", path: `/workspaces/${name}`, schema, signal }),
    setWorkspace: (name, body, signal) =>
      call({ method: "PATCH", path: `/workspaces/${name}`, body, schema, isIdempotent: true, signal }),
    renameWorkspace: ({ from, to }, signal) =>
      call({ method: "POST", path: `/workspaces/${from}/rename`, body: { name: to }, schema, signal }),
    deleteWorkspace: ({ name, force }, signal) =>
      call({
        method: "DELETE",
        path: `/workspaces/${name}`,
        query: { force: force ? "true" : undefined },
        schema: deletedWorkspaceSchema,
        signal,
      }),
  } satisfies Partial<WorkspaceClient>;
}

function createCacheCalls(call: CallApi) {
  const schema = cacheSchema;
  return {
    createCache: (body, signal) => call({ method: "POST", path: "/caches", body, schema, signal }),
    listCaches: (workspace, signal) =>
      readList(
        call,
        { path: "/caches", query: { workspace }, schema: cacheListSchema, signal },
        ({ caches }) => caches,
      ),
    loadCache: (name, signal) => call({ method: "GET", path: `/caches/${name}`, schema, signal }),
    setCache: (name, body, signal) =>
      call({ method: "PATCH", path: `/caches/${name}`, body, schema, isIdempotent: true, signal }),
    deleteCache: ({ name, force }, signal) =>
      call({
        method: "DELETE",
        path: `/caches/${name}`,
        query: { force: force ? "true" : undefined },
        schema: deletedCacheSchema,
        signal,
      }),
  } satisfies Partial<WorkspaceClient>;
}

function createForeignCacheCalls(call: CallApi) {
  const pathOf = ({ workspace, name }: CacheInWorkspace) => `/workspaces/${workspace}/foreign-caches/${name}`;
  return {
    listForeignCaches: (workspace, signal) =>
      readList(
        call,
        { path: "/foreign-caches", query: { workspace }, schema: foreignCacheListSchema, signal },
        ({ foreignCaches }) => foreignCaches,
      ),
    saveForeignCache: ({ url, publicKeys, ...cache }, signal) =>
      call({
        method: "PUT",
        path: pathOf(cache),
        body: { url, publicKeys },
        schema: foreignCacheSchema,
        isIdempotent: true,
        signal,
      }),
    async removeForeignCache(cache, signal) {
      await call({ method: "DELETE", path: pathOf(cache), schema: z.null(), signal });
    },
  } satisfies Partial<WorkspaceClient>;
}

function createVoucherCalls(call: CallApi) {
  const pathOf = ({ workspace, name }: CacheInWorkspace) => `/workspaces/${workspace}/key-vouchers/${name}`;
  return {
    listKeyVouchers: (workspace, signal) =>
      readList(
        call,
        { path: "/key-vouchers", query: { workspace }, schema: keyVoucherListSchema, signal },
        ({ keyVouchers }) => keyVouchers,
      ),
    saveKeyVoucher: (cache, { cache: _name, ...body }, signal) =>
      call({ method: "PUT", path: pathOf(cache), body, schema: keyVoucherSchema, isIdempotent: true, signal }),
    async withdrawKeyVouchers(cache, signal) {
      await call({ method: "DELETE", path: pathOf(cache), schema: z.null(), signal });
    },
  } satisfies Partial<WorkspaceClient>;
}
