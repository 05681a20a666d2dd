/**
 * bun:sqlite under Kysely: one connection, taken in turn, and prepared statements that are kept.
 *
 * Of our own, because Kysely's way to one connection is made for a network behind it. It wakes everybody who waits whenever
 * the connection is free, goes through a dozen promises for a statement that SQLite answers at once, and the usual driver
 * prepares each statement anew. So statements go from the builder straight to SQLite (`DirectExecutor`), and a statement
 * outside of a transaction waits for its turn only while somebody else has the connection. What Kysely can do besides is
 * left out: plugins that change results, a log of queries, queries that are given up.
 */
import type { Database, SQLQueryBindings, Statement } from "bun:sqlite";
import {
  type CompiledQuery,
  type ConnectionProvider,
  type DatabaseConnection,
  DefaultConnectionProvider,
  DefaultQueryExecutor,
  type Dialect,
  type Driver,
  Kysely,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from "kysely";

/** More than the program has; lists of every length have a statement each. */
const STATEMENTS_MAX = 300;
/** After these, what was prepared before may have other columns. */
const CHANGES_TABLES = /^\s*(?:create|alter|drop)\b/i;

/** Closes the connection when it is destroyed. */
export function createSqliteKysely<Schema>(database: Database): Kysely<Schema> {
  const engine: Engine = { turns: createTurns(), statements: createStatements(database) };
  const driver = createDriver(database, engine);
  const dialect: Dialect = {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => driver,
    createIntrospector: (kysely) => new SqliteIntrospector(kysely),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
  const executor = new DirectExecutor(engine, new DefaultConnectionProvider(driver));
  return new Kysely<Schema>({ config: { dialect }, dialect, driver, executor });
}

type Engine = { readonly turns: Turns; readonly statements: Statements };

/** Carries compiled statements out at once. */
class DirectExecutor extends DefaultQueryExecutor {
  readonly #engine: Engine;
  /** Kysely makes such a one, with a provider of its own, for whoever has taken the connection: a transaction. */
  readonly #hasConnection: boolean;

  constructor(engine: Engine, provider: ConnectionProvider, hasConnection = false) {
    super(new SqliteQueryCompiler(), new SqliteAdapter(), provider);
    this.#engine = engine;
    this.#hasConnection = hasConnection;
  }

  override async executeQuery<Row>(query: CompiledQuery): Promise<QueryResult<Row>> {
    const { turns, statements } = this.#engine;
    if (this.#hasConnection || turns.isFree()) return execute<Row>(statements, query);
    await turns.take();
    try {
      return execute<Row>(statements, query);
    } finally {
      turns.pass();
    }
  }

  override withConnectionProvider(provider: ConnectionProvider): DirectExecutor {
    return this.#hasConnection ? this : new DirectExecutor(this.#engine, provider, true);
  }
}

function createDriver(database: Database, { turns, statements }: Engine): Driver {
  const connection: DatabaseConnection = {
    executeQuery: async <Row>(query: CompiledQuery) => execute<Row>(statements, query),
    streamQuery() {
      throw new Error("results are read whole: a statement that stays open would hold up everybody else");
    },
  };
  const run = (sql: string) => async () => {
    statements.prepare(sql).statement.run();
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
    async rollbackTransaction() {
      // SQLite ends a transaction by itself when the disk is full, and then knows none to roll back: without this, that
      // complaint would hide the disk's.
      if (database.inTransaction) await rollback();
    },
    releaseConnection: async () => turns.pass(),
    async destroy() {
      statements.clear();
      database.close();
    },
  };
}

function execute<Row>(statements: Statements, { sql, parameters }: CompiledQuery): QueryResult<Row> {
  const { statement, hasRows } = statements.prepare(sql);
  const bound = parameters as SQLQueryBindings[];
  if (hasRows) return { rows: statement.all(...bound) as Row[] };
  return { numAffectedRows: BigInt(statement.run(...bound).changes), rows: [] };
}

type Prepared = { readonly statement: Statement; readonly hasRows: boolean };
type Statements = { prepare(sql: string): Prepared; clear(): void };

/** The statements used last, prepared. */
function createStatements(database: Database): Statements {
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

type Turns = {
  /** Nobody has the connection: what is done before anything is awaited is alone with it. */
  isFree(): boolean;
  take(): Promise<void>;
  pass(): void;
};

/** Who comes first is served first. */
function createTurns(): Turns {
  const waiting: (() => void)[] = [];
  let isTaken = false;
  return {
    isFree: () => !isTaken,
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
