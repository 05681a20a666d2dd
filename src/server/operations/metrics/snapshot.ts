/**
 * What is asked when somebody looks: agents, deployments, storage, the process. Whose workspaces the reader may not see
 * are left out; what is about the whole coordinator everybody sees who sees any of it, as with `GET /api/v1/status`.
 */
import { DEPLOYMENT_STATES, type DeploymentState, isTerminal } from "../../../deployment.ts";
import type { WorkspaceName } from "../../../names.ts";
import type { Clock } from "../../../runtime.ts";
import { type AgentPeaks, monthOf } from "../../agents/peaks.ts";
import type { AgentRegistry } from "../../agents/registry.ts";
import { listAgentPeaks } from "../../database/agent-peaks.ts";
import {
  countChanges,
  countUnfinished,
  findLastEventId,
  listSeenAgents,
  type StateCount,
} from "../../database/counts.ts";
import { readDatabaseBytes, writeAheadLogOf } from "../../database/dialect.ts";
import type { CoordinatorDatabase } from "../../database/schema.ts";
import { countStalled } from "../../database/stalls.ts";
import { countFailingWebhooks } from "../../database/webhooks.ts";
import type { Readiness } from "../readiness.ts";
import { readFileSize, readRoom, type StoragePlaces } from "../storage.ts";
import { type Family, OTHER, type Sample, singleGauge } from "./exposition.ts";
import type { Meters } from "./meters.ts";
import { readProcessFamilies } from "./process.ts";

export type MetricsDeps = {
  readonly database: CoordinatorDatabase;
  readonly registry: AgentRegistry;
  readonly peaks: AgentPeaks;
  readonly clock: Clock;
  readonly meters: Meters;
  readonly readiness: Readiness;
  readonly storage: StoragePlaces | null;
  readonly version: string;
  readonly startedMs: number;
};

/** By id. */
type Workspaces = ReadonlyMap<string, WorkspaceName>;

export type Metrics = {
  /** Families of what the reader may see. */
  collect(workspaces: Workspaces): Promise<readonly Family[]>;
  /** Counts what has ended since the last time; now and then, so that no look has to do much. */
  catchUp(): Promise<void>;
};

/** Workspaces with series of their own, by name; the rest is added up. */
const WORKSPACES_MAX = 100;
const RUNNING = DEPLOYMENT_STATES.filter((state) => !isTerminal(state));
const ENDED = DEPLOYMENT_STATES.filter(isTerminal);
const CONTACTS = ["online", "offline", "unknown"] as const;

/** Counts of what ends begin here: what ended before belongs to the process before. */
export async function createMetrics(deps: MetricsDeps): Promise<Metrics> {
  const ended = createEndedCounts(deps.database, await findLastEventId(deps.database));
  return {
    catchUp: ended.catchUp,
    async collect(workspaces) {
      await ended.catchUp();
      return [
        ...deps.meters.collect(),
        await collectAgents(deps, workspaces),
        await collectPeaks(deps, workspaces),
        stateFamily(workspaces, {
          name: "nixdeploy_deployments",
          help: "Deployments that have not ended, by state.",
          type: "gauge",
          states: RUNNING,
          counts: await countUnfinished(deps.database),
        }),
        stateFamily(workspaces, {
          name: "nixdeploy_deployments_ended_total",
          help: "Deployments that ended since the process began, by how.",
          type: "counter",
          states: ENDED,
          counts: ended.list(),
        }),
        singleGauge(
          "nixdeploy_deployments_stalled",
          "Deployments that run, and of which nothing comes any more.",
          await countStalled(deps.database, [...workspaces.keys()]),
        ),
        singleGauge(
          "nixdeploy_webhooks_failing",
          "Webhooks whose receiver takes nothing.",
          await countFailingWebhooks(deps.database, [...workspaces.keys()]),
        ),
        ...(await collectStorage(deps)),
        {
          name: "nixdeploy_build_info",
          help: "Which version this is.",
          type: "gauge",
          samples: [{ labels: { version: deps.version }, value: 1 }],
        },
        ...(await readProcessFamilies(deps)),
      ];
    },
  };
}

function createEndedCounts(database: CoordinatorDatabase, startId: number) {
  const totals = new Map<string, StateCount>();
  let throughId = startId;
  const count = async () => {
    const lastId = await findLastEventId(database);
    // A database that was put back begins anew.
    if (lastId <= throughId) return;
    const counts = await countChanges(database, { afterId: throughId, throughId: lastId, states: ENDED });
    throughId = lastId;
    for (const row of counts) {
      const key = `${row.workspaceId} ${row.state}`;
      totals.set(key, { ...row, count: row.count + (totals.get(key)?.count ?? 0) });
    }
  };
  let queue: Promise<void> = Promise.resolve();
  return {
    catchUp() {
      // One after the other, or two would count the same.
      queue = queue.then(count, count);
      return queue;
    },
    list: () => [...totals.values()],
  };
}

async function collectAgents(deps: MetricsDeps, workspaces: Workspaces): Promise<Family> {
  const counts = createWorkspaceCounts(workspaces, CONTACTS);
  for (const agent of await listSeenAgents(deps.database)) {
    const contact = deps.registry.contact({ agentId: agent.id, lastSeenMs: agent.lastSeenMs });
    counts.add(agent.workspaceId, contact, 1);
  }
  return {
    name: "nixdeploy_agents",
    help: "Agents by contact; unknown: silent, but not for long enough to count as offline.",
    type: "gauge",
    samples: counts.samples("contact"),
  };
}

/** Of this month. */
async function collectPeaks({ database, peaks, clock }: MetricsDeps, workspaces: Workspaces): Promise<Family> {
  await peaks.save();
  const month = monthOf(clock.nowMs());
  const table = createWorkspaceCounts(workspaces, [month]);
  for (const row of await listAgentPeaks(database, [...workspaces.keys()])) {
    if (row.month === month) table.add(row.workspace_id, month, row.peak);
  }
  return {
    name: "nixdeploy_agents_peak",
    help: "Agents connected at once at most in this month, UTC.",
    type: "gauge",
    samples: table.samples("month"),
  };
}

function stateFamily(
  workspaces: Workspaces,
  family: Omit<Family, "samples"> & {
    readonly states: readonly DeploymentState[];
    readonly counts: readonly StateCount[];
  },
): Family {
  const { states, counts, ...described } = family;
  const table = createWorkspaceCounts(workspaces, states);
  for (const { workspaceId, state, count } of counts) table.add(workspaceId, state, count);
  return { ...described, samples: table.samples("state") };
}

/** A number for each workspace and value, 0 included, so that a series does not appear with its first event. */
function createWorkspaceCounts<Value extends string>(workspaces: Workspaces, values: readonly Value[]) {
  const names = [...workspaces.values()].sort();
  const shown = new Set(names.slice(0, WORKSPACES_MAX));
  const labels = names.length > WORKSPACES_MAX ? [...shown, OTHER] : [...shown];
  const table = new Map(labels.map((label) => [label, new Map(values.map((value) => [value, 0]))]));
  return {
    add(workspaceId: string, value: Value, count: number) {
      const name = workspaces.get(workspaceId);
      if (name === undefined) return;
      const row = table.get(shown.has(name) ? name : OTHER);
      row?.set(value, (row.get(value) ?? 0) + count);
    },
    samples: (label: string): Sample[] =>
      [...table].flatMap(([workspace, row]) =>
        [...row].map(([value, count]) => ({ labels: { workspace, [label]: value }, value: count })),
      ),
  };
}

async function collectStorage({ database, storage, readiness }: MetricsDeps): Promise<readonly Family[]> {
  const { latest } = readiness;
  const ready = "Whether the last look found the coordinator ready (1) or not (0).";
  return [
    singleGauge("nixdeploy_database_bytes", "The database without its log.", await readDatabaseBytes(database)),
    ...(latest === null ? [] : [singleGauge("nixdeploy_ready", ready, latest.reasons.length === 0 ? 1 : 0)]),
    ...(storage === null ? [] : await collectDisks(storage)),
  ];
}

async function collectDisks({ databaseFile, narsDirectory }: StoragePlaces): Promise<readonly Family[]> {
  const log = await readFileSize(writeAheadLogOf(databaseFile));
  const rooms = [
    { labels: { of: "database" }, room: await readRoom(databaseFile) },
    { labels: { of: "nars" }, room: await readRoom(narsDirectory) },
  ];
  const gauge = (name: string, help: string, of: "freeBytes" | "totalBytes"): Family => ({
    name,
    help,
    type: "gauge",
    samples: rooms.flatMap(({ labels, room }) => (room === null ? [] : [{ labels, value: room[of] }])),
  });
  return [
    singleGauge("nixdeploy_database_log_bytes", "The database's write-ahead log.", log),
    gauge("nixdeploy_disk_free_bytes", "Room on the file system, for the coordinator's user.", "freeBytes"),
    gauge("nixdeploy_disk_size_bytes", "Size of the file system.", "totalBytes"),
  ];
}
