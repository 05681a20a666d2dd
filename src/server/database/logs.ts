/** Log lines of deployments, in compressed chunks: one row per report of an agent, never one per line. */
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { z } from "zod";
import { type LogLine, logLineSchema } from "../../api/deployments.ts";
import type { DeploymentId, RolloutId } from "../../names.ts";
import type { CoordinatorDatabase } from "./schema.ts";

export type LogChunk = { readonly id: number; readonly deploymentId: DeploymentId; readonly lines: readonly LogLine[] };

const linesSchema = z.array(logLineSchema);

export async function insertLogLines(
  database: CoordinatorDatabase,
  chunk: { readonly deploymentId: DeploymentId; readonly rolloutId: RolloutId; readonly lines: readonly LogLine[] },
): Promise<void> {
  const first = chunk.lines[0];
  const last = chunk.lines.at(-1);
  if (first === undefined || last === undefined) return;
  await database
    .insertInto("log_chunks")
    .values({
      deployment_id: chunk.deploymentId,
      rollout_id: chunk.rolloutId,
      first_n: first.n,
      last_n: last.n,
      body: new Uint8Array(zstdCompressSync(JSON.stringify(chunk.lines))),
    })
    .execute();
}

/** Chunks after a cursor, oldest first, of one rollout or of one deployment. */
export async function loadLogChunks(
  database: CoordinatorDatabase,
  query: {
    readonly of: { readonly rolloutId: RolloutId } | { readonly deploymentId: DeploymentId };
    readonly afterId: number;
    readonly limit: number;
  },
): Promise<readonly LogChunk[]> {
  const all = database.selectFrom("log_chunks").select(["id", "deployment_id", "body"]).where("id", ">", query.afterId);
  const rows = await ("rolloutId" in query.of
    ? all.where("rollout_id", "=", query.of.rolloutId)
    : all.where("deployment_id", "=", query.of.deploymentId)
  )
    .orderBy("id")
    .limit(query.limit)
    .execute();
  return rows.map((row) => ({ id: row.id, deploymentId: row.deployment_id, lines: decodeLines(row.body) }));
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
  return linesSchema.parse(JSON.parse(zstdDecompressSync(body).toString("utf8")));
}
