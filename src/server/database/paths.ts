/**
 * Store paths in the caches and the NAR files behind them. A path is inserted only when each of its references is
 * there, so a path that exists has its whole closure.
 */
import type { Selectable } from "kysely";
import type { FileHash } from "../../nix/hash.ts";
import { parseStorePathBaseName, type StorePathHash, storePathHash } from "../../nix/store-path.ts";
import type { CoordinatorDatabase, Schema } from "./schema.ts";

export type NarRow = Selectable<Schema["nars"]>;
export type PathRow = Selectable<Schema["paths"]>;
/** A path joined with its NAR file. */
export type PathWithNarRow = PathRow & Pick<NarRow, "file_size_bytes" | "compression">;

/** Hash parts in one `in (…)`, below SQLite's limit of variables. */
const BATCH = 900;

/** Which of these hash parts have no path in the cache; in the order asked. */
export async function findMissingPaths(
  database: CoordinatorDatabase,
  query: { readonly cacheId: string; readonly hashParts: readonly StorePathHash[] },
): Promise<readonly StorePathHash[]> {
  const present = new Set<StorePathHash>();
  for (const batch of batches(query.hashParts)) {
    const rows = await database
      .selectFrom("paths")
      .select("hash_part")
      .where("cache_id", "=", query.cacheId)
      .where("hash_part", "in", batch)
      .execute();
    for (const row of rows) present.add(row.hash_part);
  }
  return query.hashParts.filter((hashPart) => !present.has(hashPart));
}

export async function loadPaths(
  database: CoordinatorDatabase,
  query: { readonly cacheId: string; readonly hashParts: readonly StorePathHash[] },
): Promise<readonly PathWithNarRow[]> {
  const found: PathWithNarRow[] = [];
  for (const batch of batches(query.hashParts)) {
    const rows = await database
      .selectFrom("paths")
      .innerJoin("nars", (join) =>
        join.onRef("nars.cache_id", "=", "paths.cache_id").onRef("nars.file_hash", "=", "paths.file_hash"),
      )
      .selectAll("paths")
      .select(["nars.file_size_bytes", "nars.compression"])
      .where("paths.cache_id", "=", query.cacheId)
      .where("hash_part", "in", batch)
      .execute();
    found.push(...rows);
  }
  return found;
}

/** The closure of these paths, themselves included, in no particular order; without those that are not there. */
export async function loadClosure(
  database: CoordinatorDatabase,
  query: { readonly cacheId: string; readonly hashParts: readonly StorePathHash[] },
): Promise<readonly PathWithNarRow[]> {
  const closure = new Map<StorePathHash, PathWithNarRow>();
  let wanted = query.hashParts;
  while (wanted.length > 0) {
    const rows = await loadPaths(database, { cacheId: query.cacheId, hashParts: wanted });
    for (const row of rows) closure.set(row.hash_part, row);
    const next = new Set(rows.flatMap((row) => referencesOf(row).map(storePathHash)));
    wanted = [...next].filter((hashPart) => !closure.has(hashPart));
    if (rows.length === 0) break;
  }
  return [...closure.values()];
}

/** The references of a row as store paths, sorted. */
export function referencesOf(row: Pick<PathRow, "reference_names">) {
  return row.reference_names === "" ? [] : row.reference_names.split(" ").map(parseStorePathBaseName);
}

/** @returns null when this NAR file was not uploaded to this cache */
export async function findNar(
  database: CoordinatorDatabase,
  query: { readonly cacheId: string; readonly fileHash: FileHash },
): Promise<NarRow | null> {
  const row = await database
    .selectFrom("nars")
    .selectAll()
    .where("cache_id", "=", query.cacheId)
    .where("file_hash", "=", query.fileHash)
    .executeTakeFirst();
  return row ?? null;
}

export async function insertNar(database: CoordinatorDatabase, row: NarRow): Promise<void> {
  await database
    .insertInto("nars")
    .values(row)
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}

/** All of every cache. */
export async function listNars(database: CoordinatorDatabase): Promise<readonly NarRow[]> {
  return await database.selectFrom("nars").selectAll().execute();
}

/**
 * Forgets NAR files that are gone, and with them every path that needs one, directly or through its references.
 * @returns how many paths were forgotten
 */
export async function forgetNars(
  transaction: CoordinatorDatabase,
  lost: readonly Pick<NarRow, "cache_id" | "file_hash">[],
): Promise<number> {
  const keyOf = (row: Pick<NarRow, "cache_id" | "file_hash">) => `${row.cache_id} ${row.file_hash}`;
  const lostKeys = new Set(lost.map(keyOf));
  const all = await transaction
    .selectFrom("paths")
    .select(["cache_id", "hash_part", "file_hash", "reference_names"])
    .execute();
  const users = new Map<string, (typeof all)[number][]>();
  for (const row of all) {
    for (const reference of referencesOf(row)) {
      const key = `${row.cache_id} ${storePathHash(reference)}`;
      users.set(key, [...(users.get(key) ?? []), row]);
    }
  }
  const forgotten = new Set(all.filter((row) => lostKeys.has(keyOf(row))));
  // A set grows while it is walked, so this ends when nobody new is found.
  for (const row of forgotten) {
    for (const user of users.get(`${row.cache_id} ${row.hash_part}`) ?? []) forgotten.add(user);
  }
  for (const { cache_id, hash_part } of forgotten) {
    await transaction.deleteFrom("paths").where("cache_id", "=", cache_id).where("hash_part", "=", hash_part).execute();
  }
  for (const { cache_id, file_hash } of lost) {
    await transaction.deleteFrom("nars").where("cache_id", "=", cache_id).where("file_hash", "=", file_hash).execute();
  }
  return forgotten.size;
}

/** Inserts paths that are not there yet; one that is there keeps its NAR and its signatures. */
export async function insertPaths(database: CoordinatorDatabase, rows: readonly PathRow[]): Promise<void> {
  for (const batch of batches(rows, 80)) {
    await database
      .insertInto("paths")
      .values([...batch])
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }
}

function* batches<Item>(items: readonly Item[], size = BATCH): Generator<readonly Item[]> {
  for (let start = 0; start < items.length; start += size) yield items.slice(start, start + size);
}
