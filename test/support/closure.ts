/**
 * Synthetic closures: many paths, or large ones, made faster than by building. The store directories are written from
 * outside and registered with `nix-store --register-validity`, for which Nix computes hashes and sizes itself.
 *
 * The same options give the same bytes in every store and run. No paths are signed, none has a deriver.
 */
import { createCipheriv, createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, open, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { encodeNix32 } from "../../src/nix/nix32.ts";
import type { Machine } from "./machine.ts";

export type ContentOptions = {
  /** Bytes of file data; the NAR is a little larger. */
  readonly sizeBytes: number;
  /** 0 to 1, default 1: this share of the bytes cannot be compressed, the rest compresses to half. */
  readonly incompressibleShare?: number;
};

export type BigPathOptions = ContentOptions & { readonly name: string; readonly references?: readonly string[] };

export type ClosureOptions = ContentOptions & {
  readonly name: string;
  /** At least 2; the last one is the top, which reaches all others. */
  readonly pathCount: number;
  /** Two versions differ in the top and in `changedShare` of the others. Default "1". */
  readonly version?: string;
  /** 0 to 1, default 0.1: chosen so that nothing unchanged refers to something changed. */
  readonly changedShare?: number;
};

type GeneratedPath = { readonly storePath: string; readonly references: readonly string[] };

/** Adds one path with one file of `sizeBytes`; returns it. A second call with the same options does nothing. */
export async function addBigPath(machine: Machine, options: BigPathOptions): Promise<string> {
  const path = await writePath(machine, options.name, options, [...(options.references ?? [])].sort());
  await registerPaths(machine, [path]);
  return path.storePath;
}

/**
 * Adds a closure of `pathCount` paths with `sizeBytes` of data in all, sizes log-normal as in real closures, and each
 * path referring to up to eight earlier ones; returns the top path. 500 paths of 5 MB: under a second.
 */
export async function addClosure(machine: Machine, options: ClosureOptions): Promise<string> {
  const random = createSequence(`${options.name} ${options.pathCount}`);
  const count = options.pathCount - 1;
  const weights = Array.from({ length: count }, () => Math.exp(1.8 * gaussian(random)));
  const scale = options.sizeBytes / weights.reduce((sum, weight) => sum + weight, 0);
  const firstChanged = Math.ceil(count * (1 - (options.changedShare ?? 0.1)));
  const version = options.version ?? "1";
  const paths: GeneratedPath[] = [];
  const unreferenced = new Set<string>();
  for (const [index, weight] of weights.entries()) {
    const references = pickReferences(paths, random);
    for (const reference of references) unreferenced.delete(reference);
    // Changed paths are the last ones: an earlier path never refers to them.
    const suffix = index >= firstChanged ? `1.${index % 10}-v${version}` : `1.${index % 10}`;
    const name = `${options.name}-pkg-${String(index).padStart(4, "0")}-${suffix}`;
    const content = { ...options, sizeBytes: Math.max(1, Math.floor(weight * scale)) };
    const path = await writePath(machine, name, content, references);
    unreferenced.add(path.storePath);
    paths.push(path);
  }
  const top = await writePath(machine, `${options.name}-${version}`, { sizeBytes: 64 }, [...unreferenced].sort());
  await registerPaths(machine, [...paths, top]);
  return top.storePath;
}

function pickReferences(paths: readonly GeneratedPath[], random: () => number): string[] {
  const wanted = [0, 1, 2, 3, 5, 8][Math.floor(random() * 6)] ?? 0;
  const picked = new Set<string>();
  for (let n = 0; n < Math.min(wanted, paths.length); n += 1) {
    const path = paths[Math.floor(random() * paths.length)];
    if (path !== undefined) picked.add(path.storePath);
  }
  return [...picked].sort();
}

/** Writes a store directory (not yet valid): `data` and `references`, which names the references and the path itself. */
async function writePath(
  machine: Machine,
  name: string,
  content: ContentOptions,
  references: readonly string[],
): Promise<GeneratedPath> {
  const identity = JSON.stringify([name, content.sizeBytes, content.incompressibleShare ?? 1, references]);
  const digest = createHash("sha256").update(identity).digest();
  const storePath = `/nix/store/${encodeNix32(digest.subarray(0, 20))}-${name}`;
  const path = { storePath, references: [...references, storePath].sort() };
  const target = machine.hostPath(storePath);
  if (existsSync(target)) return path;
  const partial = `${target}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial);
  await writeFile(join(partial, "references"), `${path.references.join("\n")}\n`);
  await writeContent(join(partial, "data"), digest, content);
  await rename(partial, target);
  return path;
}

const CHUNK_BYTES = 1 << 20;

/** AES-CTR over zeros is a fast, repeatable source of incompressible bytes; as hexadecimal text it compresses to half. */
async function writeContent(file: string, digest: Buffer, content: ContentOptions): Promise<void> {
  const keystream = createCipheriv("aes-128-ctr", digest.subarray(0, 16), digest.subarray(16, 32));
  const incompressibleBytes = Math.round(content.sizeBytes * (content.incompressibleShare ?? 1));
  const handle = await open(file, "w");
  try {
    for (let written = 0; written < content.sizeBytes; ) {
      const isText = written >= incompressibleBytes;
      const length = Math.min(CHUNK_BYTES, (isText ? content.sizeBytes : incompressibleBytes) - written);
      const bytes = keystream.update(Buffer.alloc(isText ? Math.ceil(length / 2) : length));
      const chunk = isText ? Buffer.from(bytes.toString("hex").slice(0, length)) : bytes;
      await handle.writeFile(chunk);
      written += length;
    }
  } finally {
    await handle.close();
  }
}

/** Registration format of `nix-store --register-validity`: path, deriver (none), number of references, references. */
async function registerPaths(machine: Machine, paths: readonly GeneratedPath[]): Promise<void> {
  const list = paths.map((path) => path.storePath);
  const invalid = new Set(
    (
      await machine.run(["xargs", "nix-store", "--check-validity", "--print-invalid"], { input: list.join("\n") })
    ).split("\n"),
  );
  const registrations = paths
    .filter((path) => invalid.has(path.storePath))
    .map((path) => [path.storePath, "", path.references.length, ...path.references, ""].join("\n"));
  if (registrations.length === 0) return;
  await machine.run(["nix-store", "--register-validity"], { input: registrations.join(""), timeoutMs: 300_000 });
}

/** Uniform numbers in [0, 1), the same for the same seed. */
export function createSequence(seed: string): () => number {
  let counter = 0;
  return () => {
    counter += 1;
    return createHash("sha256").update(`${seed} ${counter}`).digest().readUInt32LE(0) / 2 ** 32;
  };
}

function gaussian(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
