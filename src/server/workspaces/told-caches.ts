/** Which caches a workspace's agents are told of, in the order in which they ask them: ours, the default first, then foreign ones. */
import type { CoordinatorFrameInput } from "../../protocol.ts";
import { loadKeyStatements } from "../cache/rotate-cache-key.ts";
import { type CacheRow, listForeignCaches, listWorkspaceCaches } from "../database/caches.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

type Welcome = Extract<CoordinatorFrameInput, { kind: "welcome" }>;

export type ToldCachesDeps = {
  readonly database: CoordinatorDatabase;
  /** `name:base64` of a secret key; remembered, since every login asks. */
  readonly publicKeyOf: (secretKey: string) => string;
};

export async function describeCaches(
  deps: ToldCachesDeps,
  workspaceId: string,
): Promise<Pick<Welcome, "cache" | "substituters">> {
  const { database } = deps;
  const [first, ...others] = await listWorkspaceCaches(database, workspaceId);
  if (first === undefined) throw new Error(`the workspace ${workspaceId} has no cache`);
  const substituters: Welcome["substituters"] = [];
  for (const row of others) substituters.push({ own: true, ...(await describe(deps, row)) });
  for (const { name, url, public_keys } of await listForeignCaches(database, workspaceId)) {
    substituters.push({ own: false, name, url, publicKeys: public_keys.split("\n") });
  }
  const cache = await describe(deps, first);
  return { cache, ...(substituters.length === 0 ? {} : { substituters }) };
}

async function describe({ database, publicKeyOf }: ToldCachesDeps, row: CacheRow) {
  const keyStatements = await loadKeyStatements(database, row);
  return {
    name: row.name,
    path: `/cache/${row.name}`,
    publicKeys: [publicKeyOf(row.secret_key)],
    ...(keyStatements.length === 0 ? {} : { keyStatements: [...keyStatements] }),
  };
}
