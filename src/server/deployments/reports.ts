/**
 * Takes in what agents report of their deployments: stores entries in order, drops those it has, applies phases and
 * outcomes to the lifecycle, all in one transaction. The acknowledgement leaves after the commit.
 */
import type { LogLine } from "../../api/deployments.ts";
import type { AgentId, DeploymentId } from "../../names.ts";
import { type AgentFrame, REPORT_ENTRIES_MAX, type ReportEntry } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { Bus } from "../bus.ts";
import { changedColumns } from "../database/bulk.ts";
import { type DeploymentRow, findDeployment, updateDeployment } from "../database/deployments.ts";
import { insertEvents, type NewEvent } from "../database/events.ts";
import { insertLogLines } from "../database/logs.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import { fitLines } from "../logs/log-limit.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import { planLateOutcome } from "./late-outcome.ts";
import { requeueIfWanted } from "./requeue.ts";
import { type Happened, planTransition, QUEUE_TOPIC, rolloutTopic } from "./transition.ts";

export type ReportResult = {
  /** Everything up to here is stored; the agent sends from the next one. */
  readonly through: number;
  /** The deployment reached its end with this report. */
  readonly ended: boolean;
};

type ReportFrame = Extract<AgentFrame, { kind: "report" }>;

/**
 * What an agent has reported of one deployment and nobody has begun to store. Agents send the next report before the one
 * before it is acknowledged; where those wait together, they are stored together and acknowledged once.
 */
export class OpenReport {
  readonly deploymentId: DeploymentId;
  readonly agentId: AgentId;
  readonly #entries: ReportEntry[];
  #isClosed = false;

  constructor(agentId: AgentId, { deploymentId, entries }: ReportFrame) {
    this.agentId = agentId;
    this.deploymentId = deploymentId;
    this.#entries = entries;
  }

  /** @returns false when it belongs elsewhere, or comes too late: then it is a report of its own */
  add({ deploymentId, entries }: ReportFrame): boolean {
    const fits = this.#entries.length + entries.length <= REPORT_ENTRIES_MAX;
    if (this.#isClosed || deploymentId !== this.deploymentId || !fits) return false;
    this.#entries.push(...entries);
    return true;
  }

  /** Takes no more. */
  close(): readonly ReportEntry[] {
    this.#isClosed = true;
    return this.#entries;
  }
}

export async function takeReport(
  deps: {
    readonly writes: WriteQueue;
    readonly bus: Bus;
    readonly meters: Meters;
    readonly clock: Clock;
    readonly random: Random;
  },
  report: OpenReport,
): Promise<ReportResult> {
  const stored = await deps.writes.write(async (transaction) => {
    const entries = report.close();
    const row = await findDeployment(transaction, report.deploymentId);
    if (row === null || row.agent_id !== report.agentId) return null;
    const now = { nowMs: deps.clock.nowMs(), random: deps.random };
    return { before: row, after: await store(transaction, row, nextEntries(row.journal_through, entries), now) };
  });
  const entries = report.close();
  // Not ours (a database restored from an older backup, say): let the agent put it aside.
  if (stored === null) return { through: entries.at(-1)?.n ?? 0, ended: true };
  const { before, after } = stored;
  const isNew = ({ type, n }: ReportEntry) =>
    type === "log" && n > before.journal_through && n <= after.journal_through;
  deps.meters.logLines(entries.filter(isNew).length);
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
  const { lines, ...kept } = fitLines(row, linesOf(entries));
  await insertLogLines(transaction, { deploymentId: row.id, rolloutId: row.rollout_id, lines });
  const { changes, events, ended } = planEntries(row, entries, now.nowMs);
  const update = changedColumns(row, { ...changes, ...kept, journal_through: last.n });
  await updateDeployment(transaction, row.id, update);
  await insertEvents(transaction, events);
  const after: DeploymentRow = { ...row, ...update };
  if (ended !== null) await requeueIfWanted(transaction, { before: ended, after }, now);
  return after;
}

function linesOf(entries: readonly ReportEntry[]): readonly LogLine[] {
  const lines: LogLine[] = [];
  for (const entry of entries) {
    if (entry.type !== "log") continue;
    lines.push({ n: entry.n, at: new Date(entry.atMs).toISOString(), stream: entry.stream, text: entry.text });
  }
  return lines;
}

type EntriesPlan = {
  readonly changes: Partial<DeploymentRow>;
  readonly events: readonly NewEvent[];
  /** The deployment as it was when its outcome came and ended it; null when none did. */
  readonly ended: DeploymentRow | null;
};

/** What the phases and the outcome among the entries make of a deployment. Pure. */
function planEntries(row: DeploymentRow, entries: readonly ReportEntry[], nowMs: number): EntriesPlan {
  const events: NewEvent[] = [];
  let changes: Partial<DeploymentRow> = {};
  let current = row;
  let ended: DeploymentRow | null = null;
  for (const entry of entries) {
    if (entry.type === "log") continue;
    const transition = planTransition(current, happenedOf(current, entry, nowMs));
    const late = entry.type === "outcome" ? planLateOutcome(current, { ...entry, atMs: nowMs }) : null;
    const happened = transition ?? late;
    if (happened === null) continue;
    if (entry.type === "outcome" && transition !== null) ended = current;
    events.push(happened.event);
    changes = { ...changes, ...happened.update, ...factsOf(current, entry) };
    current = { ...current, ...changes };
  }
  return { changes, events, ended };
}

type TransitionEntry = Exclude<ReportEntry, { type: "log" }>;

function happenedOf(row: DeploymentRow, entry: TransitionEntry, nowMs: number): Happened {
  if (entry.type === "phase") return { event: { type: "phase", phase: entry.phase }, atMs: nowMs };
  const { outcome, reason } = entry;
  return { event: { type: "outcome", outcome, reason }, atMs: endedMs(row, entry, nowMs) };
}

/** What an entry says besides the state. */
function factsOf(row: DeploymentRow, entry: TransitionEntry): Partial<DeploymentRow> {
  const previous_path = entry.previousPath ?? row.previous_path;
  if (entry.type === "phase") {
    return { previous_path, confirm_window_ms: entry.confirmWindowMs ?? row.confirm_window_ms };
  }
  return {
    previous_path,
    fetched_bytes: entry.fetchedBytes,
    exit_code: entry.exitCode,
    phase_ms: JSON.stringify(entry.phaseMs),
    fault: entry.fault ?? null,
    unit_changes: entry.unitChanges === undefined ? null : JSON.stringify(entry.unitChanges),
  };
}

/** What was started on the device ended when its journal says, however much later we were told. */
function endedMs(row: DeploymentRow, entry: ReportEntry, nowMs: number): number {
  return row.started_on_device === 0 ? nowMs : Math.min(nowMs, Math.max(row.started_ms ?? 0, entry.atMs));
}
