/**
 * `node:fs/promises` in memory for everything below the folders that are given to it: no disk, no threads, so that
 * whoever works there takes the same steps in the same order each time. Everywhere else the functions are the real ones.
 *
 * A process can be killed: from then on all that it tries fails, while what it wrote is there for the next one
 * (`actAs`). Nothing is lost as in a power cut, which is `simulated-files.ts`. Knows the calls that the agent makes.
 */
import { mock } from "bun:test";
import { AsyncLocalStorage } from "node:async_hooks";
import * as fsPromises from "node:fs/promises";
import { dirname } from "node:path";

/** What runs as one process. */
export type Actor = { isDead: boolean; readonly death: AbortSignal };

type Entry = { bytes: Buffer; mode: number; writtenMs: number };
type Tree = {
  readonly root: string;
  readonly files: Map<string, Entry>;
  readonly folders: Set<string>;
  /** How long it takes until what was written is durable. */
  readonly sync: (death: AbortSignal) => Promise<void>;
  /** Resolves when the disk answers again; null while it does. */
  stuck: PromiseWithResolvers<void> | null;
};

export type MemoryFiles = Disposable & {
  /** Null when there is no such file. */
  text(path: string): string | null;
  /** Names below a folder, sorted. */
  names(folder: string): readonly string[];
  /** Whole folders too. */
  remove(path: string): void;
  /** From now on no call returns, as on a disk that does not answer, until it is freed. */
  stick(): void;
  free(): void;
  /** Told before a file or folder is removed. */
  onRemove: (path: string) => void;
};

const NO_DEATH = new AbortController().signal;
const real = { ...fsPromises };
const trees = new Map<Tree, MemoryFiles>();
const actors = new AsyncLocalStorage<Actor>();
/** Counts up with every write, so that an older file is older. */
let writes = 0;

export async function actAs<T>(actor: Actor, work: () => Promise<T>): Promise<T> {
  return await actors.run(actor, work);
}

/** @param options.sync what a sync waits for, until the process that waits dies; default: nothing */
export function keepInMemory(
  root: string,
  { sync = async () => {} }: { readonly sync?: Tree["sync"] } = {},
): MemoryFiles {
  const tree: Tree = { root, files: new Map(), folders: new Set([root]), sync, stuck: null };
  const files: MemoryFiles = {
    text: (path) => tree.files.get(path)?.bytes.toString("utf8") ?? null,
    names: (folder) => namesIn(tree, folder),
    remove: (path) => removeFrom(tree, path),
    stick() {
      tree.stuck ??= Promise.withResolvers();
    },
    free() {
      tree.stuck?.resolve();
      tree.stuck = null;
    },
    onRemove: () => {},
    [Symbol.dispose]: () => void trees.delete(tree),
  };
  trees.set(tree, files);
  return files;
}

class FileError extends Error {
  readonly code: string;

  constructor(code: string, path: string) {
    super(`${code}: ${path}`);
    this.code = code;
  }
}

function treeOf(path: string): Tree | null {
  for (const tree of trees.keys()) if (path === tree.root || path.startsWith(`${tree.root}/`)) return tree;
  return null;
}

/** Whoever is killed while he waits is told so. */
async function answer(tree: Tree): Promise<void> {
  if (tree.stuck === null) return;
  const actor = actors.getStore();
  const death = actor?.death;
  const killed = Promise.withResolvers<void>();
  const onAbort = () => killed.resolve();
  if (death?.aborted === true) return;
  death?.addEventListener("abort", onAbort, { once: true });
  await Promise.race([tree.stuck.promise, killed.promise]);
  death?.removeEventListener("abort", onAbort);
}

function mustLive(path: string): void {
  if (actors.getStore()?.isDead === true) throw new FileError("ESRCH", `${path}: the process was killed`);
}

function namesIn({ files, folders }: Tree, folder: string): readonly string[] {
  const all = [...files.keys(), ...folders].filter((path) => dirname(path) === folder);
  return all.map((path) => path.slice(folder.length + 1)).sort();
}

function removeFrom({ files, folders }: Tree, path: string): void {
  const isBelow = (other: string) => other === path || other.startsWith(`${path}/`);
  for (const known of [...files.keys()]) if (isBelow(known)) files.delete(known);
  for (const known of [...folders]) if (isBelow(known)) folders.delete(known);
}

function fileIn(tree: Tree, path: string): Entry {
  const entry = tree.files.get(path);
  if (entry === undefined) throw new FileError(tree.folders.has(path) ? "EISDIR" : "ENOENT", path);
  return entry;
}

function openIn(tree: Tree, path: string, flags: string, mode = 0o644) {
  mustLive(path);
  const isFolder = tree.folders.has(path);
  if (!isFolder && flags !== "r" && flags !== "r+") {
    if (!tree.folders.has(dirname(path))) throw new FileError("ENOENT", path);
    if (flags === "w" || !tree.files.has(path)) {
      tree.files.set(path, { bytes: Buffer.alloc(0), mode: tree.files.get(path)?.mode ?? mode, writtenMs: ++writes });
    }
  }
  const entry = isFolder ? { bytes: Buffer.alloc(0), mode: 0o700, writtenMs: 0 } : fileIn(tree, path);
  const change = async (bytes: Buffer) => {
    await answer(tree);
    mustLive(path);
    entry.bytes = bytes;
    entry.writtenMs = ++writes;
  };
  const synced = async () => {
    await answer(tree);
    await tree.sync(actors.getStore()?.death ?? NO_DEATH).catch(() => {
      // Killed while it waited, which is seen next.
    });
    mustLive(path);
  };
  return {
    chmod: async (bits: number) => {
      entry.mode = bits;
    },
    // Everything here is ours.
    stat: async () => ({
      ...{ size: entry.bytes.length, mode: entry.mode, mtimeMs: entry.writtenMs },
      uid: process.getuid?.(),
    }),
    read: async (into: Uint8Array, offset: number, length: number, position: number) => {
      const part = entry.bytes.subarray(position, position + length);
      into.set(part, offset);
      return { bytesRead: part.length, buffer: into };
    },
    write: async (bytes: Uint8Array, offset: number, length: number, position: number) => {
      const end = Math.max(entry.bytes.length, position + length);
      const next = Buffer.concat([entry.bytes, Buffer.alloc(end - entry.bytes.length)]);
      next.set(bytes.subarray(offset, offset + length), position);
      await change(next);
      return { bytesWritten: length, buffer: bytes };
    },
    writeFile: async (text: string) => change(Buffer.from(text)),
    truncate: async (length: number) => change(Buffer.from(entry.bytes.subarray(0, length))),
    sync: synced,
    datasync: synced,
    close: async () => {},
  };
}

function renameIn({ files }: Tree, from: string, to: string): void {
  mustLive(from);
  const entry = files.get(from);
  if (entry === undefined) throw new FileError("ENOENT", from);
  files.delete(from);
  files.set(to, entry);
}

function makeIn({ root, folders }: Tree, path: string): void {
  mustLive(path);
  for (let folder = path; folder.length > root.length; folder = dirname(folder)) folders.add(folder);
}

const memory = {
  ...real,
  open: async (path: string, flags = "r", mode?: number) => {
    const tree = treeOf(path);
    if (tree === null) return await real.open(path, flags, mode);
    await answer(tree);
    return openIn(tree, path, flags, mode);
  },
  rename: async (from: string, to: string) => {
    const tree = treeOf(from);
    if (tree === null) return await real.rename(from, to);
    await answer(tree);
    renameIn(tree, from, to);
  },
  rm: async (path: string, options: { readonly force?: boolean } = {}) => {
    const tree = treeOf(path);
    if (tree === null) return await real.rm(path, options);
    await answer(tree);
    mustLive(path);
    if (!tree.files.has(path) && !tree.folders.has(path)) {
      if (options.force === true) return;
      throw new FileError("ENOENT", path);
    }
    trees.get(tree)?.onRemove(path);
    removeFrom(tree, path);
  },
  mkdir: async (path: string, options: object = {}) => {
    const tree = treeOf(path);
    if (tree === null) return await real.mkdir(path, options);
    await answer(tree);
    return makeIn(tree, path);
  },
  readdir: async (path: string, options?: { readonly encoding: "utf8" }) => {
    const tree = treeOf(path);
    if (tree === null) return options === undefined ? await real.readdir(path) : await real.readdir(path, options);
    await answer(tree);
    if (!tree.folders.has(path)) throw new FileError("ENOENT", path);
    return [...namesIn(tree, path)];
  },
  stat: async (path: string, options?: object) => {
    const tree = treeOf(path);
    if (tree === null) return await real.stat(path, options);
    await answer(tree);
    return await openIn(tree, path, "r").stat();
  },
  readFile: async (path: string, encoding: "utf8") => {
    const tree = treeOf(path);
    if (tree === null) return await real.readFile(path, encoding);
    await answer(tree);
    return fileIn(tree, path).bytes.toString("utf8");
  },
  writeFile: async (path: string, text: string, options?: object) => {
    const tree = treeOf(path);
    if (tree === null) return await real.writeFile(path, text, options);
    await answer(tree);
    await openIn(tree, path, "w").writeFile(text);
  },
};

await mock.module("node:fs/promises", () => memory);
