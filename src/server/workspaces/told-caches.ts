/**
 * Which caches a workspace's agents are told of, in the order in which they ask them: ours, the default first, then foreign
 * ones. At each login, and those that are connected whenever it changes, so that what is deployed next finds them knowing.
 */
import { formatPublicKey, parseSecretKey, publicKeyOf } from "../../nix/signing-key.ts";
import type { CoordinatorFrameInput } from "../../protocol.ts";
import type { AgentRegistry, LiveAgent } from "../agents/registry.ts";
import { loadKeyStatements } from "../cache/rotate-cache-key.ts";
import { type CacheRow, listForeignCaches, listWorkspaceCaches } from "../database/caches.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { createVoucherSigner, describeVouchers, type VoucherSource } from "./vouchers.ts";

type Described = Omit<Extract<CoordinatorFrameInput, { kind: "caches" }>, "kind">;

export type ToldCaches = {
  describe(workspaceId: string): Promise<Described>;
  /** How often something changed: what was described before may be out of date. */
  readonly changes: number;
  tell(agent: Pick<LiveAgent, "workspaceId" | "send">): Promise<void>;
  /** Something has changed. Resolves when all that are connected have been told. */
  tellAll(workspaceId: string): Promise<void>;
};

export function createToldCaches(deps: {
  readonly database: CoordinatorDatabase;
  readonly registry: Pick<AgentRegistry, "ids" | "find">;
}): ToldCaches {
  const source = { ...deps, publicKeyOf: createPublicKeys(), signVoucher: createVoucherSigner() };
  let changes = 0;
  const describe = async (workspaceId: string) => await describeCaches(source, workspaceId);
  return {
    describe,
    get changes() {
      return changes;
    },
    async tell(agent) {
      agent.send({ kind: "caches", ...(await describe(agent.workspaceId)) });
    },
    async tellAll(workspaceId) {
      changes += 1;
      const frame = { kind: "caches", ...(await describe(workspaceId)) } as const;
      for (const id of deps.registry.ids()) {
        const agent = deps.registry.find(id);
        if (agent?.workspaceId === workspaceId) agent.send(frame);
      }
    },
  };
}

/** A key is looked into once, not at each login. Few: one for each cache. */
function createPublicKeys(): (secretKey: string) => string {
  const known = new Map<string, string>();
  return (secretKey) => {
    const publicKey = known.get(secretKey) ?? formatPublicKey(publicKeyOf(parseSecretKey(secretKey)));
    known.set(secretKey, publicKey);
    return publicKey;
  };
}

async function describeCaches(source: VoucherSource, workspaceId: string): Promise<Described> {
  const { database } = source;
  const own = await listWorkspaceCaches(database, workspaceId);
  const foreign = await listForeignCaches(database, workspaceId);
  const [first, ...others] = own;
  if (first === undefined) throw new Error(`the workspace ${workspaceId} has no cache`);
  const cache = await describeOne(source, first);
  if (others.length + foreign.length === 0) return { cache };
  const substituters: Described["substituters"] = [];
  for (const row of others) substituters.push({ own: true, ...(await describeOne(source, row)) });
  for (const { name, url, public_keys } of foreign) {
    substituters.push({ own: false, name, url, publicKeys: public_keys.split("\n") });
  }
  return { cache, substituters, keyVouchers: [...(await describeVouchers(source, { workspaceId, own, foreign }))] };
}

async function describeOne({ database, publicKeyOf: toPublic }: VoucherSource, row: CacheRow) {
  const keyStatements = await loadKeyStatements(database, row);
  return {
    name: row.name,
    path: `/cache/${row.name}`,
    publicKeys: [toPublic(row.secret_key)],
    ...(keyStatements.length === 0 ? {} : { keyStatements: [...keyStatements] }),
  };
}
