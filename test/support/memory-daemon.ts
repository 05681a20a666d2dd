/**
 * A device's Nix store in memory, behind the interface of a daemon connection: it takes a path only when its NAR has
 * the promised size and hash and its references are valid, as the real one does.
 */
import { createHash } from "node:crypto";
import { NixdeployError } from "../../src/errors.ts";
import type { DaemonConnection } from "../../src/nix/daemon/connection.ts";
import { narHashFromDigest } from "../../src/nix/hash.ts";
import type { PathInfo } from "../../src/nix/path-info.ts";
import type { StorePath } from "../../src/nix/store-path.ts";

export type MemoryDaemon = {
  /** Valid paths. */
  readonly valid: Map<StorePath, PathInfo>;
  /** Every path that was ever given a temporary root. */
  readonly tempRoots: Set<StorePath>;
  readonly connections: { open: number; openMax: number };
  /** Called before a path becomes valid; may throw, or wait. */
  beforeAdd: (info: PathInfo) => Promise<void>;
  /** Called when a path has become valid. */
  afterAdd: (info: PathInfo) => void;
  connect(options: { readonly signal: AbortSignal }): Promise<DaemonConnection>;
};

export function createMemoryDaemon(): MemoryDaemon {
  const daemon: MemoryDaemon = {
    valid: new Map(),
    tempRoots: new Set(),
    connections: { open: 0, openMax: 0 },
    beforeAdd: async () => {},
    afterAdd: () => {},
    async connect({ signal }) {
      signal.throwIfAborted();
      daemon.connections.open += 1;
      daemon.connections.openMax = Math.max(daemon.connections.openMax, daemon.connections.open);
      return createConnection(daemon);
    },
  };
  return daemon;
}

function createConnection(daemon: MemoryDaemon): DaemonConnection {
  return {
    protocolVersion: "1.34",
    nixVersion: "2.8.0",
    trust: "trusted",
    queryValidPaths: async (paths) => new Set(paths.filter((path) => daemon.valid.has(path))),
    listValidPaths: async () => [...daemon.valid.keys()],
    queryPathInfo: async (path) => daemon.valid.get(path) ?? null,
    queryPathInfos: async (paths) => paths.map((path) => daemon.valid.get(path) ?? null),
    async queryValidPath(path) {
      const info = daemon.valid.get(path);
      return info === undefined ? null : { info, isBuiltHere: false };
    },
    addTempRoots: async (paths) => {
      for (const path of paths) daemon.tempRoots.add(path);
    },
    addIndirectRoot: async () => {},
    narFromPath: () => {
      throw new Error("the memory daemon keeps no contents");
    },
    async addToStoreNar({ info, nar }) {
      const hash = createHash("sha256");
      let sizeBytes = 0;
      for await (const chunk of nar) {
        hash.update(chunk);
        sizeBytes += chunk.length;
      }
      await daemon.beforeAdd(info);
      const absent = info.references.find((path) => path !== info.storePath && !daemon.valid.has(path));
      if (absent !== undefined) throw new NixdeployError("host", `path '${absent}' is not valid`);
      if (sizeBytes !== info.narSizeBytes || narHashFromDigest(hash.digest()) !== info.narHash) {
        throw new NixdeployError("host", `hash mismatch importing path '${info.storePath}'`);
      }
      daemon.valid.set(info.storePath, info);
      daemon.afterAdd(info);
    },
    async [Symbol.asyncDispose]() {
      daemon.connections.open -= 1;
    },
  };
}
