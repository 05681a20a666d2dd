/**
 * What must hold of a world. At any time: an agent has at most one deployment running and one waiting, and a deployment
 * that has ended does not change. At the end, when nothing fails any more and time went on: all that was acknowledged is
 * there, everything has ended, once, and says what the device's own journal says.
 *
 * What a coordinator knows that was restored from an older backup is what README and operating guide promise of it:
 *
 * | in the backup                  | afterwards                                                                |
 * | ------------------------------ | ------------------------------------------------------------------------- |
 * | is not there                   | unknown; an agent that works on it goes on and forgets it when it has told |
 * | queued, offered, fetching      | cancelled, with a reason that says so                                     |
 * | activating and later           | what the agent says; degraded if it had told its end already, and forgot it |
 * | ended                          | the same                                                                  |
 */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { z } from "zod";
import { DEPLOYMENT_STATES, isTerminal } from "../../src/deployment.ts";
import { parseDeploymentId } from "../../src/names.ts";
import type { ReportEntry } from "../../src/protocol.ts";
import { loadLogLines } from "../../src/server/database/logs.ts";
import { databaseFileOf } from "./coordinator-process.ts";
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
  store_path: z.string(),
  finished_ms: z.number().nullable(),
});
type Row = z.output<typeof rowSchema>;
const eventSchema = z.object({ deployment_id: z.string(), data: z.string() }).transform(({ deployment_id, data }) => ({
  deploymentId: deployment_id,
  ...z.object({ state: z.enum(DEPLOYMENT_STATES), reason: z.string().nullable() }).parse(JSON.parse(data)),
}));
type Event = z.output<typeof eventSchema>;

export type Known = { readonly rows: readonly Row[]; readonly events: readonly Event[] };

const LINES_MAX = 100_000;
const RESTORED = /^The coordinator was restored/;
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
  for (const row of rows) if (!isTerminal(row.state)) going.set(row.agent, [...(going.get(row.agent) ?? []), row]);
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

type Journals = readonly (readonly ReportEntry[])[];

function journalsOf(world: World, id: string): Journals {
  return world.devices.flatMap((device) =>
    [...device.journals()].filter(([each]) => each === id).flatMap(([, all]) => all),
  );
}

function judgeEnd(row: Row, journals: Journals, world: World): string[] {
  const wasRestored = world.restored.length > 0;
  const wasLost = isLost(row, world);
  const outcomes = journals.flatMap((entries) => entries.filter((entry) => entry.type === "outcome"));
  if (row.reason !== null && RESTORED.test(row.reason)) {
    return wasRestored ? [] : ["cancelled by a restore that never was"];
  }
  if (row.reason !== null && FORGOTTEN.test(row.reason)) {
    return wasLost || wasRestored ? [] : ["declared forgotten, and the device knew it"];
  }
  // What was lost before anybody heard of it may have been begun again, or given up.
  if (outcomes.length > (wasLost ? 2 : 1)) return [`the device ended it ${outcomes.length} times`];
  const neverBegan = row.state === "cancelled" || row.state === "superseded";
  const outcome = outcomes.at(-1);
  if (outcome === undefined) return neverBegan ? [] : [`${row.state}, and the device knows of no end`];
  const isSame = row.state === outcome.outcome || (outcome.outcome === "cancelled" && row.state === "superseded");
  if (!isSame) return wasLost && neverBegan ? [] : [`${row.state}, and the device says ${outcome.outcome}`];
  if (row.state === "superseded") return [];
  const said = { reason: outcome.reason, fault: outcome.fault ?? null, exit_code: outcome.exitCode };
  const stored = { reason: row.reason, fault: row.fault, exit_code: row.exit_code };
  if (Bun.deepEquals(said, stored) || (wasLost && neverBegan)) return [];
  return [`stored ${JSON.stringify(stored)}, said ${JSON.stringify(said)}`];
}

function isLost({ id }: Row, { devices }: World): boolean {
  return devices.some(({ lost }) => [...lost].some((each) => each === id));
}

/** The log is that of the last journal, whole; of one that was lost, as far as it had come. */
async function judgeLog(row: Row, journals: Journals, world: World): Promise<string[]> {
  const database = world.coordinator?.coordinator.services.database;
  if (database === undefined) return ["nobody is there to be asked for the log"];
  const deploymentId = parseDeploymentId(row.id);
  const lines = await loadLogLines(database, { deploymentId, afterN: 0, limit: LINES_MAX });
  const stored = lines.map(({ n, stream, text }) => ({ n, stream, text }));
  const printed = journals.map((entries) =>
    entries.flatMap((entry) => (entry.type === "log" ? [{ n: entry.n, stream: entry.stream, text: entry.text }] : [])),
  );
  if (Bun.deepEquals(printed.at(-1) ?? [], stored)) return [];
  const mayBePart = world.restored.length > 0 || isLost(row, world);
  const isPart = printed.some((whole) => Bun.deepEquals(whole.slice(0, stored.length), stored));
  if (mayBePart && (isPart || stored.length === 0)) return [];
  return [`its log has ${stored.length} lines, the device printed ${printed.map((whole) => whole.length).join(", ")}`];
}

/** A device ends nothing that nobody asked for. */
function judgeUnknown(world: World, ids: ReadonlySet<string>): string[] {
  if (world.restored.length > 0) return [];
  return world.devices.flatMap((device) =>
    [...device.journals().keys()]
      .filter((id) => !ids.has(id))
      .map((id) => `${device.name} worked on ${id}, which nobody knows`),
  );
}

/** A device makes nothing live that is older than what it made live before, and nothing twice. */
function judgeOrder(world: World, { rows }: Known): string[] {
  const numbers = new Map(rows.map(({ id, number }) => [id, number]));
  const faults: string[] = [];
  for (const { name, hardware } of world.devices) {
    let latest = 0;
    for (const { deploymentId } of hardware.activated) {
      const number = numbers.get(deploymentId);
      if (number === undefined) continue;
      if (number < latest) faults.push(`${name} went back to ${deploymentId}`);
      latest = number;
    }
  }
  return faults;
}
