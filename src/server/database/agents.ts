/** Registered agents and what they last said of their machine. Those that were removed are found by id and key only. */
import type { Selectable } from "kysely";
import type { AgentId, AgentName } from "../../names.ts";
import { updateRow } from "./bulk.ts";
import { compileOnce } from "./compiled.ts";
import { listed } from "./dialect.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type AgentRow = Selectable<Schema["agents"]>;

const LIST_MAX = 20_000;

export async function insertAgent(database: CoordinatorDatabase, row: AgentRow): Promise<void> {
  await database.insertInto("agents").values(row).execute();
}

const selectById = compileOnce((database, { id }: { readonly id: AgentId }) =>
  database.selectFrom("agents").selectAll().where("id", "=", id),
);

export async function findAgent(database: CoordinatorDatabase, id: AgentId): Promise<AgentRow | null> {
  return (await selectById(database, { id }))[0] ?? null;
}

const selectByKey = compileOnce((database, { publicKey }: { readonly publicKey: Uint8Array }) =>
  database.selectFrom("agents").selectAll().where("public_key", "=", publicKey),
);

export async function findAgentByKey(database: CoordinatorDatabase, publicKey: Uint8Array): Promise<AgentRow | null> {
  return (await selectByKey(database, { publicKey }))[0] ?? null;
}

export async function findAgentByName(
  database: CoordinatorDatabase,
  agent: { readonly workspaceId: string; readonly name: AgentName },
): Promise<AgentRow | null> {
  const row = await database
    .selectFrom("agents")
    .selectAll()
    .where("workspace_id", "=", agent.workspaceId)
    .where("name", "=", agent.name)
    .where("removed_ms", "is", null)
    .executeTakeFirst();
  return row ?? null;
}

/** The latest agent of this name that was removed, for its history. */
export async function findRemovedAgentByName(
  database: CoordinatorDatabase,
  agent: { readonly workspaceId: string; readonly name: AgentName },
): Promise<AgentRow | null> {
  const row = await database
    .selectFrom("agents")
    .selectAll()
    .where("workspace_id", "=", agent.workspaceId)
    .where("name", "=", agent.name)
    .where("removed_ms", "is not", null)
    .orderBy("removed_ms", "desc")
    .limit(1)
    .executeTakeFirst();
  return row ?? null;
}

const selectRemovedNames = compileOnce((database, { ids }: { readonly ids: string }) =>
  database
    .selectFrom("agents")
    .select("name")
    .where("id", "in", listed<AgentId>(ids))
    .where("removed_ms", "is not", null)
    .orderBy("name")
    .limit(LIST_MAX),
);

/** @returns the names of those that were removed */
export async function findRemovedNames(
  database: CoordinatorDatabase,
  ids: readonly AgentId[],
): Promise<readonly AgentName[]> {
  return (await selectRemovedNames(database, { ids: JSON.stringify(ids) })).map(({ name }) => name);
}

/** What is shown of an agent beside its deployments. */
export type AgentContactRow = Pick<AgentRow, "id" | "name" | "last_seen_ms">;

const selectContacts = compileOnce((database, { ids }: { readonly ids: string }) =>
  database.selectFrom("agents").select(["id", "name", "last_seen_ms"]).where("id", "in", listed<AgentId>(ids)),
);

export async function loadAgents(
  database: CoordinatorDatabase,
  ids: readonly AgentId[],
): Promise<ReadonlyMap<AgentId, AgentContactRow>> {
  if (ids.length === 0) return new Map();
  const rows = await selectContacts(database, { ids: JSON.stringify(ids) });
  return new Map(rows.map((row) => [row.id, row]));
}

/** By name. @param workspaceId null lists the agents of every workspace */
export async function listAgents(
  database: CoordinatorDatabase,
  workspaceId: string | null,
): Promise<readonly AgentRow[]> {
  let query = database.selectFrom("agents").selectAll().where("removed_ms", "is", null);
  if (workspaceId !== null) query = query.where("workspace_id", "=", workspaceId);
  return await query.orderBy("name").orderBy("id").limit(LIST_MAX).execute();
}

/** What an operator changes. */
export async function updateAgent(
  database: CoordinatorDatabase,
  id: AgentId,
  change: Partial<
    Pick<AgentRow, "name" | "former_names" | "operator_labels" | "removed_ms" | "public_key" | "admitted_by">
  >,
): Promise<void> {
  await database.updateTable("agents").set(change).where("id", "=", id).execute();
}

export type AgentFacts = Pick<
  AgentRow,
  "agent_version" | "nix_version" | "system" | "host_name" | "profile" | "state" | "last_seen_ms"
> &
  Partial<Pick<AgentRow, "labels">>;

/** Records what an agent said at its login. */
export async function saveAgentFacts(database: CoordinatorDatabase, id: AgentId, facts: AgentFacts): Promise<void> {
  await updateRow(database, "agents", { id, change: facts });
}

export async function saveAgentState(
  database: CoordinatorDatabase,
  id: AgentId,
  seen: Partial<Pick<AgentRow, "state">> & Pick<AgentRow, "last_seen_ms">,
): Promise<void> {
  await updateRow(database, "agents", { id, change: seen });
}

/** All of them by id, those that were removed too, page by page. */
export async function listAgentIds(
  database: CoordinatorDatabase,
  query: { readonly after: AgentId | null; readonly limit: number },
): Promise<readonly AgentId[]> {
  const all = database.selectFrom("agents").select("id").orderBy("id").limit(query.limit);
  const rows = await (query.after === null ? all : all.where("id", ">", query.after)).execute();
  return rows.map(({ id }) => id);
}

export type Announced = Pick<AgentRow, "id" | "name" | "workspace_id">;

/** Those of whom the log of events says that they are online. */
export async function listAnnouncedOnline(database: CoordinatorDatabase): Promise<readonly AgentId[]> {
  const rows = await database
    .selectFrom("agents")
    .select("id")
    .where("announced_online", "=", 1)
    .limit(LIST_MAX)
    .execute();
  return rows.map(({ id }) => id);
}

const markAnnounced = compileOnce((database, said: { readonly ids: string; readonly isOnline: 0 | 1 }) =>
  database
    .updateTable("agents")
    .set({ announced_online: said.isOnline })
    .where("id", "in", listed<AgentId>(said.ids))
    .returning(["id", "name", "workspace_id", "removed_ms"]),
);

/** Remembers what is said of agents from now on. @returns those of whom it is said: not those that were removed */
export async function announceAgents(
  transaction: CoordinatorDatabase,
  { ids, isOnline }: { readonly ids: readonly AgentId[]; readonly isOnline: 0 | 1 },
): Promise<readonly Announced[]> {
  if (ids.length === 0) return [];
  const rows = await markAnnounced(transaction, { ids: JSON.stringify(ids), isOnline });
  return rows.filter((row) => row.removed_ms === null);
}
