/** A connection to SQLite whose every statement is announced to a test, which may let it fail, or die, before it is carried out. */
import type { Database, SQLQueryBindings } from "bun:sqlite";

/** @param beforeStatement what it throws is what the statement throws, and then the statement does nothing */
export function watchConnection(connection: Database, beforeStatement: (text: string) => void): void {
  const prepare = connection.prepare.bind(connection);
  Object.assign(connection, {
    prepare(text: string) {
      const statement = prepare<unknown, SQLQueryBindings[]>(text);
      const all = statement.all.bind(statement);
      const run = statement.run.bind(statement);
      return Object.assign(statement, {
        all(...bound: SQLQueryBindings[]) {
          beforeStatement(text);
          return all(...bound);
        },
        run(...bound: SQLQueryBindings[]) {
          beforeStatement(text);
          return run(...bound);
        },
      });
    },
  });
}
