/** Backups: one moment's state, taken while the coordinator works; and what a restore makes of one. */
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, statSync } from "node:fs";
import { copyFile, cp, mkdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { deploymentListSchema } from "../../../src/api/deployments.ts";
import { parseStorePathHash, storePathHash } from "../../../src/nix/store-path.ts";
import { restoreBackup, writeBackup } from "../../../src/server/operations/backup.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { runProcess } from "../../support/processes.ts";
import { numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { createTinyPath, type TinyPath } from "../../support/tiny-path.ts";

const LIBRARY = createTinyPath("library");
const PROGRAM = createTinyPath("program", { references: [LIBRARY.storePath] });
const OTHER = createTinyPath("other");

const databaseOf = (directory: string) => join(directory, "coordinator.db");
const clock = createManualClock();

/** A coordinator that was ended after a backup, whose folder a restore may go to. */
async function backUp(work: (server: TestCoordinator) => Promise<void>) {
  const stack = new AsyncDisposableStack();
  const kept = stack.use(await createTemporaryDirectory("backup"));
  const server = await createTestCoordinator({ database: "file" });
  await using _ = server;
  await work(server);
  const file = kept.join("backup.db");
  await writeBackup({ databaseFile: databaseOf(server.directory), file });
  await cp(join(server.directory, "nars"), kept.join("nars"), { recursive: true });
  return { file, nars: kept.join("nars"), directory: kept, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Starts on a restored folder by putting its files where a new coordinator of the test looks. */
async function readRestored(directory: string) {
  using database = new Database(databaseOf(directory), { readonly: true });
  const states = database.query<{ state: string; reason: string | null }, []>(
    "select state, reason from deployments order by number",
  );
  const paths = database.query<{ store_path: string }, []>("select store_path from paths order by store_path");
  return {
    states: states.all().map(({ state }) => state),
    reasons: states.all().map(({ reason }) => reason ?? ""),
    paths: paths.all().map((row) => row.store_path),
  };
}

const sorted = (...paths: readonly TinyPath[]) => paths.map(({ storePath }) => String(storePath)).sort();

describe("a backup", () => {
  test("is one moment's state, while rollouts are started beside it", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await using directory = await createTemporaryDirectory("backup");
    await server.publishUnseen(PROGRAM, LIBRARY);
    await server.connectAgent("nuc");
    let isOver = false;
    const load = (async () => {
      let started = 0;
      for (; !isOver; started += 1) {
        await server.activate(PROGRAM, "nuc");
        // Everything is in this process: without a turn of the event loop nobody would hear of the other's end.
        await new Promise((resolve) => setImmediate(resolve));
      }
      return started;
    })();
    const files: string[] = [];
    for (let round = 0; round < 3; round += 1) {
      const file = directory.join(`backup-${round}.db`);
      const words = ["backup", file, "--data-dir", server.directory, "--json"];
      const result = await runProcess([process.execPath, "src/start.ts", ...words]);
      expect(result.stderr).toBe("");
      expect(JSON.parse(result.stdout)).toEqual({ file, sizeBytes: statSync(file).size });
      files.push(file);
    }
    isOver = true;
    const started = await load;
    for (const file of files) {
      using copy = new Database(file, { readonly: true });
      // Each rollout is one transaction: it is there with its deployment and its event, or not at all.
      const count = (sql: string) => Number(Object.values(copy.query(sql).get() as object)[0]);
      const rollouts = count("select count(*) from rollouts");
      expect(rollouts).toBeGreaterThan(0);
      expect(rollouts).toBeLessThanOrEqual(started);
      expect(count("select count(*) from deployments")).toBe(rollouts);
      expect(count("select count(distinct deployment_id) from events where kind = 'deployment'")).toBe(rollouts);
      expect(statSync(file).mode & 0o777).toBe(0o600);
    }
  });

  test("replaces the one before, and leaves nothing else", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await using directory = await createTemporaryDirectory("backup");
    const file = directory.join("backup.db");
    await writeFile(file, "older");
    await writeFile(`${file}.new`, "left by one that was killed");
    await writeBackup({ databaseFile: databaseOf(server.directory), file });
    expect(readdirSync(directory.path)).toEqual(["backup.db"]);
  });

  test("says what it lacks", async () => {
    await using directory = await createTemporaryDirectory("backup");
    const missing = { databaseFile: directory.join("coordinator.db"), file: directory.join("backup.db") };
    await expect(writeBackup(missing)).rejects.toThrow("there is no such database");
    await using server = await createTestCoordinator({ database: "file" });
    const nowhere = { databaseFile: databaseOf(server.directory), file: directory.join("no/folder/backup.db") };
    await expect(writeBackup(nowhere)).rejects.toThrow("cannot write the backup");
    expect(existsSync(directory.join("no"))).toBe(false);
  });
});

describe("a restore", () => {
  test("cancels what had not begun, keeps what had, and finds every NAR", async () => {
    await using saved = await backUp(async (server) => {
      await server.push(LIBRARY, PROGRAM, OTHER);
      const [nuc] = [
        await server.connectAgent("nuc"),
        await server.connectAgent("tuc"),
        await server.connectAgent("done"),
      ];
      const done = await server.connectAgent("doing");
      const rollout = await server.activate(PROGRAM, "nuc", "tuc", "doing");
      const idOf = (name: string) => rollout.deployments.find(({ agent }) => agent === name)?.id ?? rollout.id;
      await nuc?.report(idOf("nuc") as never, numberEntries([outcomeEntry("succeeded")]));
      await done.report(idOf("doing") as never, numberEntries([phaseEntry("activating")]));
    });
    const target = saved.directory.join("restored");
    await mkdir(target, { mode: 0o700 });
    await cp(saved.nars, join(target, "nars"), { recursive: true });
    const report = await restoreBackup({ file: saved.file, dataDirectory: target, replace: false, clock });
    expect(report).toEqual({ cancelled: 1, forgottenPaths: 0, replaced: null });
    const restored = await readRestored(target);
    expect(restored.states.sort()).toEqual(["activating", "cancelled", "succeeded"]);
    expect(restored.reasons.join()).toContain("restored from a backup");
    expect(restored.paths).toEqual(sorted(LIBRARY, PROGRAM, OTHER));
    expect(readdirSync(target).filter((name) => name.includes("restored"))).toEqual([]);
  });

  test("forgets paths whose NAR is gone or cut, with those that need them", async () => {
    await using saved = await backUp((server) => server.push(LIBRARY, PROGRAM, OTHER));
    const target = saved.directory.join("restored");
    await mkdir(target, { mode: 0o700 });
    await cp(saved.nars, join(target, "nars"), { recursive: true });
    const name = LIBRARY.fileHash.split(":")[1] ?? "";
    await truncate(join(target, "nars", name.slice(0, 2), `${name}.nar.zst`), 3);
    const report = await restoreBackup({ file: saved.file, dataDirectory: target, replace: false, clock });
    expect(report).toEqual({ cancelled: 0, forgottenPaths: 2, replaced: null });
    expect((await readRestored(target)).paths).toEqual(sorted(OTHER));
  });

  test("what it forgot can be pushed again, and tokens and agents are as they were", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await server.push(LIBRARY, PROGRAM);
    const agent = await server.connectAgent("nuc");
    const file = join(server.directory, "backup.db");
    await writeBackup({ databaseFile: databaseOf(server.directory), file });
    await agent.disconnect();
    await server.activate(PROGRAM, "nuc");
    // What a lost disk leaves: nothing but the backup.
    await server.coordinator[Symbol.asyncDispose]();
    for (const part of ["", "-wal", "-shm"]) await rm(`${databaseOf(server.directory)}${part}`, { force: true });
    await rm(join(server.directory, "nars"), { recursive: true });
    await restoreBackup({ file, dataDirectory: server.directory, replace: false, clock });
    await server.restart();
    const missing = await server.fetch("caches/default/missing", {
      json: { hashParts: [storePathHash(PROGRAM.storePath)].map((part) => parseStorePathHash(part)) },
    });
    expect(await missing.json()).toEqual({ missing: [storePathHash(PROGRAM.storePath)] });
    await server.push(LIBRARY, PROGRAM);
    const again = await server.connectAgent(agent.identity);
    await server.activate(PROGRAM, "nuc");
    expect(again.framesOf("offer")).toHaveLength(1);
    const list = deploymentListSchema.parse(await (await server.fetch("deployments")).json());
    expect(list.deployments.map(({ state }) => state)).toEqual(["offered"]);
  });

  test("puts a database aside only when told to, its log with it", async () => {
    await using saved = await backUp((server) => server.push(OTHER));
    const target = saved.directory.join("restored");
    await mkdir(target, { mode: 0o700 });
    await copyFile(saved.file, databaseOf(target));
    await writeFile(`${databaseOf(target)}-wal`, "");
    const into = { file: saved.file, dataDirectory: target, clock };
    await expect(restoreBackup({ ...into, replace: false })).rejects.toThrow("it has a database");
    const { replaced } = await restoreBackup({ ...into, replace: true });
    expect(existsSync(replaced ?? "")).toBe(true);
    expect(existsSync(`${replaced}-wal`)).toBe(true);
    expect(existsSync(`${databaseOf(target)}-wal`)).toBe(false);
  });

  test("begun again after a kill, ends well", async () => {
    await using saved = await backUp((server) => server.push(OTHER));
    const target = saved.directory.join("restored");
    await mkdir(target, { mode: 0o700 });
    // As a kill leaves it: the old database aside, its log not yet, the new one prepared.
    await writeFile(`${databaseOf(target)}.restored`, "half");
    await writeFile(`${databaseOf(target)}-wal`, "of the old one");
    await writeFile(join(target, "admin-token"), "nothing");
    await restoreBackup({ file: saved.file, dataDirectory: target, replace: true, clock });
    expect(existsSync(`${databaseOf(target)}-wal`)).toBe(false);
    expect((await readRestored(target)).states).toEqual([]);
  });

  test("takes nothing that is no good backup", async () => {
    await using saved = await backUp((server) => server.push(OTHER));
    const target = saved.directory.join("restored");
    const from = (file: string) => restoreBackup({ file, dataDirectory: target, replace: false, clock });
    await expect(from(saved.directory.join("none"))).rejects.toThrow("there is no such file");
    await writeFile(saved.directory.join("text"), "not a database, but long enough to look at it".repeat(100));
    await expect(from(saved.directory.join("text"))).rejects.toThrow("it is no database");
    using foreign = new Database(saved.directory.join("foreign.db"), { create: true });
    foreign.run("create table migrations (id text)");
    await expect(from(saved.directory.join("foreign.db"))).rejects.toThrow("it is no database of a coordinator");
    await truncate(saved.file, 8_192);
    await expect(from(saved.file)).rejects.toThrow("cannot use the backup");
    expect(existsSync(target)).toBe(false);
  });
});
