/**
 * Queries that are built and compiled once. What Kysely does to make a statement takes several times as long as SQLite
 * needs to run it, and a handful of statements are run for each frame of each agent.
 *
 * The statement is the one that Kysely writes; only its parameters differ from call to call.
 */
import type { Compilable, CompiledQuery } from "kysely";
import type { CoordinatorDatabase } from "./schema.ts";

type Parameter = { readonly name: string } | { readonly constant: unknown };

const MARK = "the value of ";

/**
 * @param build gets marks instead of values, each of which stands wherever its value will; what else it writes must be
 *   the same in each call
 * @returns runs it with values
 */
export function compileOnce<Values extends Readonly<Record<string, unknown>>, Row = unknown>(
  build: (database: CoordinatorDatabase, marks: Values) => Compilable<Row>,
): (database: CoordinatorDatabase, values: Values) => Promise<readonly Row[]> {
  let compiled: { readonly query: CompiledQuery<Row>; readonly order: readonly Parameter[] } | null = null;
  return async (database, values) => {
    if (compiled === null) {
      const query = build(database, makeMarks<Values>()).compile();
      compiled = { query, order: query.parameters.map(parseParameter) };
    }
    const parameters = compiled.order.map((one) => ("name" in one ? values[one.name] : one.constant));
    return (await database.executeQuery<Row>({ ...compiled.query, parameters })).rows;
  };
}

function parseParameter(parameter: unknown): Parameter {
  const isMark = typeof parameter === "string" && parameter.startsWith(MARK);
  return isMark ? { name: parameter.slice(MARK.length) } : { constant: parameter };
}

/** Whatever is asked of it is a mark, in place of a value of whatever type. */
function makeMarks<Values>(): Values {
  return new Proxy({}, { get: (_, name) => `${MARK}${String(name)}` }) as Values;
}
