/**
 * Publishing store paths whose NARs have been uploaded: checks that nothing dangles, signs, inserts. A narinfo exists
 * only when each of its references has one in the same cache, so whoever sees a path can have its closure.
 */
import type { z } from "zod";
import type { publishRequestSchema } from "../../api/caches.ts";
import { describeError, NixdeployError } from "../../errors.ts";
import { formatNarInfo, parseNarInfo } from "../../nix/narinfo.ts";
import type { PathInfo } from "../../nix/path-info.ts";
import { signPathInfo } from "../../nix/signature.ts";
import type { SecretKey } from "../../nix/signing-key.ts";
import { storePathBaseName, storePathHash } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import { type CacheRow, isCacheLive } from "../database/caches.ts";
import { findMissingPaths, findNar, insertPaths, loadPaths, type PathRow } from "../database/paths.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { notFound } from "../problem.ts";
import { loadSigningKeys } from "./rotate-cache-key.ts";

export type PublishedPath = z.output<typeof publishRequestSchema>["paths"][number];

/** Signatures made before the event loop gets a turn. */
const SIGNATURES_PER_TURN = 64;
const FAULTS_SHOWN_MAX = 20;

/**
 * @throws NixdeployError `refused` with every fault in its details, `not-found` when the cache was deleted meanwhile;
 * nothing is published then
 */
export async function publishPaths(
  deps: { readonly database: CoordinatorDatabase; readonly clock: Clock },
  request: { readonly cache: CacheRow; readonly paths: readonly PublishedPath[] },
): Promise<number> {
  const { cache } = request;
  const hashParts = request.paths.map((path) => storePathHash(path.storePath));
  const wanted = new Set(await findMissingPaths(deps.database, { cacheId: cache.id, hashParts }));
  const fresh = request.paths.filter((path) => wanted.has(storePathHash(path.storePath)));
  const faults = [
    ...findUnwritable(fresh),
    ...(await findNarFaults(deps.database, cache, fresh)),
    ...(await findDangling(deps.database, cache, fresh)),
  ];
  if (faults.length > 0) {
    throw new NixdeployError("refused", `cannot publish ${fresh.length} paths: not all of them are whole`, {
      details: faults.slice(0, FAULTS_SHOWN_MAX),
      hint: "Push the whole closure again; what is here already is skipped.",
    });
  }
  const keys = await loadSigningKeys(deps.database, cache);
  const rows = await signPaths(fresh, { cache, keys, nowMs: deps.clock.nowMs() });
  await deps.database.transaction().execute(async (transaction) => {
    if (!(await isCacheLive(transaction, cache.id))) throw notFound(`the cache ${cache.name}`);
    await insertPaths(transaction, rows);
  });
  return rows.length;
}

/** What no narinfo can say, such as a signature with a line break: found by writing one and reading it back. */
function findUnwritable(paths: readonly PublishedPath[]): readonly string[] {
  return paths.flatMap((path) => {
    try {
      parseNarInfo(formatNarInfo({ ...path, url: "nar/file", compression: "zstd", fileSizeBytes: null }));
      return [];
    } catch (error) {
      return [`${path.storePath}: ${describeError(error)}`];
    }
  });
}

async function findNarFaults(
  database: CoordinatorDatabase,
  cache: CacheRow,
  paths: readonly PublishedPath[],
): Promise<readonly string[]> {
  const faults: string[] = [];
  for (const path of paths) {
    const nar = await findNar(database, { cacheId: cache.id, fileHash: path.fileHash });
    if (nar === null) faults.push(`${path.storePath}: its NAR has not been uploaded`);
    else if (nar.nar_hash !== path.narHash || nar.nar_size_bytes !== path.narSizeBytes) {
      faults.push(`${path.storePath}: the uploaded NAR has another NarHash or NarSize`);
    }
  }
  return faults;
}

async function findDangling(
  database: CoordinatorDatabase,
  cache: CacheRow,
  paths: readonly PublishedPath[],
): Promise<readonly string[]> {
  const here = new Set(paths.map((path) => path.storePath));
  const outside = new Set(paths.flatMap((path) => path.references.filter((reference) => !here.has(reference))));
  // By whole path: one of the same hash and another name is another path.
  const rows = await loadPaths(database, { cacheId: cache.id, hashParts: [...outside].map(storePathHash) });
  for (const row of rows) here.add(row.store_path);
  return paths.flatMap((path) =>
    path.references
      .filter((reference) => !here.has(reference))
      .map((reference) => `${path.storePath} refers to ${reference}, which is not in the cache`),
  );
}

async function signPaths(paths: readonly PublishedPath[], by: SignedBy): Promise<readonly PathRow[]> {
  const rows: PathRow[] = [];
  for (const path of paths) {
    if (rows.length % SIGNATURES_PER_TURN === 0) await Bun.sleep(0);
    rows.push(toRow(path, by));
  }
  return rows;
}

type SignedBy = { readonly cache: CacheRow; readonly nowMs: number; readonly keys: readonly SecretKey[] };

function toRow(path: PublishedPath, by: SignedBy): PathRow {
  const references = path.references.toSorted();
  const info: PathInfo = { ...path, references };
  const isOurs = (signature: string) => by.keys.some(({ name }) => signature.startsWith(`${name}:`));
  const others = path.signatures.filter((signature) => !isOurs(signature));
  return {
    cache_id: by.cache.id,
    hash_part: storePathHash(path.storePath),
    store_path: path.storePath,
    nar_hash: path.narHash,
    nar_size_bytes: path.narSizeBytes,
    file_hash: path.fileHash,
    reference_names: references.map(storePathBaseName).join(" "),
    deriver: path.deriver,
    signatures: [...others, ...by.keys.map((key) => signPathInfo(info, key))].join("\n"),
    content_address: path.contentAddress,
    created_ms: by.nowMs,
  };
}
