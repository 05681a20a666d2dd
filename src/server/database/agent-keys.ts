/** Keys beside those that agents have now: keys that were retired, and keys that ask to become an agent's. */
import type { Selectable } from "kysely";
import type { AgentName } from "../../names.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type RetiredKeyRow = Selectable<Schema["retired_keys"]>;
export type EnrolmentRequestRow = Selectable<Schema["enrolment_requests"]>;

const LIST_MAX = 20_000;

export async function insertRetiredKey(database: CoordinatorDatabase, row: RetiredKeyRow): Promise<void> {
  await database.insertInto("retired_keys").values(row).execute();
}

export async function findRetiredKey(
  database: CoordinatorDatabase,
  publicKey: Uint8Array,
): Promise<RetiredKeyRow | null> {
  const query = database.selectFrom("retired_keys").selectAll().where("public_key", "=", publicKey);
  return (await query.executeTakeFirst()) ?? null;
}

/** The newest request for a name takes the place of an older one. */
export async function saveEnrolmentRequest(database: CoordinatorDatabase, row: EnrolmentRequestRow): Promise<void> {
  const { workspace_id: _workspace, name: _name, ...change } = row;
  await database
    .insertInto("enrolment_requests")
    .values(row)
    .onConflict((conflict) => conflict.columns(["workspace_id", "name"]).doUpdateSet(change))
    .execute();
}

type NameInWorkspace = { readonly workspaceId: string; readonly name: AgentName };

export async function findEnrolmentRequest(
  database: CoordinatorDatabase,
  { workspaceId, name }: NameInWorkspace,
): Promise<EnrolmentRequestRow | null> {
  const query = database.selectFrom("enrolment_requests").selectAll().where("workspace_id", "=", workspaceId);
  return (await query.where("name", "=", name).executeTakeFirst()) ?? null;
}

/** By name. */
export async function listEnrolmentRequests(
  database: CoordinatorDatabase,
  workspaceIds: readonly string[],
): Promise<readonly EnrolmentRequestRow[]> {
  const query = database.selectFrom("enrolment_requests").selectAll().where("workspace_id", "in", workspaceIds);
  return await query.orderBy("name").orderBy("workspace_id").limit(LIST_MAX).execute();
}

export async function deleteEnrolmentRequest(
  database: CoordinatorDatabase,
  { workspaceId, name }: NameInWorkspace,
): Promise<void> {
  const query = database.deleteFrom("enrolment_requests").where("workspace_id", "=", workspaceId);
  await query.where("name", "=", name).execute();
}
