/** Tokens: only the SHA-256 of a secret is ever stored. */
import type { Selectable } from "kysely";
import type { TokenId } from "../../names.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type TokenRow = Selectable<Schema["tokens"]>;

export async function insertToken(database: CoordinatorDatabase, row: TokenRow): Promise<void> {
  await database.insertInto("tokens").values(row).execute();
}

export async function findToken(database: CoordinatorDatabase, id: TokenId): Promise<TokenRow | null> {
  return (await database.selectFrom("tokens").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
}

export type TokenQuery = {
  readonly workspaceIds: readonly string[];
  /** Those that are good everywhere, too. */
  readonly isGlobal: boolean;
  /** Behind this one. */
  readonly after: { readonly createdMs: number; readonly id: TokenId } | null;
  readonly limit: number;
};

/** Newest first. */
export async function listTokens(database: CoordinatorDatabase, query: TokenQuery): Promise<readonly TokenRow[]> {
  const { workspaceIds, isGlobal, after, limit } = query;
  let rows = database
    .selectFrom("tokens")
    .selectAll()
    .where(({ eb, or }) =>
      or([eb("workspace_id", "in", workspaceIds), ...(isGlobal ? [eb("workspace_id", "is", null)] : [])]),
    );
  if (after !== null) {
    rows = rows.where(({ eb, or, and }) =>
      or([
        eb("created_ms", "<", after.createdMs),
        and([eb("created_ms", "=", after.createdMs), eb("id", ">", after.id)]),
      ]),
    );
  }
  return await rows.orderBy("created_ms", "desc").orderBy("id").limit(limit).execute();
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
