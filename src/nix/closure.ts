/**
 * The graph of references between store paths: order for importing, and what a set lacks to be a closure.
 *
 * Pure; works on whatever carries `storePath` and `references`. A path may refer to itself; other cycles do not exist
 * in a store, so one here means that the input lies.
 */
import { NixParseError } from "./parse-error.ts";
import { compareStorePaths, type StorePath } from "./store-path.ts";

export type ClosureNode = {
  readonly storePath: StorePath;
  readonly references: readonly StorePath[];
};

/**
 * The same items with each after all those it refers to; otherwise in the order given.
 *
 * References to paths that are not among `infos` are taken as satisfied.
 * @throws NixParseError when a path is listed twice, or when references form a cycle other than a self-reference
 */
export function sortReferencesFirst<T extends ClosureNode>(infos: readonly T[]): T[] {
  const byPath = indexByPath(infos);
  const sorted: T[] = [];
  const done = new Set<StorePath>();
  // Closures may be thousands deep: an explicit stack instead of recursion.
  for (const root of infos) {
    const open = new Set<StorePath>();
    const stack: T[] = [root];
    for (let node = stack.at(-1); node !== undefined; node = stack.at(-1)) {
      if (done.has(node.storePath)) {
        stack.pop();
      } else if (open.has(node.storePath)) {
        // Seen for the second time, so everything pushed above it is done.
        stack.pop();
        done.add(node.storePath);
        sorted.push(node);
      } else {
        open.add(node.storePath);
        stack.push(...unfinishedReferences(node, byPath, done, open));
      }
    }
  }
  return sorted;
}

/** Every referenced path that is neither among `infos` nor present elsewhere, sorted, each once. */
export function missingReferences(infos: readonly ClosureNode[], isPresent: (path: StorePath) => boolean): StorePath[] {
  const listed = new Set(infos.map((info) => info.storePath));
  const missing = new Set<StorePath>();
  for (const info of infos) {
    for (const reference of info.references) {
      if (!listed.has(reference) && !missing.has(reference) && !isPresent(reference)) {
        missing.add(reference);
      }
    }
  }
  return [...missing].sort(compareStorePaths);
}

function indexByPath<T extends ClosureNode>(infos: readonly T[]): ReadonlyMap<StorePath, T> {
  const byPath = new Map(infos.map((info) => [info.storePath, info]));
  if (byPath.size !== infos.length) {
    throw new NixParseError("closure", "a store path is listed twice");
  }
  return byPath;
}

function unfinishedReferences<T extends ClosureNode>(
  node: T,
  byPath: ReadonlyMap<StorePath, T>,
  done: ReadonlySet<StorePath>,
  open: ReadonlySet<StorePath>,
): T[] {
  const unfinished: T[] = [];
  for (const reference of node.references) {
    const target = byPath.get(reference);
    if (target === undefined || reference === node.storePath || done.has(reference)) {
      continue;
    }
    if (open.has(reference)) {
      throw new NixParseError("closure", `${node.storePath} and ${reference} refer to each other in a cycle`);
    }
    unfinished.push(target);
  }
  // The stack is last in, first out: reversed, so that references come out in their own order.
  return unfinished.reverse();
}
