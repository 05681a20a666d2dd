/**
 * Writes NARs: the pieces of the format as bytes, and whole trees that are in memory.
 *
 * Pure bytes, no file system. Who dumps large files strings the pieces together and puts contents between
 * `encodeNarRegularStart` and `encodeNarRegularEnd` as they are read. Format and limits: nar-format.ts.
 */
import { Buffer } from "node:buffer";
import { describeNarNameFault, describeNarTargetFault, NAR_DEPTH_MAX, narPaddingLength } from "./nar-format.ts";

/** A file system object held in memory. Names and targets have one character per byte (latin1). */
export type NarTree =
  | { readonly type: "regular"; readonly executable: boolean; readonly contents: Uint8Array }
  | { readonly type: "symlink"; readonly target: string }
  /** Keys are the names; their order does not matter. */
  | { readonly type: "directory"; readonly entries: ReadonlyMap<string, NarTree> };

/**
 * The NAR of a tree, piece by piece; contents are yielded as they are, not copied.
 * @throws RangeError for a name, target or depth that no NAR can have
 */
export function* encodeNar(tree: NarTree): Generator<Uint8Array, void, undefined> {
  yield encodeNarMagic();
  yield* encodeNode(tree, 0);
}

export function encodeNarMagic(): Uint8Array {
  return encodeStrings("nix-archive-1");
}

/** What stands before a file's contents, which must be exactly `sizeBytes` long. */
export function encodeNarRegularStart(file: { readonly sizeBytes: number; readonly executable: boolean }): Uint8Array {
  const marker = file.executable ? ["executable", ""] : [];
  const start = encodeStrings("(", "type", "regular", ...marker, "contents");
  return Buffer.concat([start, encodeLength(file.sizeBytes)]);
}

/** What stands behind the contents of a file of `sizeBytes`. */
export function encodeNarRegularEnd(sizeBytes: number): Uint8Array {
  return Buffer.concat([Buffer.alloc(narPaddingLength(sizeBytes)), encodeStrings(")")]);
}

/** A whole symlink. @throws RangeError for a target that is empty, too long or has a NUL */
export function encodeNarSymlink(target: string): Uint8Array {
  assertNoFault(describeNarTargetFault(target));
  return encodeStrings("(", "type", "symlink", "target", target, ")");
}

/** What stands before a directory's first entry; entries follow in strictly increasing order of their bytes. */
export function encodeNarDirectoryStart(): Uint8Array {
  return encodeStrings("(", "type", "directory");
}

export function encodeNarDirectoryEnd(): Uint8Array {
  return encodeStrings(")");
}

/** What stands before an entry's node. @throws RangeError for a name that no NAR can have */
export function encodeNarEntryStart(name: string): Uint8Array {
  assertNoFault(describeNarNameFault(name));
  return encodeStrings("entry", "(", "name", name, "node");
}

export function encodeNarEntryEnd(): Uint8Array {
  return encodeStrings(")");
}

function* encodeNode(node: NarTree, depth: number): Generator<Uint8Array, void, undefined> {
  assertNoFault(depth >= NAR_DEPTH_MAX ? `directories are nested deeper than ${NAR_DEPTH_MAX}` : null);
  switch (node.type) {
    case "regular":
      yield encodeNarRegularStart({ sizeBytes: node.contents.length, executable: node.executable });
      yield node.contents;
      yield encodeNarRegularEnd(node.contents.length);
      return;
    case "symlink":
      yield encodeNarSymlink(node.target);
      return;
    case "directory":
      yield encodeNarDirectoryStart();
      for (const [name, child] of [...node.entries].sort(compareNames)) {
        yield encodeNarEntryStart(name);
        yield* encodeNode(child, depth + 1);
        yield encodeNarEntryEnd();
      }
      yield encodeNarDirectoryEnd();
      return;
    default:
      node satisfies never;
  }
}

/** By bytes: one character is one byte. */
function compareNames([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  if (a === b) {
    return 0;
  }
  return a < b ? -1 : 1;
}

function encodeStrings(...texts: readonly string[]): Uint8Array {
  assertNoFault(texts.every(isLatin1) ? null : "a name or target has characters that are not single bytes");
  const sizeBytes = texts.reduce((sum, text) => sum + 8 + text.length + narPaddingLength(text.length), 0);
  const bytes = Buffer.alloc(sizeBytes);
  let position = 0;
  for (const text of texts) {
    bytes.writeUInt32LE(text.length, position);
    bytes.write(text, position + 8, "latin1");
    position += 8 + text.length + narPaddingLength(text.length);
  }
  return bytes;
}

function isLatin1(text: string): boolean {
  return Buffer.from(text, "latin1").toString("latin1") === text;
}

function encodeLength(length: number): Uint8Array {
  if (!Number.isSafeInteger(length) || length < 0) {
    throw new RangeError(`cannot encode a NAR: ${length} is not a size in bytes`);
  }
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(length));
  return bytes;
}

function assertNoFault(fault: string | null): void {
  if (fault !== null) {
    throw new RangeError(`cannot encode a NAR: ${fault}`);
  }
}
