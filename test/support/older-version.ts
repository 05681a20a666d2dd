/**
 * Whether a version that knows only the first migrations still works on a database that has all of them: the rule of
 * migrations.ts, checked by the database itself. Structure is compared, and every statement that the older version may
 * write, one insert a table and one for each value that a check lets through, is made on both.
 */
import { sql } from "kysely";
import { openDatabase } from "../../src/server/database/dialect.ts";
import { type Migration, migrate } from "../../src/server/database/migrations.ts";
import type { CoordinatorDatabase } from "../../src/server/database/schema.ts";

export type SampleRow = Readonly<Record<string, string | number | null | Uint8Array>>;

export type OlderVersionOptions = {
  /** Those that the older version knows. */
  readonly older: readonly Migration[];
  /** The same, and those that came later. */
  readonly newer: readonly Migration[];
  /** Table → a row as it is written; only the columns that the older version knows are inserted. */
  readonly rows: Readonly<Record<string, SampleRow>>;
};

type ColumnInfo = { name: string; type: string; notnull: number; default: string | null; pk: number };

/** One sentence each; none when the older version works on the newer database. */
export async function findIncompatibilities({ older, newer, rows }: OlderVersionOptions): Promise<string[]> {
  await using before = openDatabase(":memory:");
  await using after = openDatabase(":memory:");
  await migrate(before, older);
  await migrate(after, newer);
  // Rows stand alone here: what they refer to is another row's business.
  for (const database of [before, after]) await sql`pragma foreign_keys = off`.execute(database);
  const tables = await listObjects(before, "table");
  const faults: string[] = [];
  for (const table of tables.keys()) {
    if (["migrations", "sqlite_sequence"].includes(table)) continue;
    faults.push(...(await compareTable({ before, after, table })));
    const row = rows[table];
    if (row === undefined) faults.push(`${table}: no sample row was given`);
    else faults.push(...(await compareInserts({ before, after, table, row })));
  }
  const triggers = await listObjects(after, "trigger");
  return [
    ...faults,
    ...[...triggers.keys()].map((name) => `trigger ${name}: it does what the older version expects nobody to do`),
  ];
}

type Comparison = { readonly before: CoordinatorDatabase; readonly after: CoordinatorDatabase; readonly table: string };

async function compareTable({ before, after, table }: Comparison): Promise<string[]> {
  const old = await listColumns(before, table);
  const now = await listColumns(after, table);
  if (now.size === 0) return [`${table}: the table is gone`];
  const kept = [...old.values()].flatMap((column) => {
    const same = now.get(column.name);
    if (same === undefined) return [`${table}.${column.name}: the column is gone`];
    if (same.type !== column.type) return [`${table}.${column.name}: ${column.type} became ${same.type}`];
    return same.notnull > column.notnull ? [`${table}.${column.name}: it may not be null any more`] : [];
  });
  const added = [...now.values()].flatMap((column) => {
    const mayBeLeftOut = column.notnull === 0 || column.default !== null || column.pk > 0;
    return old.has(column.name) || mayBeLeftOut
      ? []
      : [`${table}.${column.name}: new, not null, and without a default`];
  });
  const unique = await listUnique(before, table);
  const narrower = [...(await listUnique(after, table))].filter((index) => !unique.has(index));
  return [...kept, ...added, ...narrower.map((index) => `${table}: a new unique index: ${index}`)];
}

/** What the older database takes, the newer one takes. */
async function compareInserts({
  before,
  after,
  table,
  row,
}: Comparison & { readonly row: SampleRow }): Promise<string[]> {
  const known = await listColumns(before, table);
  const base = Object.fromEntries(Object.entries(row).filter(([column]) => known.has(column)));
  const missing = [...known.values()].filter(
    ({ name, notnull, default: value, pk }) => notnull === 1 && value === null && pk === 0 && !(name in base),
  );
  if (missing.length > 0) return [`${table}: the sample row lacks ${missing.map(({ name }) => name).join(", ")}`];
  const faults: string[] = [];
  const checks = listChecks((await listObjects(before, "table")).get(table) ?? "");
  const variants = checks.flatMap(({ column, values }) => values.map((value) => ({ ...base, [column]: value })));
  for (const variant of [base, ...variants]) {
    const failure = await tryInsert(before, table, variant);
    if (failure !== null) faults.push(`${table}: the sample row is refused by its own version: ${failure}`);
    const later = await tryInsert(after, table, variant);
    if (later !== null) faults.push(`${table}: an insert of the older version is refused: ${later}`);
  }
  return faults;
}

/** Nothing of it stays. @returns what was wrong, or null */
async function tryInsert(database: CoordinatorDatabase, table: string, row: SampleRow): Promise<string | null> {
  const columns = sql.join(Object.keys(row).map((column) => sql.ref(column)));
  try {
    await sql`savepoint one`.execute(database);
    await sql`insert into ${sql.table(table)} (${columns}) values (${sql.join(Object.values(row))})`.execute(database);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    await sql`rollback to one`.execute(database);
    await sql`release one`.execute(database);
  }
}

/** Columns that are one of a list: `check (kind in ('a','b'))`. */
function listChecks(createTable: string): { readonly column: string; readonly values: readonly string[] }[] {
  return [...createTable.matchAll(/check \((\w+) in \(('[^)]*')\)\)/g)].map(([, column = "", list = ""]) => ({
    column,
    values: [...list.matchAll(/'([^']*)'/g)].map(([, value = ""]) => value),
  }));
}

/** Name → the statement that made it. */
async function listObjects(database: CoordinatorDatabase, type: "table" | "trigger"): Promise<Map<string, string>> {
  const query = sql<{ name: string; sql: string | null }>`select name, sql from sqlite_schema where type = ${type}`;
  return new Map((await query.execute(database)).rows.map((object) => [object.name, object.sql ?? ""]));
}

async function listColumns(database: CoordinatorDatabase, table: string): Promise<Map<string, ColumnInfo>> {
  const query = sql<ColumnInfo>`select name, type, "notnull", dflt_value as "default", pk from pragma_table_info(${table})`;
  return new Map((await query.execute(database)).rows.map((column) => [column.name, column]));
}

/** Columns and condition of each unique index, whatever its name. */
async function listUnique(database: CoordinatorDatabase, table: string): Promise<Set<string>> {
  const indexes = sql<{ name: string; partial: number }>`
    select name, partial from pragma_index_list(${table}) where "unique" = 1`;
  const found = new Set<string>();
  for (const { name } of (await indexes.execute(database)).rows) {
    const columns = await sql<{ name: string | null }>`select name from pragma_index_info(${name})`.execute(database);
    const made = await sql<{ sql: string | null }>`select sql from sqlite_schema where name = ${name}`.execute(
      database,
    );
    const where = / where .*$/is.exec(made.rows[0]?.sql ?? "")?.[0] ?? "";
    found.add(`(${columns.rows.map((column) => column.name ?? "an expression").join(", ")})${where}`);
  }
  return found;
}
