/** Statements about many rows at once, and what many callers write one row with. */
import type { Insertable, Updateable } from "kysely";
import { compileOnce } from "./compiled.ts";
import { insertFromJson, listed } from "./dialect.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

/** Of one insert: between two, nobody else gets a turn, but what is in memory twice is bounded. */
const INSERT_ROWS_MAX = 1_000;

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

type Update = {
  readonly table: UpdatedTable;
  readonly of: "row" | "rows";
  readonly columns: readonly string[];
};

function compiledUpdate({ table, of, columns }: Update): Run {
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
