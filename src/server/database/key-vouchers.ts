/** Vouchers for keys of caches that somebody signed outside the coordinator; its own are made when they are told. */
import type { Selectable } from "kysely";
import type { CacheName } from "../../names.ts";
import { compileOnce } from "./compiled.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type KeyVoucherRow = Selectable<Schema["key_vouchers"]>;

/** Of one workspace. */
export const KEPT_VOUCHERS_MAX = 64;

const selectKeyVouchers = compileOnce((database, { workspaceId }: { readonly workspaceId: string }) =>
  database
    .selectFrom("key_vouchers")
    .selectAll()
    .where("workspace_id", "=", workspaceId)
    .orderBy("cache_name")
    .orderBy("voucher_key")
    .limit(KEPT_VOUCHERS_MAX),
);

/** By cache. */
export async function listKeyVouchers(
  database: CoordinatorDatabase,
  workspaceId: string,
): Promise<readonly KeyVoucherRow[]> {
  return await selectKeyVouchers(database, { workspaceId });
}

/** One by the same key for the same cache is replaced. */
export async function saveKeyVoucher(database: CoordinatorDatabase, row: KeyVoucherRow): Promise<void> {
  const { public_keys, at_ms, signature } = row;
  await database
    .insertInto("key_vouchers")
    .values(row)
    .onConflict((conflict) =>
      conflict.columns(["workspace_id", "cache_name", "voucher_key"]).doUpdateSet({ public_keys, at_ms, signature }),
    )
    .execute();
}

/** All for one cache. @returns how many there were */
export async function removeKeyVouchers(
  database: CoordinatorDatabase,
  of: { readonly workspaceId: string; readonly cacheName: CacheName },
): Promise<number> {
  const result = await database
    .deleteFrom("key_vouchers")
    .where("workspace_id", "=", of.workspaceId)
    .where("cache_name", "=", of.cacheName)
    .executeTakeFirst();
  return Number(result.numDeletedRows);
}
