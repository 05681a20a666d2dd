/**
 * Making and renaming workspaces and caches. Names are unique on the coordinator, so that a cache's URL needs no
 * workspace and survives the renaming of one: what keeps a name is whatever stands in configurations outside, which is
 * the cache. So caches are never renamed.
 */
import { NixdeployError } from "../../errors.ts";
import { type CacheName, drawId, parseCacheName, type WorkspaceName } from "../../names.ts";
import { formatSecretKey, secretKeyFromSeed } from "../../nix/signing-key.ts";
import type { Clock, Random } from "../../runtime.ts";
import {
  type CacheRow,
  findCache,
  insertCache,
  listWorkspaceCaches,
  setCachePublic,
  setDefaultCache,
} from "../database/caches.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { findWorkspace, insertWorkspace, saveWorkspace, type WorkspaceRow } from "../database/workspaces.ts";

export type WorkspaceDeps = {
  readonly database: CoordinatorDatabase;
  readonly clock: Clock;
  readonly random: Random;
};

const KEY_BYTES = 32;
const KEY_NAME_SUFFIX_LENGTH = 6;
/** Each is asked for what the ones before it lack. */
const CACHES_PER_WORKSPACE_MAX = 16;

/** A workspace and its cache. @throws NixdeployError `conflict` when the name is taken, by a workspace or by a cache */
export async function createWorkspace(deps: WorkspaceDeps, name: WorkspaceName): Promise<WorkspaceRow> {
  return await deps.database
    .transaction()
    .execute(async (transaction) => await makeWorkspace(transaction, { ...deps, name }));
}

/** The same inside a transaction. */
export async function makeWorkspace(
  transaction: CoordinatorDatabase,
  made: Omit<WorkspaceDeps, "database"> & { readonly name: WorkspaceName },
): Promise<WorkspaceRow> {
  const { name, clock, random } = made;
  if ((await findWorkspace(transaction, name)) !== null) throw nameTaken(`the workspace ${name}`);
  const row: WorkspaceRow = {
    id: drawId(random),
    name,
    created_ms: clock.nowMs(),
    settings: "{}",
    deleted_ms: null,
  };
  await insertWorkspace(transaction, row);
  await makeCache(transaction, { ...made, name: parseCacheName(name), workspaceId: row.id, isPublic: false });
  return row;
}

export type NewCache = {
  readonly name: CacheName;
  readonly workspaceId: string;
  readonly isPublic: boolean;
};

/** @throws NixdeployError `conflict` when the name is taken, or the workspace has as many as it may */
export async function createCache(deps: WorkspaceDeps, cache: NewCache): Promise<CacheRow> {
  return await deps.database
    .transaction()
    .execute(async (transaction) => await makeCache(transaction, { ...deps, ...cache }));
}

/** The first one of a workspace is its default. */
async function makeCache(
  transaction: CoordinatorDatabase,
  made: Omit<WorkspaceDeps, "database"> & NewCache,
): Promise<CacheRow> {
  const { name, workspaceId, clock, random } = made;
  if ((await findCache(transaction, name)) !== null) throw nameTaken(`the cache ${name}`);
  const others = await listWorkspaceCaches(transaction, workspaceId);
  if (others.length >= CACHES_PER_WORKSPACE_MAX) {
    throw new NixdeployError("conflict", `cannot make the cache ${name}: the workspace has ${others.length} already`);
  }
  // The suffix keeps the key names of two coordinators apart: Nix looks keys up by name.
  const keyName = `${name}-${drawId(random).slice(0, KEY_NAME_SUFFIX_LENGTH)}-1`;
  const row: CacheRow = {
    id: drawId(random),
    workspace_id: workspaceId,
    name,
    is_public: made.isPublic ? 1 : 0,
    secret_key: formatSecretKey(secretKeyFromSeed(keyName, random.bytes(KEY_BYTES))),
    created_ms: clock.nowMs(),
    is_default: others.length === 0 ? 1 : 0,
    deleted_ms: null,
  };
  await insertCache(transaction, row);
  return row;
}

/** @returns it as it is now */
export async function changeCache(
  deps: Pick<WorkspaceDeps, "database">,
  cache: CacheRow,
  change: { readonly public?: boolean | undefined; readonly default?: true | undefined },
): Promise<CacheRow> {
  await deps.database.transaction().execute(async (transaction) => {
    if (change.public !== undefined) {
      await setCachePublic(transaction, { cacheId: cache.id, isPublic: change.public });
    }
    if (change.default === true) await setDefaultCache(transaction, cache);
  });
  return (await findCache(deps.database, cache.name)) ?? cache;
}

/** Its caches keep their names. @throws NixdeployError `conflict` when the name is taken */
export async function renameWorkspace(
  deps: Pick<WorkspaceDeps, "database">,
  { workspace, name }: { readonly workspace: WorkspaceRow; readonly name: WorkspaceName },
): Promise<WorkspaceRow> {
  return await deps.database.transaction().execute(async (transaction) => {
    const other = await findWorkspace(transaction, name);
    if (other !== null && other.id !== workspace.id) throw nameTaken(`the workspace ${name}`);
    await saveWorkspace(transaction, workspace.id, { name });
    return { ...workspace, name };
  });
}

function nameTaken(what: string): NixdeployError {
  return new NixdeployError("conflict", `cannot take the name: ${what} exists already`, {
    hint: "Choose another name; `nixdeploy workspace list` and `nixdeploy cache list` show those in use.",
  });
}
