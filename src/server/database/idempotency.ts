/** Which rollout a request with an idempotency key has started. */
import type { Selectable } from "kysely";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type IdempotencyKeyRow = Selectable<Schema["idempotency_keys"]>;

export async function findIdempotencyKey(
  database: CoordinatorDatabase,
  wanted: Pick<IdempotencyKeyRow, "owner" | "key"> & { readonly sinceMs: number },
): Promise<IdempotencyKeyRow | null> {
  const row = await database
    .selectFrom("idempotency_keys")
    .selectAll()
    .where("owner", "=", wanted.owner)
    .where("key", "=", wanted.key)
    .where("created_ms", ">", wanted.sinceMs)
    .executeTakeFirst();
  return row ?? null;
}

/** Fails when the key stands already; what is older than `sinceMs` makes room first. */
export async function insertIdempotencyKey(
  transaction: CoordinatorDatabase,
  { row, sinceMs }: { readonly row: IdempotencyKeyRow; readonly sinceMs: number },
): Promise<void> {
  await transaction.deleteFrom("idempotency_keys").where("created_ms", "<=", sinceMs).execute();
  await transaction.insertInto("idempotency_keys").values(row).execute();
}
