/** Tokens: only the SHA-256 of a secret is ever stored. */
import type { Selectable } from "kysely";
import type { TokenId } from "../../names.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type TokenRow = Selectable<Schema["tokens"]>;

const LIST_MAX = 10_000;

export async function insertToken(database: CoordinatorDatabase, row: TokenRow): Promise<void> {
  await database.insertInto("tokens").values(row).execute();
}

export async function findToken(database: CoordinatorDatabase, id: TokenId): Promise<TokenRow | null> {
  return (await database.selectFrom("tokens").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
}

/** Newest first. @param workspaceId null lists the tokens of every workspace */
export async function listTokens(
  database: CoordinatorDatabase,
  workspaceId: string | null,
): Promise<readonly TokenRow[]> {
  let query = database.selectFrom("tokens").selectAll();
  if (workspaceId !== null) query = query.where("workspace_id", "=", workspaceId);
  return await query.orderBy("created_ms", "desc").orderBy("id").limit(LIST_MAX).execute();
}

/** Whether there has ever been an admin token; the first start writes one. */
export async function hasAdminToken(database: CoordinatorDatabase): Promise<boolean> {
  const row = await database.selectFrom("tokens").select("id").where("kind", "=", "admin").limit(1).executeTakeFirst();
  return row !== undefined;
}

/** Does nothing to a token that is revoked already. */
export async function revokeToken(
  database: CoordinatorDatabase,
  token: { readonly id: TokenId; readonly atMs: number },
): Promise<void> {
  await database
    .updateTable("tokens")
    .set({ revoked_ms: token.atMs })
    .where("id", "=", token.id)
    .where("revoked_ms", "is", null)
    .execute();
}

export async function touchToken(
  database: CoordinatorDatabase,
  token: { readonly id: TokenId; readonly atMs: number },
): Promise<void> {
  await database.updateTable("tokens").set({ last_used_ms: token.atMs }).where("id", "=", token.id).execute();
}

/**
 * Counts one more agent that this token admits, unless it has admitted as many as it may.
 * @returns false when it has; one statement, so that of two at once with one use left only one gets true
 */
export async function takeTokenUse(database: CoordinatorDatabase, id: TokenId): Promise<boolean> {
  const taken = await database
    .updateTable("tokens")
    .set(({ eb }) => ({ uses: eb("uses", "+", 1) }))
    .where("id", "=", id)
    .where((eb) => eb.or([eb("uses_max", "is", null), eb("uses", "<", eb.ref("uses_max"))]))
    .returning("id")
    .executeTakeFirst();
  return taken !== undefined;
}

/** Those of a workspace that are neither revoked nor expired. */
export async function countValidTokens(
  database: CoordinatorDatabase,
  of: { readonly workspaceId: string; readonly nowMs: number },
): Promise<number> {
  const row = await database
    .selectFrom("tokens")
    .select((expression) => expression.fn.countAll<number>().as("count"))
    .where("workspace_id", "=", of.workspaceId)
    .where("revoked_ms", "is", null)
    .where((expression) =>
      expression.or([expression("expires_ms", "is", null), expression("expires_ms", ">", of.nowMs)]),
    )
    .executeTakeFirstOrThrow();
  return row.count;
}
