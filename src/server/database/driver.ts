/**
 * bun:sqlite under Kysely: one connection, taken in turn, and prepared statements that are kept.
 *
 * Of our own, because the usual driver prepares each statement anew (two thirds of what a query costs) and wakes everybody
 * who waits for the connection whenever it is free, which ten thousand agents that return at once do not bear.
 */
import type { Database, SQLQueryBindings, Statement } from "bun:sqlite";
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from "kysely";

/** More than the program has; lists of every length have a statement each. */
const STATEMENTS_MAX = 300;
/** After these, what was prepared before may have other columns. */
const CHANGES_TABLES = /^\s*(?:create|alter|drop)\b/i;

export function createSqliteDialect(database: Database): Dialect {
  return {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => createDriver(database),
    createIntrospector: (kysely) => new SqliteIntrospector(kysely),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
}

function createDriver(database: Database): Driver {
  const turns = createTurns();
  const statements = createStatements(database);
  const connection: DatabaseConnection = {
    executeQuery: async <Row>({ sql, parameters }: CompiledQuery) => execute<Row>(statements.prepare(sql), parameters),
    streamQuery() {
      throw new Error("results are read whole: a statement that stays open would hold up everybody else");
    },
  };
  const run = (sql: string) => async (taken: DatabaseConnection) => {
    await taken.executeQuery(CompiledQuery.raw(sql));
  };
  const rollback = run("rollback");
  return {
    init: async () => {},
    async acquireConnection() {
      await turns.take();
      return connection;
    },
    beginTransaction: run("begin"),
    commitTransaction: run("commit"),
    async rollbackTransaction(taken) {
      // SQLite ends a transaction by itself when the disk is full, and then knows none to roll back: without this, that
      // complaint would hide the disk's.
      if (database.inTransaction) await rollback(taken);
    },
    releaseConnection: async () => turns.pass(),
    async destroy() {
      statements.clear();
      database.close();
    },
  };
}

type Prepared = { readonly statement: Statement; readonly hasRows: boolean };

function execute<Row>({ statement, hasRows }: Prepared, parameters: readonly unknown[]): QueryResult<Row> {
  const bound = parameters as SQLQueryBindings[];
  if (hasRows) return { rows: statement.all(...bound) as Row[] };
  const { changes, lastInsertRowid } = statement.run(...bound);
  return { insertId: BigInt(lastInsertRowid), numAffectedRows: BigInt(changes), rows: [] };
}

/** The statements used last, prepared. */
function createStatements(database: Database) {
  const prepared = new Map<string, Prepared>();
  const clear = () => {
    for (const { statement } of prepared.values()) statement.finalize();
    prepared.clear();
  };
  return {
    clear,
    prepare(sql: string): Prepared {
      if (CHANGES_TABLES.test(sql)) clear();
      const known = prepared.get(sql);
      if (known !== undefined) {
        // The first of a Map is its oldest.
        prepared.delete(sql);
        prepared.set(sql, known);
        return known;
      }
      const statement = database.prepare(sql);
      const made = { statement, hasRows: statement.columnNames.length > 0 };
      prepared.set(sql, made);
      const [oldest] = prepared;
      if (prepared.size > STATEMENTS_MAX && oldest !== undefined) {
        oldest[1].statement.finalize();
        prepared.delete(oldest[0]);
      }
      return made;
    },
  };
}

/** Who comes first is served first. */
function createTurns() {
  const waiting: (() => void)[] = [];
  let isTaken = false;
  return {
    take(): Promise<void> {
      if (isTaken) return new Promise((resolve) => waiting.push(resolve));
      isTaken = true;
      return Promise.resolve();
    },
    pass(): void {
      const next = waiting.shift();
      if (next === undefined) isTaken = false;
      else next();
    },
  };
}
