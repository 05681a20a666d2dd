/** Statements about many rows at once, and what many callers write one row with. */
import type { Insertable, Updateable } from "kysely";
import { compileOnce } from "./compiled.ts";
import { insertEach, listed } from "./dialect.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

/** In order; none is empty. */
export function* chunksOf<Item>(items: readonly Item[], lengthMax: number): Generator<readonly Item[]> {
  for (let from = 0; from < items.length; from += lengthMax) yield items.slice(from, from + lengthMax);
}

/** In this order. All have the same columns. */
export async function insertRows<Table extends keyof Schema>(
  database: CoordinatorDatabase,
  table: Table,
  rows: readonly Insertable<Schema[Table]>[],
): Promise<void> {
  const [first] = rows;
  if (first === undefined) return;
  await insertEach(database, { table, columns: Object.keys(first), rows });
}

/**
 * What of a change differs from what is there. SQLite takes a row out of each index of which a column is set, and puts it
 * in again, whether or not the value is another one. Pure.
 */
export function changedColumns<Row extends object>(row: Row, change: Partial<Row>): Partial<Row> {
  const changed: Partial<Row> = {};
  for (const column in change) if (change[column] !== row[column]) changed[column] = change[column];
  return changed;
}

type UpdatedTable = "deployments" | "agents";
type Run = (database: CoordinatorDatabase, values: Readonly<Record<string, unknown>>) => Promise<readonly unknown[]>;
/** Compiled, by table, columns and whether it is for many rows: a dozen, since callers name their columns. */
const updates = new Map<string, Run>();

/** Changes columns of one row. */
export async function updateRow<Table extends UpdatedTable>(
  database: CoordinatorDatabase,
  table: Table,
  { id, change }: { readonly id: string; readonly change: Updateable<Schema[Table]> },
): Promise<void> {
  await compiledUpdate({ table, of: "row", columns: Object.keys(change) })(database, { ...change, "row id": id });
}

/** The same change to many rows. */
export async function updateRows<Table extends UpdatedTable>(
  database: CoordinatorDatabase,
  table: Table,
  { ids, change }: { readonly ids: readonly string[]; readonly change: Updateable<Schema[Table]> },
): Promise<void> {
  const run = compiledUpdate({ table, of: "rows", columns: Object.keys(change) });
  await run(database, { ...change, "row id": JSON.stringify(ids) });
}

/** Of a change that changes no column. */
const NOTHING: Run = async () => [];

type Update = {
  readonly table: UpdatedTable;
  readonly of: "row" | "rows";
  readonly columns: readonly string[];
};

function compiledUpdate({ table, of, columns }: Update): Run {
  if (columns.length === 0) return NOTHING;
  const key = `${table} ${of} ${columns.join(" ")}`;
  const known = updates.get(key);
  if (known !== undefined) return known;
  const run = compileOnce((database, marks: Readonly<Record<string, unknown>>) => {
    const set = Object.fromEntries(columns.map((column) => [column, marks[column]]));
    const id = database.dynamic.ref("id");
    const updated = database.updateTable(table).set(set);
    return of === "row"
      ? updated.where(id, "=", marks["row id"])
      : updated.where(id, "in", listed(String(marks["row id"])));
  });
  updates.set(key, run);
  return run;
}
