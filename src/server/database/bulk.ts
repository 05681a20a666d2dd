/** Statements about many rows at once, and what many callers write one row with. */
import type { Insertable, Updateable } from "kysely";
import { compileOnce } from "./compiled.ts";
import { insertFromJson } from "./dialect.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

/** Of one insert: between two, nobody else gets a turn, but what is in memory twice is bounded. */
const INSERT_ROWS_MAX = 1_000;
/** Values in one `in (…)`: far below SQLite's 32,766 parameters. */
export const LOOKUPS_MAX = 500;

/** In order; none is empty. */
export function* chunksOf<Item>(items: readonly Item[], lengthMax: number): Generator<readonly Item[]> {
  for (let from = 0; from < items.length; from += lengthMax) yield items.slice(from, from + lengthMax);
}

/** In this order. All have the same columns, of which none holds bytes. */
export async function insertRows<Table extends keyof Schema>(
  database: CoordinatorDatabase,
  table: Table,
  rows: readonly Insertable<Schema[Table]>[],
): Promise<void> {
  const [first] = rows;
  if (first === undefined) return;
  const columns = Object.keys(first);
  for (const part of chunksOf(rows, INSERT_ROWS_MAX)) await insertFromJson(database, { table, columns, rows: part });
}

type UpdatedTable = "deployments" | "agents";
type Run = (database: CoordinatorDatabase, values: Readonly<Record<string, unknown>>) => Promise<readonly unknown[]>;
/** Compiled, by table and columns: a dozen, since callers name their columns. */
const updates = new Map<string, Run>();

/** Changes columns of one row. */
export async function updateRow<Table extends UpdatedTable>(
  database: CoordinatorDatabase,
  table: Table,
  { id, change }: { readonly id: string; readonly change: Updateable<Schema[Table]> },
): Promise<void> {
  const columns = Object.keys(change).sort();
  const key = `${table} ${columns.join(" ")}`;
  const run = updates.get(key) ?? compileUpdate(table, columns);
  updates.set(key, run);
  await run(database, { ...change, "row id": id });
}

function compileUpdate(table: UpdatedTable, columns: readonly string[]): Run {
  return compileOnce((database, marks: Readonly<Record<string, unknown>>) => {
    const { ref } = database.dynamic;
    const set = Object.fromEntries(columns.map((column) => [column, marks[column]]));
    return database.updateTable(table).set(set).where(ref("id"), "=", marks["row id"]);
  });
}
