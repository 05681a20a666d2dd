/**
 * What must hold of a world. At any time: an agent has at most one deployment running and one waiting, besides what somebody
 * activates at the machine, and a deployment that has ended does not change. At the end, when nothing fails any more and
 * time went on: all that was acknowledged is there, everything has ended, once, and says what the device's own journal says.
 *
 * A coordinator that was restored from an older backup has lost what README and operating guide say, and nothing else:
 * rollouts that were started since the backup, and what devices have told since then and forgotten because it was
 * acknowledged. What a device still had to say, it says; of a deployment that was ended without its word, beside the state.
 *
 * | in the backup               | the device has             | afterwards                                          |
 * | --------------------------- | -------------------------- | --------------------------------------------------- |
 * | is not there                | anything                   | unknown; it goes on and forgets it when it has told |
 * | queued, offered, fetching   | nothing, or told its end   | cancelled, with a reason that says so               |
 * | queued, offered, fetching   | more to say                | the same, and what the device says as late outcome  |
 * | activating and later        | told its end               | degraded, with a reason that says so                |
 * | activating and later        | more to say                | what the device says                                |
 * | ended                       | anything                   | the same                                            |
 */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { z } from "zod";
import type { LogLine } from "../../src/api/deployments.ts";
import { DEPLOYMENT_STATES, isTerminal, OUTCOMES } from "../../src/deployment.ts";
import { type DeploymentId, parseDeploymentId } from "../../src/names.ts";
import type { ReportEntry } from "../../src/protocol.ts";
import { loadLogLines } from "../../src/server/database/logs.ts";
import { databaseFileOf } from "./coordinator-process.ts";
import type { KeptJournal } from "./device.ts";
import type { World } from "./world.ts";

const rowSchema = z.object({
  number: z.number(),
  id: z.string(),
  agent: z.string(),
  state: z.enum(DEPLOYMENT_STATES),
  reason: z.string().nullable(),
  fault: z.string().nullable(),
  exit_code: z.number().nullable(),
  stop_requested: z.string().nullable(),
  started_on_device: z.number(),
  store_path: z.string(),
  finished_ms: z.number().nullable(),
  late_outcome: z.enum(OUTCOMES).nullable(),
  late_reason: z.string().nullable(),
});
type Row = z.output<typeof rowSchema>;
const eventSchema = z.object({ deployment_id: z.string(), data: z.string() }).transform(({ deployment_id, data }) => ({
  deploymentId: deployment_id,
  ...z.object({ state: z.enum(DEPLOYMENT_STATES), reason: z.string().nullable() }).parse(JSON.parse(data)),
}));
type Event = z.output<typeof eventSchema>;

export type Known = { readonly rows: readonly Row[]; readonly events: readonly Event[] };

const LINES_MAX = 100_000;
/** From its being printed until the coordinator has a line, while nothing is in the way. */
const TOLD_WITHIN_MS = 6_000;
/** A frame that a restored coordinator's predecessor had sent may arrive so much later. */
const LATE_MS = 3 * 60_000;
const RESTORED = /^The coordinator was restored/;
/** Ended by the coordinator although the device may have had a word to say. */
const ENDED_UNHEARD = /^The coordinator was restored|it may have carried it out/;
const FORGOTTEN = /^The agent came back without any memory/;

/** What stands in the database, looked at from outside. */
export function readKnown({ directory }: World): Known {
  using database = new Database(databaseFileOf(join(directory, "data")), { strict: true });
  const rows = database.query(
    "select d.*, a.name as agent from deployments d join agents a on a.id = d.agent_id order by number",
  );
  const events = database.query("select * from events where kind = 'deployment' order by id");
  return { rows: z.array(rowSchema).parse(rows.all()), events: z.array(eventSchema).parse(events.all()) };
}

/** What must hold at any time. */
export function findDisorder({ rows, events }: Known): string[] {
  const faults: string[] = [];
  const going = new Map<string, Row[]>();
  // What somebody activates at the machine runs beside what the agent fetches.
  for (const row of rows) {
    if (isTerminal(row.state) || row.started_on_device === 1) continue;
    going.set(row.agent, [...(going.get(row.agent) ?? []), row]);
  }
  for (const [agent, live] of going) {
    const queued = live.filter(({ state }) => state === "queued").length;
    if (queued > 1) faults.push(`${agent} has ${queued} queued`);
    if (live.length - queued > 1) faults.push(`${agent} has ${live.length - queued} running`);
  }
  const last = new Map<string, Event["state"]>();
  for (const { deploymentId, state } of events) {
    const before = last.get(deploymentId);
    if (before !== undefined && isTerminal(before)) faults.push(`${deploymentId} was ${before} and became ${state}`);
    last.set(deploymentId, state);
  }
  for (const { id, state } of rows) {
    if (last.get(id) !== state) faults.push(`${id} is ${state}, its last event says ${last.get(id)}`);
  }
  return faults;
}

/** What has not come to rest yet. */
export function findUnrest(world: World, { rows }: Known): string[] {
  return [
    ...rows.filter(({ state }) => !isTerminal(state)).map(({ id, state, agent }) => `${id} of ${agent} is ${state}`),
    ...world.devices.flatMap((device) => device.unacknowledged().map((id) => `${device.name} still keeps ${id}`)),
  ];
}

/** Lines that were printed a while ago, by somebody who lives, and of which the coordinator does not know. */
export async function findUntold(world: World): Promise<string[]> {
  const untilMs = world.clock.nowMs() - TOLD_WITHIN_MS;
  const faults: string[] = [];
  for (const { name, hardware } of world.devices) {
    const due = hardware.said.filter(({ atMs, by }) => atMs <= untilMs && !by.isDead);
    for (const id of new Set(due.map(({ deploymentId }) => deploymentId))) {
      const stored = new Set((await loadLines(world, id)).map(({ text }) => text));
      const missing = due.filter(({ deploymentId, text }) => deploymentId === id && !stored.has(text));
      if (missing.length > 0)
        faults.push(`${name} keeps ${missing.length} lines of ${id} to itself: ${missing[0]?.text}`);
    }
  }
  return faults;
}

/** What must hold at the end. */
export async function findLies(world: World, known: Known): Promise<string[]> {
  const ids = new Set(known.rows.map(({ id }) => id));
  const faults = world.acknowledged
    .filter(({ atMs }) => !world.restored.some((restore) => restore.takenMs <= atMs && atMs <= restore.atMs))
    .flatMap(({ id, deployments }) =>
      deployments.filter((each) => !ids.has(each)).map((each) => `${each} of the rollout ${id} is not there`),
    );
  for (const row of known.rows) {
    const journals = journalsOf(world, row.id);
    faults.push(...judgeEnd(row, journals, world).map((fault) => `${row.id} of ${row.agent}: ${fault}`));
    faults.push(...(await judgeLog(row, journals, world)).map((fault) => `${row.id} of ${row.agent}: ${fault}`));
  }
  faults.push(...judgeUnknown(world, ids), ...judgeOrder(world, known));
  return faults;
}

type Journals = readonly KeptJournal[];

function journalsOf(world: World, id: string): Journals {
  return world.devices.flatMap((device) =>
    [...device.journals()].filter(([each]) => each === id).flatMap(([, all]) => all),
  );
}

const outcomesOf = ({ entries }: KeptJournal) => entries.filter((entry) => entry.type === "outcome");

/** It was told to a coordinator that has forgotten it by a restore; an acknowledgement may have been under way. */
function isUndone({ end }: KeptJournal, { restored }: World): boolean {
  return end.kind === "told" && restored.some(({ takenMs, atMs }) => takenMs <= end.atMs && end.atMs <= atMs + LATE_MS);
}

function judgeEnd(row: Row, journals: Journals, world: World): string[] {
  const wasLost = journals.some(({ end }) => end.kind === "lost");
  const heard = journals.filter((journal) => !isUndone(journal, world));
  const outcome = heard.flatMap(outcomesOf).at(-1);
  const outcomes = journals.flatMap(outcomesOf);
  if (row.late_outcome !== null && !outcomes.some((each) => isWord(row, each))) return ["a word that nobody said"];
  if (row.reason !== null && FORGOTTEN.test(row.reason)) {
    return wasLost || heard.length < journals.length ? [] : ["declared forgotten, and the device knew it"];
  }
  // What was lost before anybody heard of it may have been begun again, or given up.
  if (outcomes.length > (wasLost ? 2 : 1)) return [`the device ended it ${outcomes.length} times`];
  if (row.reason !== null && ENDED_UNHEARD.test(row.reason)) {
    if (RESTORED.test(row.reason) && world.restored.length === 0) return ["cancelled by a restore that never was"];
    return outcome === undefined || wasLost || isWord(row, outcome) ? [] : [`the device's word is kept nowhere`];
  }
  if (row.late_outcome !== null) return ["it had ended by the device's own word"];
  const neverBegan = row.state === "cancelled" || row.state === "superseded" || row.state === "expired";
  const told = outcome ?? outcomes.at(-1);
  if (told === undefined) return neverBegan ? [] : [`${row.state}, and the device knows of no end`];
  const isSame = row.state === told.outcome || (told.outcome === "cancelled" && row.state === "superseded");
  if (!isSame) return wasLost && neverBegan ? [] : [`${row.state}, and the device says ${told.outcome}`];
  if (row.state === "superseded") return [];
  const said = { reason: told.reason, fault: told.fault ?? null, exit_code: told.exitCode };
  const stored = { reason: row.reason, fault: row.fault, exit_code: row.exit_code };
  if (Bun.deepEquals(said, stored) || (wasLost && neverBegan)) return [];
  return [`stored ${JSON.stringify(stored)}, said ${JSON.stringify(said)}`];
}

function isWord(row: Row, { outcome, reason, exitCode }: Extract<ReportEntry, { type: "outcome" }>): boolean {
  return row.late_outcome === outcome && row.late_reason === reason && row.exit_code === exitCode;
}

/** The log is that of the last journal, whole; of one that was lost, or that a restore forgot, as far as it had come. */
async function judgeLog(row: Row, journals: Journals, world: World): Promise<string[]> {
  const lines = await loadLines(world, parseDeploymentId(row.id));
  const stored = lines.map(({ n, stream, text }) => ({ n, stream, text }));
  const printed = journals.map(({ entries }) =>
    entries.flatMap((entry) => (entry.type === "log" ? [{ n: entry.n, stream: entry.stream, text: entry.text }] : [])),
  );
  if (Bun.deepEquals(printed.at(-1) ?? [], stored)) return [];
  const mayBePart = journals.some((journal) => journal.end.kind === "lost" || isUndone(journal, world));
  const isPart = printed.some((whole) => Bun.deepEquals(whole.slice(0, stored.length), stored));
  if (mayBePart && (isPart || stored.length === 0)) return [];
  return [`its log has ${stored.length} lines, the device printed ${printed.map((whole) => whole.length).join(", ")}`];
}

/** @throws Error while no coordinator runs */
export async function loadLines({ coordinator }: World, deploymentId: DeploymentId): Promise<readonly LogLine[]> {
  if (coordinator === null) throw new Error("nobody is there to be asked for the log");
  const { database } = coordinator.coordinator.services;
  return await loadLogLines(database, { deploymentId, afterN: 0, limit: LINES_MAX });
}

/**
 * A device works on nothing that nobody asked for; a restore may have forgotten who did. A journal without an entry, begun
 * for an offer that waited behind a stuck disk, is no work yet.
 */
function judgeUnknown(world: World, ids: ReadonlySet<string>): string[] {
  const { devices, restored } = world;
  const mayBeForgotten = (beganMs: number) =>
    restored.some(({ takenMs, atMs }) => takenMs <= beganMs && beganMs <= atMs + LATE_MS);
  return devices.flatMap((device) =>
    [...device.journals()]
      .filter(([id, journals]) => {
        const first = journals.flatMap(({ entries }) => entries)[0];
        if (first === undefined || ids.has(id) || mayBeForgotten(first.atMs)) return false;
        // It tells of it by itself, perhaps long after, unless it has lost what it would tell.
        const isExcused = journals.some((journal) => journal.end.kind === "lost" || isUndone(journal, world));
        return !(isExcused && device.startedHere.has(id));
      })
      .map(([id]) => `${device.name} worked on ${id}, which nobody knows`),
  );
}

/** A device makes nothing live that is older than what it was offered and made live before, and nothing twice. */
function judgeOrder(world: World, { rows }: Known): string[] {
  const numbers = new Map(rows.map(({ id, number }) => [id, number]));
  const faults: string[] = [];
  for (const { name, hardware, startedHere } of world.devices) {
    let latest = 0;
    for (const { deploymentId } of hardware.activated) {
      // Numbered when the coordinator heard of it.
      if (startedHere.has(deploymentId)) continue;
      const number = numbers.get(deploymentId);
      if (number === undefined) continue;
      if (number < latest) faults.push(`${name} went back to ${deploymentId}`);
      latest = number;
    }
  }
  return faults;
}
