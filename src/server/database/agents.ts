/** Registered agents and what they last said of their machine. */
import type { Selectable } from "kysely";
import type { AgentId, AgentName } from "../../names.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type AgentRow = Selectable<Schema["agents"]>;

const LIST_MAX = 20_000;

export async function insertAgent(database: CoordinatorDatabase, row: AgentRow): Promise<void> {
  await database.insertInto("agents").values(row).execute();
}

export async function findAgent(database: CoordinatorDatabase, id: AgentId): Promise<AgentRow | null> {
  return (await database.selectFrom("agents").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
}

export async function findAgentByKey(database: CoordinatorDatabase, publicKey: Uint8Array): Promise<AgentRow | null> {
  const row = await database.selectFrom("agents").selectAll().where("public_key", "=", publicKey).executeTakeFirst();
  return row ?? null;
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
    .executeTakeFirst();
  return row ?? null;
}

/** By name. @param workspaceId null lists the agents of every workspace */
export async function listAgents(
  database: CoordinatorDatabase,
  workspaceId: string | null,
): Promise<readonly AgentRow[]> {
  let query = database.selectFrom("agents").selectAll();
  if (workspaceId !== null) query = query.where("workspace_id", "=", workspaceId);
  return await query.orderBy("name").orderBy("id").limit(LIST_MAX).execute();
}

export type AgentFacts = Pick<
  AgentRow,
  "agent_version" | "nix_version" | "system" | "host_name" | "profile" | "state" | "last_seen_ms"
>;

/** Records what an agent said at its login. */
export async function saveAgentFacts(database: CoordinatorDatabase, id: AgentId, facts: AgentFacts): Promise<void> {
  await database.updateTable("agents").set(facts).where("id", "=", id).execute();
}

export async function saveAgentState(
  database: CoordinatorDatabase,
  id: AgentId,
  seen: Partial<Pick<AgentRow, "state">> & Pick<AgentRow, "last_seen_ms">,
): Promise<void> {
  await database.updateTable("agents").set(seen).where("id", "=", id).execute();
}
