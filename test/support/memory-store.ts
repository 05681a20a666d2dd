/**
 * A Nix store in memory, as far as an upload reads one: paths made of files, with true NAR hashes.
 */
import { createHash } from "node:crypto";
import type { StoreReader } from "../../src/nix/cache/upload/store-reader.ts";
import { narHashFromDigest } from "../../src/nix/hash.ts";
import { encodeNar } from "../../src/nix/nar/nar-writer.ts";
import { encodeNix32 } from "../../src/nix/nix32.ts";
import type { PathInfo } from "../../src/nix/path-info.ts";
import { parseStorePath, type StorePath } from "../../src/nix/store-path.ts";

export type MemoryStore = {
  /** Adds a path holding one file; returns it. */
  add(name: string, contents: Uint8Array | string, references?: readonly StorePath[]): StorePath;
  /** Exactly these bytes instead of the path's NAR, while its recorded hash stays. */
  damage(path: StorePath, nar: Uint8Array): void;
  info(path: StorePath): PathInfo;
  /** A connection; how many are open now, and were open at most. */
  open(): Promise<StoreReader>;
  readonly connections: { open: number; openMax: number; opened: number };
};

const CHUNK_BYTES = 64 * 1024;

export function createMemoryStore(): MemoryStore {
  const infos = new Map<StorePath, PathInfo>();
  const nars = new Map<StorePath, Uint8Array>();
  const connections = { open: 0, openMax: 0, opened: 0 };

  async function* narFromPath(path: StorePath): AsyncGenerator<Uint8Array, void, undefined> {
    const nar = nars.get(path) ?? new Uint8Array(0);
    for (let start = 0; start < nar.length; start += CHUNK_BYTES) yield nar.subarray(start, start + CHUNK_BYTES);
  }

  return {
    connections,
    add(name, contents, references = []) {
      const bytes = typeof contents === "string" ? new TextEncoder().encode(contents) : contents;
      const nar = Buffer.concat([...encodeNar({ type: "regular", executable: false, contents: bytes })]);
      const digest = createHash("sha256").update(nar).digest();
      const hashPart = encodeNix32(createHash("sha256").update(digest).update(name).digest().subarray(0, 20));
      const storePath = parseStorePath(`/nix/store/${hashPart}-${name}`);
      infos.set(storePath, {
        storePath,
        narHash: narHashFromDigest(digest),
        narSizeBytes: nar.length,
        references: [...references].sort(),
        deriver: null,
        signatures: [],
        contentAddress: null,
      });
      nars.set(storePath, nar);
      return storePath;
    },
    damage: (path, nar) => nars.set(path, nar),
    info(path) {
      const info = infos.get(path);
      if (info === undefined) throw new Error(`${path} is not in the memory store`);
      return info;
    },
    async open() {
      connections.open += 1;
      connections.opened += 1;
      connections.openMax = Math.max(connections.openMax, connections.open);
      return {
        addTempRoots: async () => {},
        queryPathInfos: async (paths) => paths.map((path) => infos.get(path) ?? null),
        narFromPath,
        [Symbol.asyncDispose]: async () => {
          connections.open -= 1;
        },
      };
    },
  };
}
