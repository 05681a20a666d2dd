import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createNarReader } from "../../../src/nix/nar/nar-reader.ts";
import type { NarTree } from "../../../src/nix/nar/nar-writer.ts";
import { NixParseError } from "../../../src/nix/parse-error.ts";
import { narTree } from "../arbitraries.ts";
import { readVector, readVectorText } from "../vectors.ts";
import { narOf, readNarEvents, treeOfEvents } from "./nar-events.ts";

const nested = readVector("nar/nested.nar");

function splitEvery(bytes: Uint8Array, length: number): Uint8Array[] {
  const count = Math.ceil(bytes.length / length);
  return Array.from({ length: count }, (_, index) => bytes.slice(index * length, (index + 1) * length));
}

describe("the NAR reader", () => {
  test("reports what Nix lists, with its offsets", () => {
    type Listing = { type: string; entries?: Record<string, Listing> };
    const flatten = (node: Listing, path: string): unknown[] => {
      const { entries, ...own } = node;
      const children = Object.entries(entries ?? {});
      return [
        { path, ...own },
        ...children.flatMap(([name, child]) => flatten(child, path === "" ? name : `${path}/${name}`)),
      ];
    };
    const events = readNarEvents([nested]).map((event) => {
      if (event.type !== "regular") {
        return event;
      }
      const { type, path, sizeBytes, executable, narOffset } = event;
      return { type, path, size: sizeBytes, narOffset, ...(executable ? { executable } : {}) };
    });
    expect<unknown>(events).toEqual(flatten(JSON.parse(readVectorText("nar/nested.ls.json")), ""));
  });

  test.each(["nested", "order", "bytes", "sizes"])("reports the same wherever chunks are cut: %s", (name) => {
    const nar = readVector(`nar/${name}.nar`);
    const expected = readNarEvents([nar]);
    for (let cut = 0; cut <= nar.length; cut += 1) {
      expect(readNarEvents([nar.subarray(0, cut), nar.subarray(cut)])).toEqual(expected);
    }
    for (const length of [1, 2, 3, 5, 7, 8, 9, 64]) {
      expect(readNarEvents(splitEvery(nar, length))).toEqual(expected);
    }
  });

  test("reports the same for any tree and any chunks", () => {
    fc.assert(
      fc.property(narTree, fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 60 }), (tree, lengths) => {
        const nar = narOf(tree);
        const chunks: Uint8Array[] = [];
        let position = 0;
        for (const length of lengths) {
          chunks.push(nar.slice(position, position + length));
          position += length;
        }
        expect(readNarEvents([...chunks, nar.slice(position)])).toEqual(readNarEvents([nar]));
      }),
    );
  });

  test("takes no byte behind the NAR, wherever the chunks are cut", () => {
    const nar = readVector("nar/file.nar");
    const followed = new Uint8Array([...nar, ...nar]);
    for (let cut = 0; cut <= followed.length; cut += 1) {
      const reader = createNarReader();
      const taken = reader.push(followed.subarray(0, cut)) + reader.push(followed.subarray(cut));
      expect([taken, reader.narSizeBytes, reader.ended]).toEqual([nar.length, nar.length, true]);
      expect(reader.push(followed)).toBe(0);
      reader.finish();
    }
  });

  test("passes contents through as views of what was pushed", () => {
    const nar = narOf({ type: "regular", executable: false, contents: new Uint8Array(100_000).fill(1) });
    const views: Uint8Array[] = [];
    createNarReader({ data: (chunk) => views.push(chunk) }).push(nar);
    expect(views.map((view) => [view.buffer === nar.buffer, view.length])).toEqual([[true, 100_000]]);
  });

  test("refuses each cut-off NAR, and knows that it is not complete", () => {
    for (let length = 0; length < nested.length; length += 1) {
      const reader = createNarReader();
      expect(reader.push(nested.subarray(0, length))).toBe(length);
      expect(reader.ended).toBe(false);
      expect(() => reader.finish()).toThrow("the input ends before the NAR does");
    }
  });

  test.each(["nested", "executable", "symlink", "bytes"])(
    "each flipped bit is refused, or is another NAR: %s",
    (name) => {
      const nar = readVector(`nar/${name}.nar`);
      let otherNars = 0;
      for (let bit = 0; bit < nar.length * 8; bit += 1) {
        const flipped = nar.slice();
        flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        try {
          // One spelling for each tree: what is read must be written as it was.
          expect(narOf(treeOfEvents(readNarEvents([flipped])))).toEqual(flipped);
          otherNars += 1;
        } catch (error) {
          expect(error).toBeInstanceOf(NixParseError);
        }
      }
      expect(otherNars).toBeGreaterThan(0);
    },
  );

  test("never throws anything but its own error, whatever comes", () => {
    fc.assert(
      fc.property(narTree, fc.nat(), fc.uint8Array({ maxLength: 30 }), (tree, position, noise) => {
        const nar = narOf(tree);
        nar.set(noise.subarray(0, nar.length), position % Math.max(1, nar.length - noise.length));
        try {
          readNarEvents([nar]);
        } catch (error) {
          expect(error).toBeInstanceOf(NixParseError);
        }
      }),
    );
  });

  test("throws the same error again once it has failed", () => {
    const reader = createNarReader();
    const errors = [nested.subarray(1), nested, new Uint8Array()].map((chunk) => {
      try {
        reader.push(chunk);
        return null;
      } catch (error) {
        return error;
      }
    });
    expect(errors[0]).toBeInstanceOf(NixParseError);
    expect(errors[1]).toBe(errors[0]);
    expect(errors[2]).toBe(errors[0]);
    expect(() => reader.finish()).toThrow(NixParseError);
  });

  test("is spoiled by a handler that throws", () => {
    const reader = createNarReader({
      regular: () => {
        throw new Error("disk full");
      },
    });
    expect(() => reader.push(nested)).toThrow("disk full");
    expect(() => reader.push(nested)).toThrow("disk full");
    expect(() => reader.finish()).toThrow("disk full");
  });

  test("tells names apart that differ only in case, and those that are not UTF-8", () => {
    const names = ["A", "a", "a~nix~case~hack~1", "e\xcc\x81", "\x80", "\xc3\xa9", "\xff\xfe"];
    const link: NarTree = { type: "symlink", target: "\xff" };
    const tree: NarTree = { type: "directory", entries: new Map(names.map((name) => [name, link])) };
    const events = readNarEvents([narOf(tree)]);
    expect(events.map(({ path }) => path)).toEqual(["", ...names]);
    expect(treeOfEvents(events)).toEqual(tree);
  });

  test("reads the deepest, longest and widest things that are allowed", () => {
    let tree: NarTree = { type: "symlink", target: "x".repeat(4095) };
    for (let depth = 0; depth < 63; depth += 1) {
      tree = { type: "directory", entries: new Map([["\xff".repeat(255), tree]]) };
    }
    expect(readNarEvents(splitEvery(narOf(tree), 4097))).toHaveLength(64);
  });
});

/** One wire string: length, bytes, padding. */
function str(text: string, options: { padding?: number; lengthAdded?: bigint } = {}): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length) + (options.lengthAdded ?? 0n));
  const padding = Buffer.alloc((8 - (text.length % 8)) % 8, options.padding ?? 0);
  return Buffer.concat([length, Buffer.from(text, "latin1"), padding]);
}

type Piece = string | Buffer;
const nar = (...pieces: Piece[]) =>
  Buffer.concat(["nix-archive-1", ...pieces].map((piece) => (typeof piece === "string" ? str(piece) : piece)));
const file = (contents: Piece = "x") => ["(", "type", "regular", "contents", contents, ")"];
const entry = (name: Piece, ...node: Piece[]) => ["entry", "(", "name", name, "node", ...node, ")"];
const directory = (...entries: Piece[]) => ["(", "type", "directory", ...entries, ")"];
const symlink = (target: Piece) => ["(", "type", "symlink", "target", target, ")"];
const nest = (depth: number): Piece[] => (depth === 0 ? file() : directory(...entry("d", ...nest(depth - 1))));

describe("the NAR reader refuses", () => {
  test("nothing of the well-formed ones that these are variations of", () => {
    for (const good of [
      file(),
      symlink("t"),
      directory(...entry("a", ...file()), ...entry("b", ...file())),
      nest(63),
    ]) {
      readNarEvents([nar(...good)]);
    }
  });

  test.each<[string, Buffer, string]>([
    ["another magic", Buffer.concat([str("nix-archive-2"), ...file().map((it) => str(String(it)))]), "nix-archive-1"],
    ["zeros", Buffer.alloc(64), "nix-archive-1"],
    ["text", Buffer.from("<!DOCTYPE html><html>"), "bytes where at most"],
    ["an overlong keyword", nar("x".repeat(33)), "33 bytes where at most 32"],
    ["a length beyond all bounds", nar(str("(", { lengthAdded: 2n ** 63n })), "where at most 32"],
    ["a node without parenthesis", nar("type"), '"("'],
    ["a node without type", nar("(", "regular"), '"type"'],
    ["an unknown type", nar("(", "type", "device"), "unknown node type"],
    ["a file without contents", nar("(", "type", "regular", ")"), '"contents"'],
    ["a marker with a value", nar("(", "type", "regular", "executable", "x", "contents", "x", ")"), '""'],
    [
      "a marker twice",
      nar("(", "type", "regular", "executable", "", "executable", "", "contents", "x", ")"),
      '"contents"',
    ],
    ["a marker behind the contents", nar("(", "type", "regular", "contents", "x", "executable", "", ")"), '")"'],
    ["contents twice", nar("(", "type", "regular", "contents", "x", "contents", "y", ")"), '")"'],
    ["a file of 2^53 bytes", nar("(", "type", "regular", "contents", str("", { lengthAdded: 2n ** 53n })), "2^53"],
    ["padding of contents that is not zero", nar(...file(str("x", { padding: 1 }))), "padding"],
    ["padding of a keyword that is not zero", nar(str("(", { padding: 255 })), "padding"],
    ["padding of a name that is not zero", nar(...directory(...entry(str("a", { padding: 1 }), ...file()))), "padding"],
    ["padding of a target that is not zero", nar(...symlink(str("a", { padding: 1 }))), "padding"],
    ["a symlink without target", nar("(", "type", "symlink", ")"), '"target"'],
    ["an empty target", nar(...symlink("")), "1 to 4095"],
    ["a target of 4096 bytes", nar(...symlink("x".repeat(4096))), "4096 bytes where at most 4095"],
    ["a target with a NUL", nar(...symlink("a\0b")), "NUL"],
    ["a target twice", nar("(", "type", "symlink", "target", "a", "target", "b", ")"), '")"'],
    ["an empty name", nar(...directory(...entry("", ...file()))), "empty"],
    ["the name .", nar(...directory(...entry(".", ...file()))), "empty, . or .."],
    ["the name ..", nar(...directory(...entry("..", ...file()))), "empty, . or .."],
    ["a name with a slash", nar(...directory(...entry("a/b", ...file()))), "slash"],
    ["a name with a NUL", nar(...directory(...entry("a\0b", ...file()))), "NUL"],
    ["a name of 256 bytes", nar(...directory(...entry("x".repeat(256), ...file()))), "at most 255"],
    ["entries out of order", nar(...directory(...entry("b", ...file()), ...entry("a", ...file()))), "out of order"],
    [
      "a capital behind a small letter",
      nar(...directory(...entry("a", ...file()), ...entry("B", ...file()))),
      "out of order",
    ],
    [
      "bytes over 127 before ASCII",
      nar(...directory(...entry("\x80", ...file()), ...entry("z", ...file()))),
      "out of order",
    ],
    [
      "a longer name before its beginning",
      nar(...directory(...entry("ab", ...file()), ...entry("a", ...file()))),
      "out of order",
    ],
    ["a name twice", nar(...directory(...entry("a", ...file()), ...entry("a", ...file()))), "duplicate"],
    [
      "a name twice, once a symlink",
      nar(...directory(...entry("a", ...symlink("/")), ...entry("a", ...directory()))),
      "duplicate",
    ],
    [
      "a duplicate behind a subdirectory",
      nar(...directory(...entry("a", ...directory(...entry("b", ...file()))), ...entry("a", ...file()))),
      "duplicate",
    ],
    ["an entry without name", nar("(", "type", "directory", "entry", "(", "node", ...file()), '"name"'],
    ["an entry without node", nar("(", "type", "directory", "entry", "(", "name", "a", ")"), '"node"'],
    [
      "an entry with its node first",
      nar("(", "type", "directory", "entry", "(", "node", ...file(), "name", "a", ")"),
      '"name"',
    ],
    ["an entry with two names", nar("(", "type", "directory", "entry", "(", "name", "a", "name", "b"), '"node"'],
    [
      "an entry that is not closed",
      nar("(", "type", "directory", "entry", "(", "name", "a", "node", ...file(), "entry"),
      '")"',
    ],
    ["something else than an entry", nar("(", "type", "directory", "contents"), '")"'],
    ["directories that are too deep", nar(...nest(64)), "deeper than 64"],
  ])("%s", (_what, bytes, message) => {
    expect(() => readNarEvents([bytes])).toThrow(message);
    expect(() => readNarEvents(splitEvery(bytes, 1))).toThrow(message);
    expect(() => readNarEvents([bytes])).toThrow(NixParseError);
  });
});
