/** Log lines of many agents at once, until all are on the disk, while one of the logs is followed. */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { createEventStreamParser } from "../../src/http/event-stream.ts";
import { createTemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { type Bench, megabytes } from "../report.ts";
import { AT_ONCE } from "./idle.ts";
import { startLoad } from "./load.ts";
import { type EntryInput, planOf } from "./load-plan.ts";
import { agentName } from "./load-process.ts";
import { startServed } from "./served.ts";

const AGENTS = 200;
const LINES = 5_000;
const MS_PER_S = 1_000;

export const intake: Bench = {
  name: "coordinator-logs",
  summary: `${AGENTS} agents report ${LINES} log lines each, against compressing and inserting them without more`,
  async run() {
    await using served = await startServed();
    await using load = startLoad();
    await load.run({ kind: "set", url: served.agentUrl, token: await served.makeToken() });
    await load.run({ kind: "connect", from: 0, to: AGENTS, atOnce: AT_ONCE });
    const { storePath } = await served.push("bench");
    await load.run({ kind: "reset" });
    await load.run({ kind: "set", plan: { kind: "logs", lines: LINES } });
    const startCpu = served.cpuSeconds();
    const names = Array.from({ length: AGENTS }, (_, index) => agentName(index));
    const body = { agents: Object.fromEntries(names.map((name) => [name, storePath])), mode: "switch" };
    const followed = follow(await (await served.request("rollouts", body)).json(), served.request);
    const ended = await load.waitFor("the last line", ({ done }) => done >= AGENTS);
    const cpu = served.cpuSeconds() - startCpu;
    const tail = await followed;
    const seconds = (ended.lastDoneMs - ended.firstReportMs) / MS_PER_S;
    const peerSeconds = await measurePeer();
    return {
      figures: [
        { label: "processor for all lines", value: cpu, unit: "s" },
        { label: "lines by a second of processor", value: (AGENTS * LINES) / cpu, unit: "lines/s" },
        { label: "lines by a second", value: (AGENTS * LINES) / seconds, unit: "lines/s" },
        { label: "peer, lines by a second", value: (AGENTS * LINES) / peerSeconds, unit: "lines/s" },
        { label: "lines that the follower saw", value: tail.lines, unit: "" },
        megabytes("coordinator after it", served.memory().totalBytes),
      ],
      ratios: [{ label: "time by peer", value: seconds / peerSeconds }],
      reaches: [
        { label: "a million lines", value: seconds, unit: "s", most: 10 },
        {
          label: "shown after the last is stored",
          value: (tail.endMs - ended.lastDoneMs) / MS_PER_S,
          unit: "s",
          most: 1,
        },
      ],
    };
  },
};

/** The whole rollout, as `activate` does: the harder case. */
async function follow(started: unknown, request: (path: string) => Promise<Response>) {
  if (typeof started !== "object" || started === null || !("id" in started)) throw new Error("no rollout came");
  const parser = createEventStreamParser();
  let lines = 0;
  for await (const chunk of (await request(`rollouts/${started.id}/follow`)).body ?? []) {
    for (const { event, data } of parser.push(chunk)) if (event === "log") lines += data.split('"n":').length - 1;
  }
  return { lines, endMs: Date.now() };
}

/** The same lines into SQLite: JSON, zstd, one insert a report, a synced commit for every 16 of them. */
async function measurePeer(): Promise<number> {
  await using directory = await createTemporaryDirectory("bench-sqlite");
  const database = new Database(join(directory.path, "peer.db"), { create: true, strict: true });
  for (const pragma of ["journal_mode = wal", "synchronous = full"]) database.run(`pragma ${pragma}`);
  database.run("create table chunks (id integer primary key, body blob not null)");
  const insert = database.prepare("insert into chunks (body) values (?)");
  const startMs = performance.now();
  let pending: EntryInput[][] = [];
  const commit = database.transaction((reports: readonly EntryInput[][]) => {
    for (const report of reports) insert.run(new Uint8Array(zstdCompressSync(JSON.stringify(report))));
  });
  const plan = planOf({ kind: "logs", lines: LINES });
  for (let agent = 0; agent < AGENTS && plan.kind === "deploy"; agent += 1) {
    const journal = plan.journalOf();
    for (let next = journal.next(); next.done !== true; next = journal.next()) {
      pending.push(next.value);
      if (pending.length < 16) continue;
      commit(pending);
      pending = [];
    }
  }
  commit(pending);
  database.close();
  return (performance.now() - startMs) / MS_PER_S;
}
