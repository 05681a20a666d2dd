/** Whether the coordinator can work: each thing that can be wrong is said, and nothing makes the question hang. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createReadinessNews } from "../../../src/server/operations/chores.ts";
import { createReadiness, PROBE_FILE, WRITE_MAX_MS } from "../../../src/server/operations/readiness.ts";
import { createTestCoordinator } from "../../support/coordinator.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";

const fine = async () => {};

async function createPlaces() {
  const directory = await createTemporaryDirectory("readiness");
  await mkdir(directory.join("nars"));
  const storage = { databaseFile: directory.join("coordinator.db"), narsDirectory: directory.join("nars") };
  return { storage, directory, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

describe("readiness", () => {
  test("of a coordinator whose disk and database take writes", async () => {
    await using places = await createPlaces();
    const { storage, directory } = places;
    const readiness = createReadiness({ clock: createManualClock(), storage, writeDatabase: fine });
    expect(readiness.latest).toBeNull();
    expect(await readiness.check()).toEqual({ reasons: [] });
    expect(readiness.latest).toEqual({ reasons: [] });
    for (const folder of ["", "nars/"]) expect(existsSync(directory.join(`${folder}${PROBE_FILE}`))).toBe(true);
  });

  test("a disk that does not answer is said in time, and the database is not asked", async () => {
    await using places = await createPlaces();
    const clock = createManualClock();
    const disk = Promise.withResolvers<void>();
    let probes = 0;
    let writes = 0;
    const readiness = createReadiness({
      clock,
      storage: places.storage,
      writeDatabase: async () => {
        writes += 1;
      },
      probeFolder: async () => {
        probes += 1;
        await disk.promise;
      },
    });
    const first = readiness.check();
    await clock.advance(WRITE_MAX_MS);
    const stuck = (disk: string, seconds: number) =>
      `the disk of the ${disk} does not answer: a small write has taken ${seconds} s so far`;
    expect(await first).toEqual({ reasons: [stuck("database", 5), stuck("NAR files", 5)] });
    await clock.advance(60_000);
    // At once, and without another write that hangs.
    expect(await readiness.check()).toEqual({ reasons: [stuck("database", 65), stuck("NAR files", 65)] });
    expect([probes, writes]).toEqual([2, 0]);
    disk.resolve();
    await clock.advance(2_000);
    expect(await readiness.check()).toEqual({ reasons: [] });
    expect(writes).toBe(1);
  });

  test("a disk that refuses, a database that refuses, one that took too long", async () => {
    await using places = await createPlaces();
    const { storage } = places;
    const clock = createManualClock();
    const refuse = async () => {
      throw Object.assign(new Error("x"), { code: "ENOSPC" });
    };
    const reasonsOf = async (deps: Partial<Parameters<typeof createReadiness>[0]>) =>
      (await createReadiness({ clock, storage, writeDatabase: fine, ...deps }).check()).reasons.join("; ");
    const full = "takes no write: no space is left on the device";
    expect(await reasonsOf({ probeFolder: refuse })).toBe(
      `the disk of the database ${full}; the disk of the NAR files ${full}`,
    );
    expect(await reasonsOf({ writeDatabase: refuse })).toBe(`the database ${full}`);
    // As a statement of SQLite does: nothing else moves meanwhile.
    let skippedMs = 0;
    const slow = { ...clock, monotonicMs: () => clock.monotonicMs() + skippedMs };
    const blocked = async () => {
      skippedMs = 9_000;
    };
    expect(await reasonsOf({ clock: slow, writeDatabase: blocked })).toBe("the database took 9 s for a small write");
  });

  test("is looked at once a second, however many ask", async () => {
    let writes = 0;
    const clock = createManualClock();
    const readiness = createReadiness({
      clock,
      storage: null,
      writeDatabase: async () => {
        writes += 1;
      },
    });
    await Promise.all(Array.from({ length: 50 }, () => readiness.check()));
    await readiness.check();
    expect(writes).toBe(1);
    await clock.advance(1_000);
    await readiness.check();
    expect(writes).toBe(2);
  });

  test("news are told once", () => {
    const say = createReadinessNews();
    expect(say({ reasons: [] })).toBeNull();
    expect(say({ reasons: ["the disk is full: 12 MiB are left"] })).toMatchObject({ ready: false });
    expect(say({ reasons: ["the disk is full: 11 MiB are left"] })).toBeNull();
    expect(say({ reasons: ["the disk is full: 11 MiB are left", "more"] })).toMatchObject({ ready: false });
    expect(say({ reasons: [] })).toEqual({ ready: true });
    expect(say({ reasons: [] })).toBeNull();
  });
});

describe("over HTTP, without a token", () => {
  test("healthz and readyz", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    expect((await server.fetch("/healthz", { token: null })).status).toBe(200);
    const ready = await server.fetch("/readyz", { token: null });
    expect([ready.status, await ready.text()]).toEqual([200, "ready\n"]);
  });

  test("a coordinator that stops is there, and not ready", async () => {
    await using server = await createTestCoordinator();
    server.coordinator.services.readiness.stop();
    const answer = await server.fetch("/readyz", { token: null });
    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({ status: 503, errors: ["the coordinator stops"] });
    expect((await server.fetch("/healthz", { token: null })).status).toBe(200);
  });

  test("a database that takes no write", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    const { sql } = await import("kysely");
    await sql`pragma query_only = on`.execute(server.coordinator.services.database);
    const answer = await server.fetch("/readyz", { token: null });
    await sql`pragma query_only = off`.execute(server.coordinator.services.database);
    expect(answer.status).toBe(503);
    expect(await answer.text()).toContain("the database takes no write");
  });
});
