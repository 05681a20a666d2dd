/**
 * A cache in memory that answers an upload as the coordinator does (`src/api/`): parts in order or 409, everything
 * checked before it is kept, and a path only with all its references.
 */
import { createHash } from "node:crypto";
import { zstdDecompressSync } from "node:zlib";
import { NixdeployError } from "../../src/errors.ts";
import type { PartAnswer, UploadedPath, UploadTarget } from "../../src/nix/cache/upload/upload-target.ts";
import { type FileHash, fileHashFromDigest, type NarHash, narHashFromDigest } from "../../src/nix/hash.ts";
import { type StorePathHash, storePathHash } from "../../src/nix/store-path.ts";

export type MemoryCache = UploadTarget & {
  readonly paths: Map<StorePathHash, UploadedPath>;
  /** Compressed NARs by the hash of their contents. */
  readonly nars: Map<NarHash, { readonly file: Uint8Array; readonly fileHash: FileHash; readonly nar: Uint8Array }>;
  /** Forgets uploads that are under way, as a restart does. */
  forgetUploads(): void;
};

export function createMemoryCache(): MemoryCache {
  const paths: MemoryCache["paths"] = new Map();
  const nars: MemoryCache["nars"] = new Map();
  const uploads = new Map<string, Uint8Array[]>();

  return {
    paths,
    nars,
    forgetUploads: () => uploads.clear(),
    findMissing: async (hashParts) => new Set(hashParts.filter((hashPart) => !paths.has(hashPart))),
    putPart: async (part): Promise<PartAnswer> => {
      const parts = uploads.get(part.uploadId) ?? [];
      const expected = parts.reduce((total, { length }) => total + length, 0);
      if (part.offset !== expected) return { kind: "expects", offset: expected };
      // Copied, because the sender may use its buffer again.
      parts.push(part.body.slice());
      uploads.set(part.uploadId, parts);
      const offset = expected + part.body.length;
      if (part.fileHash === null) return { kind: "stored", offset, complete: false };
      uploads.delete(part.uploadId);
      const file = Buffer.concat(parts);
      const nar = zstdDecompressSync(file);
      const fileHash = fileHashFromDigest(createHash("sha256").update(file).digest());
      const narHash = narHashFromDigest(createHash("sha256").update(nar).digest());
      if (fileHash !== part.fileHash || narHash !== part.narHash || nar.length !== part.narSizeBytes) {
        throw new NixdeployError("refused", "cannot keep the NAR: it is not what it claims to be");
      }
      nars.set(narHash, { file, fileHash, nar });
      return { kind: "stored", offset, complete: true };
    },
    publish: async (published) => {
      const here = new Set(published.map((path) => path.storePath));
      for (const path of published) {
        const lacks = path.references.find((other) => !here.has(other) && !paths.has(storePathHash(other)));
        if (lacks !== undefined) throw new NixdeployError("refused", `cannot publish: ${lacks} is not here`);
        if (nars.get(path.narHash)?.fileHash !== path.fileHash) {
          throw new NixdeployError("refused", `cannot publish ${path.storePath}: its NAR is not here`);
        }
      }
      for (const path of published) paths.set(storePathHash(path.storePath), path);
    },
  };
}
