/** Group commit: what shares a transaction, who hears of what, and that nobody pays for another's failure. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { sql } from "kysely";
import { openDatabase } from "../../../src/server/database/dialect.ts";
import { migrate } from "../../../src/server/database/migrations.ts";
import type { CoordinatorDatabase } from "../../../src/server/database/schema.ts";
import { createWriteQueue } from "../../../src/server/database/write-queue.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";

/** However slow the machine is, a transaction takes no time. */
const STANDING_CLOCK = { monotonicMs: () => 0 };

async function createDatabase(file = ":memory:"): Promise<CoordinatorDatabase> {
  const database = openDatabase(file);
  await migrate(database);
  return database;
}

const insert = (name: string) => async (transaction: CoordinatorDatabase) => {
  await transaction.insertInto("settings").values({ name, value: "1" }).execute();
  return name;
};

async function namesIn(database: CoordinatorDatabase): Promise<string[]> {
  const rows = await database.selectFrom("settings").select("name").orderBy(sql`rowid`).execute();
  return rows.map(({ name }) => name);
}

/** Counts the transactions that are begun on it. */
function countTransactions(database: CoordinatorDatabase) {
  const counted = { begun: 0 };
  const original = database.transaction.bind(database);
  database.transaction = () => {
    counted.begun += 1;
    return original();
  };
  return counted;
}

test("writes of one turn share a transaction, in their order, and each has its value", async () => {
  const database = await createDatabase();
  const writes = createWriteQueue(database, STANDING_CLOCK);
  const counted = countTransactions(database);
  const names = Array.from({ length: 50 }, (_, index) => `name ${index}`);
  expect(await Promise.all(names.map((name) => writes.write(insert(name))))).toEqual(names);
  expect(counted.begun).toBe(1);
  expect(await namesIn(database)).toEqual(names);
  await database.destroy();
});

test("a write resolves after its commit: another connection sees it then", async () => {
  await using directory = await createTemporaryDirectory("write-queue");
  const file = join(directory.path, "coordinator.db");
  const database = await createDatabase(file);
  const other = openDatabase(file);
  const writes = createWriteQueue(database, STANDING_CLOCK);
  const seen = await Promise.all(
    ["a", "b", "c"].map(async (name) => {
      await writes.write(insert(name));
      return await namesIn(other);
    }),
  );
  for (const names of seen) expect(names).toEqual(["a", "b", "c"]);
  await other.destroy();
  await database.destroy();
});

describe("one that fails", () => {
  test("is undone with all it did, and takes no other down", async () => {
    const database = await createDatabase();
    const writes = createWriteQueue(database, STANDING_CLOCK);
    const counted = countTransactions(database);
    const half = async (transaction: CoordinatorDatabase) => {
      await insert("half")(transaction);
      throw new Error("changed its mind");
    };
    const ends = await Promise.allSettled([
      writes.write(insert("a")),
      writes.write(half),
      writes.write(insert("b")),
      // The database refuses it: the name is taken.
      writes.write(insert("a")),
      writes.write(insert("c")),
    ]);
    expect(ends.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled", "rejected", "fulfilled"]);
    expect(String(ends[1]?.status === "rejected" && ends[1].reason)).toContain("changed its mind");
    expect(await namesIn(database)).toEqual(["a", "b", "c"]);
    expect(counted.begun).toBe(1);
    await database.destroy();
  });

  test("alone, throws what it threw", async () => {
    const database = await createDatabase();
    const writes = createWriteQueue(database, STANDING_CLOCK);
    await writes.write(insert("a"));
    expect(writes.write(insert("a"))).rejects.toThrow("UNIQUE");
    await writes.write(insert("b"));
    expect(await namesIn(database)).toEqual(["a", "b"]);
    await database.destroy();
  });
});

describe("a transaction that is lost", () => {
  test("by a full disk costs only those that do not fit", async () => {
    const database = await createDatabase();
    const writes = createWriteQueue(database, STANDING_CLOCK);
    const pages = await sql<{ page_count: number }>`pragma page_count`.execute(database);
    await sql`pragma max_page_count = ${sql.lit((pages.rows[0]?.page_count ?? 0) + 4)}`.execute(database);
    const large = async (transaction: CoordinatorDatabase) => {
      await transaction
        .insertInto("settings")
        .values({ name: "large", value: "x".repeat(1_000_000) })
        .execute();
    };
    const ends = await Promise.allSettled([writes.write(insert("a")), writes.write(large), writes.write(insert("b"))]);
    expect(ends.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect(await namesIn(database)).toEqual(["a", "b"]);
    await database.destroy();
  });

  test("at its commit is tried again by each alone", async () => {
    const database = await createDatabase();
    const writes = createWriteQueue(database, STANDING_CLOCK);
    // Checked at the commit: one of the members breaks it for all.
    await sql`pragma defer_foreign_keys = on`.execute(database);
    const orphan = async (transaction: CoordinatorDatabase) => {
      await sql`pragma defer_foreign_keys = on`.execute(transaction);
      const row = { id: "c", workspace_id: "none", is_public: 0, secret_key: "", created_ms: 0 };
      await sql`insert into caches (id, workspace_id, name, is_public, secret_key, created_ms)
        values (${row.id}, ${row.workspace_id}, 'orphan', 0, '', 0)`.execute(transaction);
    };
    const ends = await Promise.allSettled([writes.write(insert("a")), writes.write(orphan), writes.write(insert("b"))]);
    expect(ends.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect(await namesIn(database)).toEqual(["a", "b"]);
    await database.destroy();
  });
});

test("what comes while a transaction runs comes after it", async () => {
  const database = await createDatabase();
  const writes = createWriteQueue(database, STANDING_CLOCK);
  const later: Promise<string>[] = [];
  await writes.write(async (transaction) => {
    later.push(writes.write(insert("second")), writes.write(insert("third")));
    return await insert("first")(transaction);
  });
  await Promise.all(later);
  expect(await namesIn(database)).toEqual(["first", "second", "third"]);
  await database.destroy();
});

test("on a database that is closed, every write hears so", async () => {
  const database = await createDatabase();
  const writes = createWriteQueue(database, STANDING_CLOCK);
  await database.destroy();
  const ends = await Promise.allSettled([writes.write(insert("a")), writes.write(insert("b"))]);
  expect(ends.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
});

test("a transaction that takes long lets others have their turn: what is left comes in the next one", async () => {
  const database = await createDatabase();
  let nowMs = 0;
  const writes = createWriteQueue(database, { monotonicMs: () => nowMs });
  const counted = countTransactions(database);
  const slow = (name: string) => async (transaction: CoordinatorDatabase) => {
    nowMs += 20;
    return await insert(name)(transaction);
  };
  const names = ["a", "b", "c", "d", "e"];
  expect(await Promise.all(names.map((name) => writes.write(slow(name))))).toEqual(names);
  expect(counted.begun).toBe(3);
  expect(await namesIn(database)).toEqual(names);
  await database.destroy();
});
