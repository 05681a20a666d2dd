/**
 * What agents are told for keys of caches that they may not have pinned: by the operator's own key, signed elsewhere and
 * kept here, and by the coordinator's. The latter is the key of the workspace's oldest cache, which whoever enrolled since
 * has pinned; devices whose configuration names their keys do not take its word. It gives the coordinator nothing that it
 * lacked: what that key signs, such devices run anyway.
 */
import { NixdeployError } from "../../errors.ts";
import { KEY_VOUCHERS_MAX, type KeyVoucher, signKeyVoucher, whyNotVouched } from "../../key-voucher.ts";
import type { CacheName } from "../../names.ts";
import { formatPublicKey, parseSecretKey, publicKeyOf } from "../../nix/signing-key.ts";
import type { Clock } from "../../runtime.ts";
import { listCacheKeys } from "../database/cache-keys.ts";
import { type CacheRow, type ForeignCacheRow, listForeignCaches, listWorkspaceCaches } from "../database/caches.ts";
import { KEPT_VOUCHERS_MAX, type KeyVoucherRow, listKeyVouchers, saveKeyVoucher } from "../database/key-vouchers.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

export type VoucherSource = {
  readonly database: CoordinatorDatabase;
  /** `name:base64` of a secret key; remembered, since every login asks. */
  readonly publicKeyOf: (secretKey: string) => string;
  readonly signVoucher: SignVoucher;
};

type Claim = Pick<KeyVoucher, "cache" | "keys" | "atMs">;
export type SignVoucher = (secretKey: string, claim: Claim) => KeyVoucher;

/** Thousands of logins ask for the same few. */
const REMEMBERED_MAX = 1_000;

/** A signer that signs the same only once. */
export function createVoucherSigner(): SignVoucher {
  const signed = new Map<string, KeyVoucher>();
  return (secretKey, claim) => {
    const what = JSON.stringify([secretKey, claim]);
    const voucher = signed.get(what) ?? signKeyVoucher(parseSecretKey(secretKey), claim);
    if (signed.size >= REMEMBERED_MAX) signed.clear();
    signed.set(what, voucher);
    return voucher;
  };
}

/** For all caches of a workspace but the one whose key vouches; none when it has only that one. */
export async function describeVouchers(
  source: VoucherSource,
  of: {
    readonly workspaceId: string;
    readonly own: readonly CacheRow[];
    readonly foreign: readonly ForeignCacheRow[];
  },
): Promise<readonly KeyVoucher[]> {
  const { own, foreign } = of;
  if (own.length + foreign.length < 2) return [];
  const [oldest, ...others] = own.toSorted((a, b) => a.created_ms - b.created_ms || (a.name < b.name ? -1 : 1));
  if (oldest === undefined) return [];
  const claims: Claim[] = foreign.map(({ name, public_keys, changed_ms }) => ({
    ...{ cache: name, keys: public_keys.split("\n"), atMs: changed_ms },
  }));
  for (const row of others) {
    const rotations = await listCacheKeys(source.database, row.id);
    const atMs = rotations.at(-1)?.at_ms ?? row.created_ms;
    claims.push({ cache: row.name, keys: [source.publicKeyOf(row.secret_key)], atMs });
  }
  const kept = await listKeyVouchers(source.database, of.workspaceId);
  const names = new Set([...own, ...foreign].map(({ name }) => name));
  const told = kept.filter((row) => names.has(row.cache_name)).map(toVoucher);
  const made = claims.map((claim) => source.signVoucher(oldest.secret_key, claim));
  return [...told, ...made].slice(0, KEY_VOUCHERS_MAX);
}

/** So much may the clock of whoever signs be ahead of ours. */
const AHEAD_MAX_MS = 10 * 60_000;
const CLOCK_HINT = "Is the clock of the machine that signed it right?";

/** It is anybody's number, and dates end. */
function describeTime(atMs: number): string {
  return atMs <= 8.64e15 ? new Date(atMs).toISOString() : `${atMs} ms`;
}

/**
 * Keeps what somebody has signed outside, for agents to be told.
 * @throws NixdeployError `refused` when it is not signed by the key that it names, dated in the future, or not about keys
 *   that the cache has ·
 *   `not-found` for a cache that the workspace does not have · `conflict` when there are too many, or a newer one
 */
export async function keepVoucher(
  deps: { readonly database: CoordinatorDatabase; readonly clock: Pick<Clock, "nowMs"> },
  { workspaceId, voucher }: { readonly workspaceId: string; readonly voucher: KeyVoucher & { cache: CacheName } },
): Promise<void> {
  const refuse = (why: string, hint: string) =>
    new NixdeployError("refused", `cannot keep the voucher for the cache ${voucher.cache}: ${why}`, { hint });
  const fault = whyNotVouched(voucher);
  if (fault !== null) throw refuse(fault, "`nixdeploy cache vouch` makes and sends one.");
  // Devices take nothing older than what they took: until that time came, nobody could vouch for other keys.
  if (voucher.atMs > deps.clock.nowMs() + AHEAD_MAX_MS) {
    throw refuse(`it is dated in the future (${describeTime(voucher.atMs)})`, CLOCK_HINT);
  }
  await deps.database.transaction().execute(async (transaction) => {
    const keys = await findKeys(transaction, { workspaceId, name: voucher.cache });
    const unknown = voucher.keys.filter((key) => !keys.includes(key));
    if (unknown.length > 0) {
      throw refuse(`the cache does not sign with ${unknown.join(", ")}`, "`nixdeploy cache list --json` has its keys.");
    }
    const kept = await listKeyVouchers(transaction, workspaceId);
    const before = kept.find((row) => row.cache_name === voucher.cache && row.voucher_key === voucher.by);
    if (before === undefined && kept.length >= KEPT_VOUCHERS_MAX) {
      throw new NixdeployError("conflict", `cannot keep another voucher: the workspace has ${kept.length} already`);
    }
    if (before !== undefined && before.at_ms > voucher.atMs) {
      throw new NixdeployError("conflict", "cannot keep the voucher: the key has signed a newer one for this cache", {
        hint: CLOCK_HINT,
      });
    }
    await saveKeyVoucher(transaction, toRow(workspaceId, voucher));
  });
}

async function findKeys(
  transaction: CoordinatorDatabase,
  of: { readonly workspaceId: string; readonly name: CacheName },
): Promise<readonly string[]> {
  const own = (await listWorkspaceCaches(transaction, of.workspaceId)).find(({ name }) => name === of.name);
  if (own !== undefined) return [formatPublicKey(publicKeyOf(parseSecretKey(own.secret_key)))];
  const foreign = (await listForeignCaches(transaction, of.workspaceId)).find(({ name }) => name === of.name);
  if (foreign !== undefined) return foreign.public_keys.split("\n");
  throw new NixdeployError("not-found", `cannot find the cache ${of.name} in this workspace`);
}

export function toVoucher(row: KeyVoucherRow): KeyVoucher {
  const { cache_name: cache, public_keys, voucher_key: by, at_ms: atMs, signature } = row;
  return { cache, keys: public_keys.split("\n"), by, atMs, signature };
}

function toRow(workspaceId: string, voucher: KeyVoucher & { readonly cache: CacheName }): KeyVoucherRow {
  const { cache, keys, by, atMs, signature } = voucher;
  return {
    ...{ workspace_id: workspaceId, cache_name: cache, voucher_key: by },
    ...{ public_keys: keys.join("\n"), at_ms: atMs, signature },
  };
}
