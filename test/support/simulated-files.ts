/**
 * `node:fs/promises` with a disk below it that can lose power. Below a simulated directory every change goes to the real
 * files, which are what a running system sees; beside that it is kept what of it is durable: the bytes of a file as of
 * its last fsync, the names of a directory as of the directory's last fsync. A power cut makes the real files what the
 * disk kept: exactly that, or that with any part of what was never synced (any name, any length, zeros for data).
 *
 * Everything that is done below such a directory can be watched and made to fail, by whoever started the work
 * (`actAs`): a killed process is one for whom everything fails from some operation on. Everywhere else the functions
 * are the real ones, so other tests of the same run notice nothing. Knows the calls that the agent makes, no more.
 */
import { mock } from "bun:test";
import { AsyncLocalStorage } from "node:async_hooks";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import * as fsPromises from "node:fs/promises";
import { dirname, join } from "node:path";

export type SimulatedDisk = Disposable & {
  /** Puts the real files into a state that a power cut now may leave. Nobody may be at work. */
  cutPower(options: PowerCut): void;
  /** What surely survives of a file; null when it may be gone. */
  durableText(path: string): string | null;
};

export type PowerCut = {
  /** Nothing that was not synced survives; or else anything of it may. */
  readonly isStrict: boolean;
  /** In [0, 1). */
  readonly fraction: () => number;
};

/** Told before every change, such as "rename activation.json.new"; what it throws is what the caller gets. */
export type FileWatcher = (operation: string) => void;

type FileNode = {
  readonly kind: "file";
  synced: Buffer;
  /** Its bytes after each write since then. */
  unsynced: Buffer[];
};
type Node = FileNode | { readonly kind: "directory" };
type Disk = { readonly root: string; live: Map<string, Node>; durable: Map<string, Node> };

const real = { ...fsPromises };
const disks = new Set<Disk>();
const executables = new Set<string>();
const actors = new AsyncLocalStorage<FileWatcher>();

/** Does the work, and everything that it leaves running, under the eyes of the watcher. */
export async function actAs<T>(watcher: FileWatcher, work: () => Promise<T>): Promise<T> {
  return await actors.run(watcher, work);
}

/** Lets a path that is not there look like a program. */
export function pretendExecutable(path: string): void {
  executables.add(path);
}

/** Everything that is there now counts as durable. */
export function simulateDisk(root: string): SimulatedDisk {
  const live = scan(root);
  const disk: Disk = { root, live, durable: new Map(live) };
  disks.add(disk);
  return {
    cutPower: (options) => cutPower(disk, options),
    durableText(path) {
      for (let folder = dirname(path); folder.length > root.length; folder = dirname(folder)) {
        if (disk.durable.get(folder)?.kind !== "directory") return null;
      }
      const node = disk.durable.get(path);
      return node?.kind === "file" ? node.synced.toString("utf8") : null;
    },
    [Symbol.dispose]: () => void disks.delete(disk),
  };
}

function scan(root: string): Map<string, Node> {
  const nodes = new Map<string, Node>();
  for (const name of readdirSync(root, { recursive: true, encoding: "utf8" })) {
    const path = join(root, name);
    nodes.set(path, statSync(path).isDirectory() ? { kind: "directory" } : fileNode(readFileSync(path)));
  }
  return nodes;
}

function fileNode(synced: Buffer = Buffer.alloc(0)): FileNode {
  return { kind: "file", synced, unsynced: [] };
}

function cutPower(disk: Disk, { isStrict, fraction }: PowerCut): void {
  const paths = [...new Set([...disk.live.keys(), ...disk.durable.keys()])].sort();
  const kept = new Map<string, Node>();
  for (const path of paths) {
    const node = (!isStrict && fraction() < 0.5 ? disk.live : disk.durable).get(path);
    const hasParent = dirname(path) === disk.root || kept.get(dirname(path))?.kind === "directory";
    if (node === undefined || !hasParent) continue;
    kept.set(path, node.kind === "file" ? fileNode(isStrict ? node.synced : tear(node, fraction)) : node);
  }
  for (const name of readdirSync(disk.root)) rmSync(join(disk.root, name), { recursive: true });
  for (const [path, node] of kept) {
    if (node.kind === "directory") mkdirSync(path);
    else writeFileSync(path, node.synced, { mode: 0o600 });
  }
  disk.live = kept;
  disk.durable = new Map(kept);
}

/** What was synced, or a later content of which the tail was not written, or not yet filled. */
function tear({ synced, unsynced }: FileNode, fraction: () => number): Buffer {
  const later = unsynced[Math.floor(fraction() * (unsynced.length + 1))];
  if (later === undefined) return synced;
  const firstNew = Math.min(synced.length, later.length);
  const length = firstNew + Math.floor(fraction() * (later.length - firstNew + 1));
  const torn = Buffer.from(later.subarray(0, length));
  return fraction() < 0.3 ? torn.fill(0, firstNew) : torn;
}

function diskOf(path: unknown): Disk | null {
  return [...disks].find(({ root }) => path === root || String(path).startsWith(`${root}/`)) ?? null;
}

function tellWatcher(operation: string, { root }: Disk, path: string): void {
  actors.getStore()?.(`${operation} ${path.slice(root.length + 1) || "."}`);
}

function syncDirectory({ live, durable }: Disk, path: string): void {
  for (const known of [...durable.keys()]) {
    if (dirname(known) === path && !live.has(known)) durable.delete(known);
  }
  for (const [name, node] of live) if (dirname(name) === path) durable.set(name, node);
}

async function openSimulated(disk: Disk, path: string, flags: string, mode?: number) {
  const isForWriting = flags !== "r";
  if (isForWriting) tellWatcher("open", disk, path);
  const handle = await real.open(path, flags, mode);
  const isDirectory = (await handle.stat()).isDirectory();
  const node = isDirectory ? null : (disk.live.get(path) ?? fileNode());
  if (node !== null) disk.live.set(path, node);
  if (flags === "w" && node?.kind === "file") node.unsynced.push(Buffer.alloc(0));

  const readNow = () => readFileSync(`/proc/self/fd/${handle.fd}`);
  const change = async <T>(operation: string, work: () => Promise<T>): Promise<T> => {
    tellWatcher(operation, disk, path);
    const result = await work();
    if (node?.kind === "file") node.unsynced.push(readNow());
    return result;
  };
  const sync = async () => {
    tellWatcher("sync", disk, path);
    if (node?.kind === "file") {
      node.synced = readNow();
      node.unsynced = [];
    } else syncDirectory(disk, path);
  };
  return {
    chmod: (bits: number) => handle.chmod(bits),
    stat: () => handle.stat(),
    read: (bytes: Uint8Array, offset: number, length: number, position: number) =>
      handle.read(bytes, offset, length, position),
    write: (bytes: Uint8Array, offset: number, length: number, position: number) =>
      change("write", () => handle.write(bytes, offset, length, position)),
    writeFile: (text: string) => change("write", () => handle.writeFile(text)),
    truncate: (length: number) => change("truncate", () => handle.truncate(length)),
    ...{ sync, datasync: sync },
    close: () => handle.close(),
  };
}

async function renameSimulated(disk: Disk, from: string, to: string): Promise<void> {
  tellWatcher("rename", disk, from);
  await real.rename(from, to);
  const node = disk.live.get(from);
  disk.live.delete(from);
  if (node !== undefined) disk.live.set(to, node);
}

async function removeSimulated(disk: Disk, path: string, options: object): Promise<void> {
  tellWatcher("remove", disk, path);
  await real.rm(path, options);
  for (const known of [...disk.live.keys()])
    if (known === path || known.startsWith(`${path}/`)) disk.live.delete(known);
}

async function makeSimulated(disk: Disk, path: string, options: { readonly recursive?: boolean; mode?: number }) {
  tellWatcher("make", disk, path);
  await real.mkdir(path, options);
  for (let folder = path; folder.length > disk.root.length; folder = dirname(folder)) {
    if (!disk.live.has(folder)) disk.live.set(folder, { kind: "directory" });
  }
}

async function writeSimulated(disk: Disk, path: string, text: string): Promise<void> {
  const handle = await openSimulated(disk, path, "w");
  try {
    await handle.writeFile(text);
  } finally {
    await handle.close();
  }
}

const NO_OPTIONS = {};
const simulated = {
  ...real,
  open: (path: string, flags = "r", mode?: number) => {
    const disk = diskOf(path);
    return disk === null ? real.open(path, flags, mode) : openSimulated(disk, path, flags, mode);
  },
  rename: (from: string, to: string) => {
    const disk = diskOf(from);
    return disk === null ? real.rename(from, to) : renameSimulated(disk, from, to);
  },
  rm: (path: string, options: object = NO_OPTIONS) => {
    const disk = diskOf(path);
    return disk === null ? real.rm(path, options) : removeSimulated(disk, path, options);
  },
  mkdir: (path: string, options: object = NO_OPTIONS) => {
    const disk = diskOf(path);
    return disk === null ? real.mkdir(path, options) : makeSimulated(disk, path, options);
  },
  writeFile: (path: string, text: string, options?: object) => {
    const disk = diskOf(path);
    return disk === null ? real.writeFile(path, text, options) : writeSimulated(disk, path, text);
  },
  access: (path: string, mode?: number) => (executables.has(path) ? Promise.resolve() : real.access(path, mode)),
  stat: async (path: string, options?: object) =>
    executables.has(path) ? { isFile: () => true } : await real.stat(path, options),
};

await mock.module("node:fs/promises", () => simulated);
