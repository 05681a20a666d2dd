/** Random valid values of the Nix formats, for property tests. */
import fc from "fast-check";
import { fileHashFromDigest, narHashFromDigest } from "../../src/nix/hash.ts";
import type { NarTree } from "../../src/nix/nar/nar-writer.ts";
import type { NarInfo } from "../../src/nix/narinfo.ts";
import { encodeNix32 } from "../../src/nix/nix32.ts";
import type { PathInfo } from "../../src/nix/path-info.ts";
import { compareStorePaths, parseStorePathBaseName, type StorePath } from "../../src/nix/store-path.ts";

const NAME_CHARACTERS = [..."0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?="];

export const digest: fc.Arbitrary<Uint8Array> = fc.uint8Array({ minLength: 32, maxLength: 32 });

export const storePath: fc.Arbitrary<StorePath> = fc
  .record({
    hash: fc.uint8Array({ minLength: 20, maxLength: 20 }),
    name: fc
      .string({ unit: fc.constantFrom(...NAME_CHARACTERS), minLength: 1, maxLength: 40 })
      .filter((name) => !/^\.{1,2}(-|$)/.test(name)),
  })
  .map(({ hash, name }) => parseStorePathBaseName(`${encodeNix32(hash)}-${name}`));

const sizeBytes = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const word = fc.string({ unit: fc.constantFrom(..."abcXYZ019+/=:.-?&%"), minLength: 1, maxLength: 60 });

export const pathInfo: fc.Arbitrary<PathInfo> = fc.record({
  storePath,
  narHash: digest.map(narHashFromDigest),
  narSizeBytes: sizeBytes,
  references: fc.uniqueArray(storePath, { maxLength: 5 }).map((paths) => paths.sort(compareStorePaths)),
  deriver: fc.option(storePath),
  signatures: fc.array(word, { maxLength: 3 }),
  contentAddress: fc.option(word),
});

export const narInfo: fc.Arbitrary<NarInfo> = fc
  .tuple(
    pathInfo,
    fc.record({
      url: word,
      compression: fc.constantFrom("none", "xz", "zstd", "bzip2", "gzip", "br"),
      fileHash: fc.option(digest.map(fileHashFromDigest)),
      fileSizeBytes: fc.option(sizeBytes),
    }),
  )
  .map(([path, file]) => ({ ...path, ...file }));

/** Any byte but those that the given text holds. */
function byteExcept(forbidden: string): fc.Arbitrary<string> {
  return fc
    .integer({ min: 1, max: 255 })
    .map((code) => String.fromCharCode(code))
    .filter((character) => !forbidden.includes(character));
}

const entryName = fc
  .string({ unit: byteExcept("/"), minLength: 1, maxLength: 12 })
  .filter((name) => name !== "." && name !== "..");

export const narTree: fc.Arbitrary<NarTree> = fc.letrec<{ tree: NarTree }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.record({
      type: fc.constant("regular" as const),
      executable: fc.boolean(),
      contents: fc.uint8Array({ maxLength: 40 }),
    }),
    fc.record({
      type: fc.constant("symlink" as const),
      target: fc.string({ unit: byteExcept(""), minLength: 1, maxLength: 20 }),
    }),
    fc.record({
      type: fc.constant("directory" as const),
      entries: fc.array(fc.tuple(entryName, tie("tree")), { maxLength: 4 }).map((entries) => new Map(entries)),
    }),
  ),
})).tree;
