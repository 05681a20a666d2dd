/** Store paths made in the test, small and true: NAR, its compressed file, and what a pusher would publish of them. */
import { createHash } from "node:crypto";
import { zstdCompressSync } from "node:zlib";
import type { z } from "zod";
import type { publishRequestSchema } from "../../src/api/caches.ts";
import { type FileHash, fileHashFromDigest, type NarHash, narHashFromDigest } from "../../src/nix/hash.ts";
import { encodeNar } from "../../src/nix/nar/nar-writer.ts";
import { encodeNix32 } from "../../src/nix/nix32.ts";
import { parseStorePathBaseName, type StorePath } from "../../src/nix/store-path.ts";

export type TinyPath = {
  readonly storePath: StorePath;
  readonly nar: Uint8Array;
  readonly narHash: NarHash;
  /** The NAR, compressed by zstd. */
  readonly file: Uint8Array;
  readonly fileHash: FileHash;
  readonly references: readonly StorePath[];
  /** As the body of POST …/paths has it. */
  readonly published: z.input<typeof publishRequestSchema>["paths"][number];
};

export type TinyPathOptions = {
  /** Default: a line with the name. */
  readonly contents?: Uint8Array;
  readonly references?: readonly StorePath[];
};

/** The same arguments give the same path. */
export function createTinyPath(name: string, options: TinyPathOptions = {}): TinyPath {
  const references = [...(options.references ?? [])].sort();
  const contents = options.contents ?? new TextEncoder().encode(`${name}\n${references.join("\n")}\n`);
  const nar = new Uint8Array(Buffer.concat([...encodeNar({ type: "regular", executable: false, contents })]));
  const file = new Uint8Array(zstdCompressSync(nar));
  const narHash = narHashOf(nar);
  const fileHash = fileHashOf(file);
  const storePath = storePathFor(name, `${narHash} ${references.join(" ")}`);
  return {
    storePath,
    nar,
    narHash,
    file,
    fileHash,
    references,
    published: {
      storePath,
      narHash,
      narSizeBytes: nar.length,
      references,
      deriver: null,
      signatures: [],
      contentAddress: null,
      fileHash,
    },
  };
}

/** A well-formed store path that stands for nothing. */
export function storePathFor(name: string, identity = name): StorePath {
  const digest = createHash("sha256").update(identity).digest();
  return parseStorePathBaseName(`${encodeNix32(digest.subarray(0, 20))}-${name}`);
}

export function narHashOf(nar: Uint8Array): NarHash {
  return narHashFromDigest(createHash("sha256").update(nar).digest());
}

export function fileHashOf(file: Uint8Array): FileHash {
  return fileHashFromDigest(createHash("sha256").update(file).digest());
}
