/**
 * Closures of many paths at once, for comparing and measuring them: names, sizes and references only, of all caches of a
 * workspace together, and of what is known of foreign ones. What two closures share is read once, and each path of it is one
 * object. Between two reads everybody else has a turn: the closures of a fleet are hundreds of thousands of paths.
 *
 * A reference of which nothing is known is in a closure by its name, without size or references.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { ClosureItem } from "../../nix/closure-diff.ts";
import { parsePackageName } from "../../nix/package-name.ts";
import { parseStorePathHash, type StorePath, storePathBaseName } from "../../nix/store-path.ts";
import type { CoordinatorDatabase } from "./schema.ts";

type Node = ClosureItem & { readonly references: readonly string[]; readonly isKnown: boolean };

/** What is known of a path without reading it: from a foreign cache. */
export type KnownPath = {
  readonly references: readonly StorePath[];
  readonly narSizeBytes: number;
  readonly fileSizeBytes: number;
};

export type PathGraph = {
  /**
   * Reads what these paths refer to, directly or not.
   * @param nodesMax paths that may be held, some hundred bytes each
   * @returns false when that would be more, or it is too late: then the graph is good for nothing more
   */
  load(roots: readonly StorePath[], nodesMax: number): Promise<boolean>;
  /** Of what was loaded; null when no cache has the path itself. */
  closureOf(root: StorePath): readonly ClosureItem[] | null;
};

/** Hash parts in one `in (…)`. */
const BATCH = 900;
const HASH_LENGTH = 32;

export type PathGraphOptions = {
  readonly cacheIds: readonly string[];
  /** By base names; what an own cache has is read there. */
  readonly foreign: ReadonlyMap<string, KnownPath>;
  /** Asked between two reads. Default: never. */
  readonly isLate?: () => boolean;
};

export function createPathGraph(database: CoordinatorDatabase, of: PathGraphOptions): PathGraph {
  const nodes = new Map<string, Node>();

  const loadLevel = async (wanted: ReadonlySet<string>): Promise<void> => {
    let open = [...wanted];
    for (const cacheId of of.cacheIds) {
      for (const node of await readNodes(database, { cacheId, baseNames: open })) nodes.set(node.baseName, node);
      open = open.filter((baseName) => !nodes.has(baseName));
    }
    for (const baseName of open) nodes.set(baseName, describeForeign(baseName, of.foreign.get(baseName)));
  };

  return {
    async load(roots, nodesMax) {
      let wanted = new Set(roots.map(storePathBaseName).filter((baseName) => !nodes.has(baseName)));
      while (wanted.size > 0) {
        if (nodes.size + wanted.size > nodesMax || of.isLate?.() === true) return false;
        await loadLevel(wanted);
        await nextTurn();
        const next = [...wanted].flatMap((baseName) => nodes.get(baseName)?.references ?? []);
        wanted = new Set(next.filter((baseName) => !nodes.has(baseName)));
      }
      return true;
    },
    closureOf(root) {
      const first = nodes.get(storePathBaseName(root));
      if (first === undefined || !first.isKnown) return null;
      const closure = new Set([first]);
      // A set grows while it is walked.
      for (const { references } of closure) {
        for (const reference of references) {
          const node = nodes.get(reference);
          if (node !== undefined) closure.add(node);
        }
      }
      return [...closure];
    },
  };
}

async function readNodes(
  database: CoordinatorDatabase,
  query: { readonly cacheId: string; readonly baseNames: readonly string[] },
): Promise<readonly Node[]> {
  const nodes: Node[] = [];
  for (let start = 0; start < query.baseNames.length; start += BATCH) {
    if (start > 0) await nextTurn();
    const hashParts = query.baseNames
      .slice(start, start + BATCH)
      .map((baseName) => parseStorePathHash(baseName.slice(0, HASH_LENGTH)));
    const rows = await database
      .selectFrom("paths")
      .innerJoin("nars", (join) =>
        join.onRef("nars.cache_id", "=", "paths.cache_id").onRef("nars.file_hash", "=", "paths.file_hash"),
      )
      .select(["paths.store_path", "paths.reference_names", "paths.nar_size_bytes", "nars.file_size_bytes"])
      .where("paths.cache_id", "=", query.cacheId)
      .where("hash_part", "in", hashParts)
      .execute();
    for (const row of rows) {
      nodes.push({
        ...describe(storePathBaseName(row.store_path)),
        narSizeBytes: row.nar_size_bytes,
        fileSizeBytes: row.file_size_bytes,
        references: row.reference_names === "" ? [] : row.reference_names.split(" "),
        isKnown: true,
      });
    }
  }
  return nodes;
}

function describeForeign(baseName: string, known: KnownPath | undefined): Node {
  if (known === undefined) return { ...describe(baseName), references: [], isKnown: false };
  const { references, narSizeBytes, fileSizeBytes } = known;
  const names = references.map(storePathBaseName);
  return { ...describe(baseName), narSizeBytes, fileSizeBytes, references: names, isKnown: true };
}

function describe(baseName: string): ClosureItem {
  const { name, version } = parsePackageName(baseName.slice(HASH_LENGTH + 1));
  return { baseName, name, version, narSizeBytes: 0, fileSizeBytes: 0 };
}
