/**
 * Backups while uploads, rollouts and reports go on: each restored copy is one moment's state. What a backup names is in
 * the NAR files that were copied after it, and what of a journal counts as stored is there to the last line.
 */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { deploymentListSchema, logPageSchema } from "../../../src/api/deployments.ts";
import { openOfflineCoordinator } from "../../../src/server/offline.ts";
import { restoreBackup } from "../../../src/server/operations/backup.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { runChecked, runProcess } from "../../support/processes.ts";
import { logEntry, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const BACKUPS = 3;
const LINES = 20;
const SYSTEM = createTinyPath("system");

/** Rounds of work until it is told to stop; at least one more than there are backups. */
async function work(signal: AbortSignal, round: (index: number) => Promise<void>) {
  for (let index = 0; !signal.aborted || index <= BACKUPS; index += 1) {
    await round(index);
    // Everything is in this process: without a turn of the event loop nobody would hear of the other's end.
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function putUnderLoad(server: TestCoordinator, signal: AbortSignal): Promise<void> {
  const agent = await server.connectAgent("nuc");
  const uploads = work(signal, async (index) => {
    const library = createTinyPath(`library-${index}`);
    await server.push(library, createTinyPath(`program-${index}`, { references: [library.storePath] }));
  });
  const deployments = work(signal, async () => {
    const id = (await server.activate(SYSTEM, "nuc")).deployments[0]?.id;
    if (id === undefined) throw new Error("no deployment");
    const lines = Array.from({ length: LINES }, (_, line) => logEntry(`line ${line}`));
    await agent.report(id, numberEntries([phaseEntry("activating"), ...lines.slice(0, LINES / 2)]));
    await agent.report(id, numberEntries([...lines.slice(LINES / 2), outcomeEntry("succeeded")], 2 + LINES / 2));
  });
  await Promise.all([uploads, deployments]);
}

/** As the operator's guide has it: the database, then the NAR files, without those that are coming in. */
async function backUp(server: TestCoordinator, to: string): Promise<void> {
  const words = ["backup", `${to}.db`, "--data-dir", server.directory, "--json"];
  const result = await runProcess([process.execPath, "src/start.ts", ...words]);
  expect([result.exitCode, result.stderr]).toEqual([0, ""]);
  await mkdir(join(to, "nars"), { recursive: true, mode: 0o700 });
  await runChecked(["sh", "-c", 'cp -a "$0"/nars/?? "$1"/nars/', server.directory, to]);
}

async function expectConsistent(directory: string): Promise<number> {
  using database = new Database(join(directory, "coordinator.db"), { readonly: true });
  const dangling = database.query(
    "select 1 from paths p left join nars n using (cache_id, file_hash) where n.file_hash is null",
  );
  expect(dangling.all()).toEqual([]);
  const rows = database.query<{ id: string; state: string; through: number }, []>(
    "select id, state, journal_through as through from deployments order by number",
  );
  const through = new Map(rows.all().map((row) => [row.id, row]));
  await using coordinator = await openOfflineCoordinator(directory);
  const get = async (path: string) => {
    const answer = await coordinator.fetch(new Request(`http://restored/api/v1/${path}`));
    expect([path, answer.status]).toEqual([path, 200]);
    return (await answer.json()) as unknown;
  };
  const { deployments } = deploymentListSchema.parse(await get("deployments?limit=1000"));
  expect(deployments).toHaveLength(through.size);
  for (const { id, state } of deployments) {
    const row = through.get(id);
    const { lines } = logPageSchema.parse(await get(`deployments/${id}/log`));
    // The first entry of the journal is a phase, the last one the outcome.
    const stored = Math.max(0, Math.min(LINES, (row?.through ?? 0) - 1));
    expect([state, lines.map(({ n }) => n)]).toEqual([state, Array.from({ length: stored }, (_, index) => index + 2)]);
    expect(state === "succeeded").toBe(row?.through === LINES + 2);
  }
  return deployments.length;
}

test("every backup that is taken under load can be restored, whole", async () => {
  await using server = await createTestCoordinator({ database: "file" });
  await using kept = await createTemporaryDirectory("backup-load");
  await server.push(SYSTEM);
  const stop = new AbortController();
  const load = putUnderLoad(server, stop.signal);
  try {
    for (let round = 0; round < BACKUPS; round += 1) await backUp(server, kept.join(`${round}`));
  } finally {
    stop.abort();
    await load;
  }
  const counts: number[] = [];
  for (let round = 0; round < BACKUPS; round += 1) {
    const dataDirectory = kept.join(`${round}`);
    const file = `${dataDirectory}.db`;
    const report = await restoreBackup({ file, dataDirectory, replace: false, clock: createManualClock() });
    expect(report).toMatchObject({ forgottenPaths: 0, replaced: null });
    counts.push(await expectConsistent(dataDirectory));
  }
  // There was load: each copy has more than the one before.
  expect(counts).toEqual([...new Set(counts)].sort((a, b) => a - b));
}, 60_000);
