/**
 * Another signing key for a cache: drawn here, and vouched for by the old one in a statement that every agent gets with
 * its next welcome (`key-statement.ts`). From then on paths are signed by both, the old one until the next rotation, so
 * that who reads the cache without an agent has the time to learn the new one; what was published before gets the new
 * key's signature when it is read (`narinfos.ts`).
 */
import { NixdeployError } from "../../errors.ts";
import { KEY_STATEMENTS_MAX, type KeyStatement, signKeyStatement } from "../../key-statement.ts";
import {
  formatSecretKey,
  parseSecretKey,
  publicKeyOf,
  type SecretKey,
  secretKeyFromSeed,
} from "../../nix/signing-key.ts";
import type { Clock, Random } from "../../runtime.ts";
import {
  type CacheKeyRow,
  findPreviousSecret,
  insertCacheKey,
  listCacheKeys,
  saveCacheSecret,
} from "../database/cache-keys.ts";
import { type CacheRow, findCache } from "../database/caches.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

const KEY_BYTES = 32;

/** @returns the cache with its new key. @throws NixdeployError `refused` after more rotations than agents follow */
export async function rotateCacheKey(
  deps: { readonly database: CoordinatorDatabase; readonly clock: Clock; readonly random: Random },
  { name }: Pick<CacheRow, "name">,
): Promise<CacheRow> {
  return await deps.database.transaction().execute(async (transaction) => {
    const cache = await findCache(transaction, name);
    if (cache === null) throw new NixdeployError("not-found", `cannot find the cache ${name}`);
    const sequence = (await listCacheKeys(transaction, cache.id)).length + 1;
    if (sequence > KEY_STATEMENTS_MAX) {
      throw new NixdeployError("refused", `cannot give ${name} another key: it has had ${KEY_STATEMENTS_MAX} before`, {
        hint: "Agents follow no longer chain of statements. Make a new cache.",
      });
    }
    const old = parseSecretKey(cache.secret_key);
    const next = secretKeyFromSeed(nextKeyName(old.name), deps.random.bytes(KEY_BYTES));
    const atMs = deps.clock.nowMs();
    const {
      cache: _name,
      oldKey,
      newKey,
      signature,
    } = signKeyStatement(old, {
      ...{ cache: name, newKey: publicKeyOf(next), sequence, atMs },
    });
    await insertCacheKey(transaction, {
      ...{ cache_id: cache.id, sequence, old_key: oldKey, new_key: newKey, at_ms: atMs, signature },
      old_secret: cache.secret_key,
    });
    const secretKey = formatSecretKey(next);
    await saveCacheSecret(transaction, { id: cache.id, secretKey });
    return { ...cache, secret_key: secretKey };
  });
}

/** What its keys have said, for agents. */
export async function loadKeyStatements(
  database: CoordinatorDatabase,
  cache: Pick<CacheRow, "id" | "name">,
): Promise<readonly KeyStatement[]> {
  return (await listCacheKeys(database, cache.id)).map((row) => toStatement(row, cache.name));
}

/** The keys that paths are signed with: the cache's, and the one before it, if there was one. */
export async function loadSigningKeys(
  database: CoordinatorDatabase,
  cache: Pick<CacheRow, "id" | "secret_key">,
): Promise<readonly [SecretKey, ...SecretKey[]]> {
  const previous = await findPreviousSecret(database, cache.id);
  return [parseSecretKey(cache.secret_key), ...(previous === null ? [] : [parseSecretKey(previous)])];
}

function toStatement(row: CacheKeyRow, cache: string): KeyStatement {
  const { old_key: oldKey, new_key: newKey, sequence, at_ms: atMs, signature } = row;
  return { cache, oldKey, newKey, sequence, atMs, signature };
}

/** `default-x7k2p1-1` → `default-x7k2p1-2`: Nix looks keys up by name. Pure. */
export function nextKeyName(name: string): string {
  const [, stem, number] = /^(.*)-(\d{1,9})$/.exec(name) ?? [];
  return stem === undefined ? `${name}-2` : `${stem}-${Number(number) + 1}`;
}
