/**
 * What only SQLite understands: opening the file, its pragmas, STRICT tables. Another engine would replace this file
 * and nothing else of `database/`.
 *
 * Inside a transaction only database calls, never other waiting: there is one connection and transactions queue for it.
 */
import { Database, SQLiteError } from "bun:sqlite";
import { chmodSync } from "node:fs";
import { CompiledQuery, sql } from "kysely";
import { NixdeployError } from "../../errors.ts";
import { explainDatabaseError } from "./database-error.ts";
import { createSqliteKysely } from "./driver.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

/** How long another process (an offline `token create`) may hold the file before we give up. */
const BUSY_TIMEOUT_MS = 10_000;
const OWNER_ONLY = 0o600;

/** What to do when the file is no database any more. */
const DAMAGED_HINT =
  "Restore it from a backup, or move it away with its -wal and -shm files to begin anew without tokens and agents.";

/**
 * @param file path, or `:memory:`
 * @throws NixdeployError `host` when the file cannot be used: damaged, unreadable, on a full disk
 */
export function openDatabase(file: string): CoordinatorDatabase {
  try {
    return useConnection(openConnection(file));
  } catch (error) {
    throw explainDatabaseFault(error, file);
  }
}

/** For what the first statements say about the file. */
export function explainDatabaseFault(error: unknown, file: string): unknown {
  if (error instanceof SQLiteError && /^no such (table|column)/.test(error.message)) {
    const why = `its tables are not those of nixdeploy (${error.message})`;
    return new NixdeployError("host", `cannot open the database ${file}: ${why}`, { hint: DAMAGED_HINT, cause: error });
  }
  return explainDatabaseError(error, { what: "the database", file, hint: DAMAGED_HINT });
}

/** With everything set that the coordinator relies on. @throws SQLiteError */
export function openConnection(file: string): Database {
  const database = new Database(file, { create: true, strict: true });
  if (file !== ":memory:") chmodSync(file, OWNER_ONLY);
  // busy_timeout comes first: with none, two processes that switch to WAL at once fail at once.
  database.run(`pragma busy_timeout = ${BUSY_TIMEOUT_MS}`);
  database.run("pragma journal_mode = wal");
  // An acknowledged outcome must survive a power cut, so each commit is synced.
  database.run("pragma synchronous = full");
  database.run("pragma foreign_keys = on");
  database.run("pragma trusted_schema = off");
  // Of pages. With the usual 2 MB a rollout for thousands reads the same ones again and again.
  database.run("pragma cache_size = -8000");
  return database;
}

/** The tables behind a connection, which is closed with them. */
export function useConnection(connection: Database): CoordinatorDatabase {
  return createSqliteKysely<Schema>(connection);
}

/**
 * Ends the work on a file that is to be moved: everything is in it, and no log beside it. Closing alone does not see to
 * that: Bun keeps a connection open until its last statement is collected.
 */
export async function closeIntoOneFile(database: CoordinatorDatabase): Promise<void> {
  await sql`pragma journal_mode = delete`.execute(database);
  await database.destroy();
}

/** A part of a transaction that can be undone alone. */
export type Savepoints = {
  readonly set: () => Promise<void>;
  /** Undoes everything since it was set. @throws when the transaction is gone: then everything is undone */
  readonly rollBack: () => Promise<void>;
  /** What came since belongs to the transaction. */
  readonly release: () => Promise<void>;
};

/** One at a time. */
export function savepointsOf(transaction: CoordinatorDatabase): Savepoints {
  const run = (statement: string) => async () => {
    await transaction.executeQuery(CompiledQuery.raw(statement));
  };
  return { set: run("savepoint part"), rollBack: run("rollback to part"), release: run("release part") };
}

/**
 * One after the other by one prepared statement, which in this process is the quickest there is: twice as quick as all of
 * them in one statement, as JSON or with a parameter for each value.
 */
export async function insertEach(
  database: CoordinatorDatabase,
  made: {
    readonly table: keyof Schema;
    readonly columns: readonly string[];
    readonly rows: readonly Readonly<Record<string, unknown>>[];
  },
): Promise<void> {
  const names = made.columns.map((column) => `"${column}"`).join(", ");
  const values = made.columns.map(() => "?").join(", ");
  const statement = CompiledQuery.raw(`insert into "${made.table}" (${names}) values (${values})`);
  for (const row of made.rows) {
    await database.executeQuery({ ...statement, parameters: made.columns.map((column) => row[column]) });
  }
}

/**
 * The texts of a list as one parameter, for `in`: a statement that is the same for lists of every length is built and
 * prepared once. @param json the list
 */
export function listed<Text extends string>(json: string) {
  return sql<Text>`(select value from json_each(${json}))`;
}

/** A `create table` whose columns reject values of another type. */
export function strictTable(name: string, columns: readonly string[]): string {
  return `create table ${name} (\n  ${columns.join(",\n  ")}\n) strict`;
}

/** Makes the bookkeeping table and takes the write lock, so that two processes do not migrate at once. */
export async function lockForMigration(transaction: CoordinatorDatabase): Promise<void> {
  await sql`create table if not exists migrations (id text not null primary key) strict`.execute(transaction);
  // A statement that writes takes the lock, whether or not it finds anything to write.
  await sql`delete from migrations where false`.execute(transaction);
}

/** The text of one field of a JSON column. */
export function jsonText(column: string, field: string) {
  return sql<string>`${sql.ref(column)} ->> ${sql.lit(`$.${field}`)}`;
}

/** How much the database takes, without its write-ahead log. */
export async function readDatabaseBytes(database: CoordinatorDatabase): Promise<number> {
  const pages = await sql<{ page_count: number }>`pragma page_count`.execute(database);
  const size = await sql<{ page_size: number }>`pragma page_size`.execute(database);
  return (pages.rows[0]?.page_count ?? 0) * (size.rows[0]?.page_size ?? 0);
}

/** Gives the memory back that read pages take. They are read again when they are wanted. */
export async function releasePages(database: CoordinatorDatabase): Promise<void> {
  await sql`pragma shrink_memory`.execute(database);
}

/** The write-ahead log of a database file. */
export function writeAheadLogOf(file: string): string {
  return `${file}-wal`;
}
