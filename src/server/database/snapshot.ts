/**
 * Whole copies of the database, taken while others write to it. What is copied is one moment's state: SQLite's
 * `vacuum into` reads in one transaction, and the write-ahead log lets writers go on meanwhile.
 */
import { constants, Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { chmod, open } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { NixdeployError } from "../../errors.ts";
import { explainDatabaseError } from "./database-error.ts";

const BUSY_TIMEOUT_MS = 10_000;
const OWNER_ONLY = 0o600;

/**
 * @param to a file that does not exist; durable on return, readable by its owner only
 * @throws NixdeployError `host` when either file cannot be used
 */
export async function copyDatabase({ from, to }: { readonly from: string; readonly to: string }): Promise<void> {
  try {
    using source = new Database(from, { create: false, readwrite: true, strict: true });
    source.run(`pragma busy_timeout = ${BUSY_TIMEOUT_MS}`);
    source.query("vacuum into $to").run({ to });
  } catch (error) {
    throw explainDatabaseError(error, { what: "the database", file: from, hint: "Restore it from an older backup." });
  }
  await chmod(to, OWNER_ONLY);
  await using copy = await open(to, "r+");
  await copy.sync();
}

/**
 * Looks at every page and every constraint.
 * @throws NixdeployError `refused` when it is no database of a coordinator, or damaged
 */
export function verifyDatabase(file: string): void {
  const faults = findFaults(file);
  if (faults.length === 0) return;
  throw new NixdeployError("refused", `cannot use the backup ${file}: ${faults[0]}`, {
    details: faults.slice(1),
    hint: "`nixdeploy backup FILE` writes one.",
  });
}

/**
 * Looks at every page of a database that may be in use, and changes nothing; takes its time, and this thread.
 * @returns what is wrong with it, a sentence each
 */
export function quickCheckDatabase(file: string): readonly string[] {
  return inspect(file, (database) => {
    const checks = database.query<{ quick_check: string }, []>("pragma quick_check(10)").all();
    return checks.map((row) => row.quick_check).filter((text) => text !== "ok");
  });
}

function findFaults(file: string): readonly string[] {
  return inspect(file, (database) => {
    const checks = database.query<{ integrity_check: string }, []>("pragma integrity_check(10)").all();
    const lost = database.query<{ table: string }, []>("pragma foreign_key_check").all();
    return [
      ...checks.map((row) => row.integrity_check).filter((text) => text !== "ok"),
      ...new Set(lost.map(({ table }) => `rows of ${table} refer to what is not there`)),
    ];
  });
}

/** Nobody works on it: then SQLite need make no files beside it to read it. */
const IMMUTABLE = constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI;

function inspect(file: string, look: (database: Database) => readonly string[]): readonly string[] {
  if (!existsSync(file)) return ["there is no such file"];
  try {
    using database = existsSync(`${file}-wal`)
      ? new Database(file, { readonly: true, strict: true })
      : new Database(`${pathToFileURL(file).href}?immutable=1`, IMMUTABLE);
    const tables = database.query("select name from sqlite_schema where name in ('migrations', 'deployments')").all();
    if (tables.length < 2) return ["it is no database of a coordinator"];
    return look(database);
  } catch (error) {
    const explained = explainDatabaseError(error, { what: "it", file, hint: "" });
    if (!(explained instanceof NixdeployError)) throw error;
    return [explained.message.split(": ").at(-1) ?? explained.message];
  }
}
