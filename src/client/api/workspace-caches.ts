/** Which of a workspace's caches is meant where none is named. */
import { NixdeployError } from "../../errors.ts";
import { type CacheName, parseWorkspaceName, type WorkspaceName } from "../../names.ts";
import type { CacheReader } from "../nix-files/cache-file.ts";
import type { CoordinatorClient } from "./coordinator.ts";
import type { WorkspaceClient } from "./workspaces.ts";

const DEFAULT_WORKSPACE = parseWorkspaceName("default");

/**
 * The caches of one workspace, its default first: of the one that is named, else the token's own, else `default`.
 * @throws NixdeployError "not-found" without such a workspace · as `CallApi` does
 */
export async function loadWorkspaceCaches(
  client: Pick<WorkspaceClient, "listCaches">,
  workspace: WorkspaceName | undefined,
  signal: AbortSignal,
): Promise<readonly CacheName[]> {
  const caches = await client.listCaches(workspace, signal);
  const workspaces = new Set(caches.map((cache) => cache.workspace));
  const [only] = workspaces;
  const wanted = workspaces.size === 1 ? only : (workspace ?? DEFAULT_WORKSPACE);
  const names = caches.filter((cache) => cache.workspace === wanted).map((cache) => cache.name);
  if (names.length > 0) return names;
  throw new NixdeployError("not-found", `cannot choose a cache: there is no workspace ${wanted}`, {
    hint: "Name one with --workspace.",
  });
}

/** The first of them. @throws as {@link loadWorkspaceCaches} does */
export async function loadDefaultCache(
  client: Pick<WorkspaceClient, "listCaches">,
  workspace: WorkspaceName | undefined,
  signal: AbortSignal,
): Promise<CacheName> {
  const [first] = await loadWorkspaceCaches(client, workspace, signal);
  if (first === undefined) throw new Error("a workspace without a cache");
  return first;
}

/** Reads files out of whichever of a workspace's caches has them; which these are is asked when the first is read. */
export function createWorkspaceCacheReader(
  client: Pick<CoordinatorClient, "listCaches" | "cacheReader">,
  workspace: WorkspaceName | undefined,
): CacheReader {
  let chosen: CacheReader | null = null;
  return {
    async readFile(path, options) {
      // A NAR is asked of the cache whose narinfo named it.
      if (chosen !== null && !path.endsWith(".narinfo")) return await chosen.readFile(path, options);
      for (const name of await loadWorkspaceCaches(client, workspace, options.signal)) {
        const reader = client.cacheReader(name);
        const file = await reader.readFile(path, options);
        if (file === null) continue;
        chosen = reader;
        return file;
      }
      return null;
    },
  };
}
