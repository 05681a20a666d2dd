/** Log lines of deployments, in compressed chunks: one row per report of an agent, never one per line. */
import { type Selectable, sql } from "kysely";
import { z } from "zod";
import { type LogLine, logLineSchema } from "../../api/deployments.ts";
import type { AgentId, DeploymentId, RolloutId } from "../../names.ts";
import { compileOnce } from "./compiled.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type LogChunk = {
  readonly id: number;
  readonly deploymentId: DeploymentId;
  /**
   * `LogLine[]`, as it was checked and written. Whoever passes it on need not parse it: a follower of a thousand agents
   * would else cost more than their reports.
   */
  readonly linesJson: string;
};

/** What is read at once for somebody who follows. */
const READ_BYTES_MAX = 1024 * 1024;
const READ_CHUNKS_MAX = 200;

const linesSchema = z.array(logLineSchema);

export async function insertLogLines(
  database: CoordinatorDatabase,
  chunk: { readonly deploymentId: DeploymentId; readonly rolloutId: RolloutId; readonly lines: readonly LogLine[] },
): Promise<void> {
  const first = chunk.lines[0];
  const last = chunk.lines.at(-1);
  if (first === undefined || last === undefined) return;
  const text = Buffer.from(JSON.stringify(chunk.lines));
  await insertChunk(database, {
    deployment_id: chunk.deploymentId,
    rollout_id: chunk.rolloutId,
    first_n: first.n,
    last_n: last.n,
    text_bytes: text.length,
    // Bun's own, which unlike node:zlib's leaves no stream to collect behind: half of the time for so little text.
    body: Bun.zstdCompressSync(text),
  });
}

const insertChunk = compileOnce((database, row: Omit<Selectable<Schema["log_chunks"]>, "id">) => {
  const { deployment_id, rollout_id, first_n, last_n, text_bytes, body } = row;
  return database.insertInto("log_chunks").values({ deployment_id, rollout_id, first_n, last_n, text_bytes, body });
});

/** The newest chunk of all; 0 when there is none. */
export async function findLastChunkId(database: CoordinatorDatabase): Promise<number> {
  const row = await database.selectFrom("log_chunks").select("id").orderBy("id", "desc").limit(1).executeTakeFirst();
  return row?.id ?? 0;
}

/**
 * The next chunks of one rollout or of one deployment, oldest first: at least one if there is any, and not more than
 * {@link READ_BYTES_MAX} unless that one is larger, however much was written.
 */
export async function loadLogChunks(
  database: CoordinatorDatabase,
  query: {
    readonly of: { readonly rolloutId: RolloutId } | { readonly deploymentId: DeploymentId };
    readonly afterId: number;
    /** Inclusive. */
    readonly throughId: number;
  },
): Promise<readonly LogChunk[]> {
  const between = database
    .selectFrom("log_chunks")
    .where("id", ">", query.afterId)
    .where("id", "<=", query.throughId)
    .orderBy("id");
  const chosen =
    "rolloutId" in query.of
      ? between.where("rollout_id", "=", query.of.rolloutId)
      : between.where("deployment_id", "=", query.of.deploymentId);
  const sizes = await chosen.select(["id", "text_bytes"]).limit(READ_CHUNKS_MAX).execute();
  let lastId = query.afterId;
  let totalBytes = 0;
  for (const { id, text_bytes } of sizes) {
    totalBytes += text_bytes;
    if (totalBytes > READ_BYTES_MAX && lastId > query.afterId) break;
    lastId = id;
  }
  const rows = await chosen.where("id", "<=", lastId).select(["id", "deployment_id", "body"]).execute();
  return rows.map((row) => ({ id: row.id, deploymentId: row.deployment_id, linesJson: decompress(row.body) }));
}

/** Lines of one deployment with n > `afterN`, in order, at most `limit`. */
export async function loadLogLines(
  database: CoordinatorDatabase,
  query: { readonly deploymentId: DeploymentId; readonly afterN: number; readonly limit: number },
): Promise<readonly LogLine[]> {
  const lines: LogLine[] = [];
  let afterN = query.afterN;
  while (lines.length < query.limit) {
    const row = await database
      .selectFrom("log_chunks")
      .select(["last_n", "body"])
      .where("deployment_id", "=", query.deploymentId)
      .where("last_n", ">", afterN)
      .orderBy("first_n")
      .limit(1)
      .executeTakeFirst();
    if (row === undefined) break;
    for (const line of decodeLines(row.body)) if (line.n > afterN) lines.push(line);
    afterN = row.last_n;
  }
  return lines.slice(0, query.limit);
}

function decodeLines(body: Uint8Array): readonly LogLine[] {
  return linesSchema.parse(JSON.parse(decompress(body)));
}

function decompress(body: Uint8Array): string {
  return Bun.zstdDecompressSync(body).toString("utf8");
}

/** Logs of a workspace's deployments that ended before a time, the oldest first. */
export async function listLogsEndedBefore(
  database: CoordinatorDatabase,
  query: { readonly workspaceId: string; readonly untilMs: number; readonly limit: number },
): Promise<readonly DeploymentId[]> {
  const rows = await database
    .selectFrom("deployments")
    .select("id")
    // Word for word as in the index: it is not used for values that are bound.
    .where("log_bytes", ">", sql.lit(0))
    .where("finished_ms", "<", query.untilMs)
    .where("workspace_id", "=", query.workspaceId)
    .orderBy("finished_ms")
    .limit(query.limit)
    .execute();
  return rows.map(({ id }) => id);
}

/** Logs of an agent's deployments that have ended, but for its newest deployments. */
export async function listLogsBehind(
  database: CoordinatorDatabase,
  query: { readonly agentId: AgentId; readonly newest: number; readonly limit: number },
): Promise<readonly DeploymentId[]> {
  const ofAgent = database.selectFrom("deployments").where("agent_id", "=", query.agentId);
  const last = await ofAgent
    .select("number")
    .orderBy("number", "desc")
    .offset(query.newest)
    .limit(1)
    .executeTakeFirst();
  if (last === undefined) return [];
  const rows = await ofAgent
    .select("id")
    .where("number", "<=", last.number)
    .where("log_bytes", ">", 0)
    .where("finished_ms", "is not", null)
    .orderBy("number")
    .limit(query.limit)
    .execute();
  return rows.map(({ id }) => id);
}

/** Deletes from the beginning of a log, and marks it as expired when nothing is left. @returns whether it is */
export async function deleteSomeLog(
  transaction: CoordinatorDatabase,
  { id, chunksMax }: { readonly id: DeploymentId; readonly chunksMax: number },
): Promise<boolean> {
  const ofDeployment = transaction.selectFrom("log_chunks").select("id").where("deployment_id", "=", id);
  const rows = await ofDeployment.orderBy("first_n").limit(chunksMax).execute();
  const ids = rows.map((row) => row.id);
  if (ids.length > 0) await transaction.deleteFrom("log_chunks").where("id", "in", ids).execute();
  if (ids.length === chunksMax) return false;
  await transaction.updateTable("deployments").set({ log_bytes: 0, log_expired: 1 }).where("id", "=", id).execute();
  return true;
}
