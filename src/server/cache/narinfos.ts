/** narinfos as text, from the database through a bounded memory cache; a path that exists never changes. */
import { encodeBase64 } from "../../nix/base64.ts";
import { sortReferencesFirst } from "../../nix/closure.ts";
import { formatFingerprint } from "../../nix/fingerprint.ts";
import { formatHashNix32 } from "../../nix/hash.ts";
import { formatNarInfo, type NarInfo } from "../../nix/narinfo.ts";
import { signMessage } from "../../nix/signature.ts";
import { parseSecretKey, type SecretKey } from "../../nix/signing-key.ts";
import type { StorePathHash } from "../../nix/store-path.ts";
import { loadCacheById } from "../database/caches.ts";
import { loadClosure, loadPaths, type PathWithNarRow, referencesOf } from "../database/paths.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

export type NarInfos = {
  /** @returns null when the cache has no such path */
  find(query: { readonly cacheId: string; readonly hashPart: StorePathHash }): Promise<string | null>;
  /** The whole closure, references first; empty when the cache has no such path. */
  closure(query: { readonly cacheId: string; readonly hashPart: StorePathHash }): Promise<readonly NarInfo[]>;
  /** The cache signs with another key: what is remembered lacks its signature. */
  forgetSignatures(cacheId: string): void;
};

/** About 700 bytes each. */
const ENTRIES_MAX = 50_000;

export function createNarInfos(database: CoordinatorDatabase): NarInfos {
  const texts = new Map<string, string>();
  const keys = new Map<string, SecretKey>();
  const loadKey = async (cacheId: string): Promise<SecretKey> => {
    const known = keys.get(cacheId);
    if (known !== undefined) return known;
    const key = parseSecretKey((await loadCacheById(database, cacheId)).secret_key);
    keys.set(cacheId, key);
    return key;
  };
  return {
    async find(query) {
      const key = `${query.cacheId}/${query.hashPart}`;
      const known = texts.get(key);
      if (known !== undefined) return known;
      const [row] = await loadPaths(database, { cacheId: query.cacheId, hashParts: [query.hashPart] });
      if (row === undefined) return null;
      const text = formatNarInfo(withSignature(toNarInfo(row), await loadKey(query.cacheId)));
      if (texts.size >= ENTRIES_MAX) texts.clear();
      texts.set(key, text);
      return text;
    },
    async closure(query) {
      const { cacheId, hashPart } = query;
      const rows = await loadClosure(database, { cacheId, hashParts: [hashPart] });
      if (rows.length === 0) return [];
      const key = await loadKey(query.cacheId);
      return sortReferencesFirst(rows.map((row) => withSignature(toNarInfo(row), key)));
    },
    forgetSignatures(cacheId) {
      keys.delete(cacheId);
      for (const name of texts.keys()) if (name.startsWith(`${cacheId}/`)) texts.delete(name);
    },
  };
}

/** What was published before the cache had its present key is signed with it when it is read. */
function withSignature(info: NarInfo, key: SecretKey): NarInfo {
  if (info.signatures.some((signature) => signature.startsWith(`${key.name}:`))) return info;
  const signature = signMessage(key.seed, new TextEncoder().encode(formatFingerprint(info)));
  return { ...info, signatures: [...info.signatures, `${key.name}:${encodeBase64(signature)}`] };
}

function toNarInfo(row: PathWithNarRow): NarInfo {
  return {
    storePath: row.store_path,
    url: `nar/${formatHashNix32(row.file_hash)}.nar.zst`,
    compression: row.compression,
    fileHash: row.file_hash,
    fileSizeBytes: row.file_size_bytes,
    narHash: row.nar_hash,
    narSizeBytes: row.nar_size_bytes,
    references: referencesOf(row),
    deriver: row.deriver,
    signatures: row.signatures.split("\n"),
    contentAddress: row.content_address,
  };
}
