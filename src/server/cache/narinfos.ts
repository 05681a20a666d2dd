/** narinfos as text, from the database through a bounded memory cache; a path that exists never changes. */
import { sortReferencesFirst } from "../../nix/closure.ts";
import { formatHashNix32 } from "../../nix/hash.ts";
import { formatNarInfo, type NarInfo } from "../../nix/narinfo.ts";
import type { StorePathHash } from "../../nix/store-path.ts";
import { loadClosure, loadPaths, type PathWithNarRow, referencesOf } from "../database/paths.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

export type NarInfos = {
  /** @returns null when the cache has no such path */
  find(query: { readonly cacheId: string; readonly hashPart: StorePathHash }): Promise<string | null>;
  /** The whole closure, references first; empty when the cache has no such path. */
  closure(query: { readonly cacheId: string; readonly hashPart: StorePathHash }): Promise<readonly NarInfo[]>;
};

/** About 700 bytes each. */
const ENTRIES_MAX = 50_000;

export function createNarInfos(database: CoordinatorDatabase): NarInfos {
  const texts = new Map<string, string>();
  return {
    async find(query) {
      const key = `${query.cacheId}/${query.hashPart}`;
      const known = texts.get(key);
      if (known !== undefined) return known;
      const [row] = await loadPaths(database, { cacheId: query.cacheId, hashParts: [query.hashPart] });
      if (row === undefined) return null;
      const text = formatNarInfo(toNarInfo(row));
      if (texts.size >= ENTRIES_MAX) texts.clear();
      texts.set(key, text);
      return text;
    },
    async closure(query) {
      return sortReferencesFirst((await loadClosure(database, query)).map(toNarInfo));
    },
  };
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
