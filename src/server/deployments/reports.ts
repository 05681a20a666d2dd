/**
 * Takes in what agents report of their deployments: stores entries in order, drops those it has, applies phases and
 * outcomes to the lifecycle, all in one transaction. The acknowledgement leaves after the commit.
 */
import type { LogLine } from "../../api/deployments.ts";
import type { AgentId, DeploymentId } from "../../names.ts";
import type { ReportEntry } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { Bus } from "../bus.ts";
import { type DeploymentRow, findDeployment, updateDeployment } from "../database/deployments.ts";
import { insertLogLines } from "../database/logs.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import { requeueIfWanted } from "./requeue.ts";
import { applyEvent, QUEUE_TOPIC, rolloutTopic } from "./transition.ts";

export type ReportResult = {
  /** Everything up to here is stored; the agent sends from the next one. */
  readonly through: number;
  /** The deployment reached its end with this report. */
  readonly ended: boolean;
};

export async function takeReport(
  deps: {
    readonly database: CoordinatorDatabase;
    readonly bus: Bus;
    readonly meters: Meters;
    readonly clock: Clock;
    readonly random: Random;
  },
  report: { readonly agentId: AgentId; readonly deploymentId: DeploymentId; readonly entries: readonly ReportEntry[] },
): Promise<ReportResult> {
  const before = await findDeployment(deps.database, report.deploymentId);
  if (before === null || before.agent_id !== report.agentId) {
    // Not ours (a database restored from an older backup, say): let the agent put it aside.
    return { through: report.entries.at(-1)?.n ?? 0, ended: true };
  }
  const after = await deps.database.transaction().execute(async (transaction) => {
    const row = await findDeployment(transaction, report.deploymentId);
    if (row === null) throw new Error(`deployment ${report.deploymentId} vanished`);
    return await store(transaction, row, nextEntries(row.journal_through, report.entries), {
      nowMs: deps.clock.nowMs(),
      random: deps.random,
    });
  });
  deps.meters.logLines(
    report.entries.filter(({ type, n }) => type === "log" && n > before.journal_through && n <= after.journal_through)
      .length,
  );
  deps.bus.publish(rolloutTopic(after.rollout_id));
  // It may be tried again.
  if (after.state === "rolled-back") deps.bus.publish(QUEUE_TOPIC);
  return { through: after.journal_through, ended: after.finished_ms !== null };
}

/** The entries that continue the journal without a gap; entries known already and those behind a gap are left out. */
export function nextEntries(through: number, entries: readonly ReportEntry[]): readonly ReportEntry[] {
  const next: ReportEntry[] = [];
  for (const entry of entries) if (entry.n === through + next.length + 1) next.push(entry);
  return next;
}

type Now = { readonly nowMs: number; readonly random: Random };

async function store(
  transaction: CoordinatorDatabase,
  row: DeploymentRow,
  entries: readonly ReportEntry[],
  now: Now,
): Promise<DeploymentRow> {
  const last = entries.at(-1);
  if (last === undefined) return row;
  const lines = entries.flatMap((entry): LogLine[] =>
    entry.type === "log"
      ? [{ n: entry.n, at: new Date(entry.atMs).toISOString(), stream: entry.stream, text: entry.text }]
      : [],
  );
  await insertLogLines(transaction, { deploymentId: row.id, rolloutId: row.rollout_id, lines });
  await updateDeployment(transaction, row.id, { journal_through: last.n });
  let current: DeploymentRow = { ...row, journal_through: last.n };
  for (const entry of entries) current = await applyEntry(transaction, current, entry, now);
  return current;
}

async function applyEntry(
  transaction: CoordinatorDatabase,
  row: DeploymentRow,
  entry: ReportEntry,
  now: Now,
): Promise<DeploymentRow> {
  switch (entry.type) {
    case "log":
      return row;
    case "phase": {
      const after = await applyEvent(transaction, row, {
        event: { type: "phase", phase: entry.phase },
        atMs: now.nowMs,
      });
      if (after === row || entry.previousPath === null) return after;
      await updateDeployment(transaction, row.id, { previous_path: entry.previousPath });
      return { ...after, previous_path: entry.previousPath };
    }
    case "outcome": {
      const after = await applyEvent(transaction, row, {
        event: { type: "outcome", outcome: entry.outcome, reason: entry.reason },
        atMs: endedMs(row, entry, now.nowMs),
      });
      if (after === row) return row;
      const facts = {
        previous_path: entry.previousPath ?? row.previous_path,
        fetched_bytes: entry.fetchedBytes,
        exit_code: entry.exitCode,
        phase_ms: JSON.stringify(entry.phaseMs),
        fault: entry.fault ?? null,
        unit_changes: entry.unitChanges === undefined ? null : JSON.stringify(entry.unitChanges),
      };
      await updateDeployment(transaction, row.id, facts);
      const ended = { ...after, ...facts };
      await requeueIfWanted(transaction, { before: row, after: ended }, now);
      return ended;
    }
    default:
      return entry satisfies never;
  }
}

/** What was started on the device ended when its journal says, however much later we were told. */
function endedMs(row: DeploymentRow, entry: ReportEntry, nowMs: number): number {
  return row.started_on_device === 0 ? nowMs : Math.min(nowMs, Math.max(row.started_ms ?? 0, entry.atMs));
}
