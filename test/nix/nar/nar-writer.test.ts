import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { formatHashNix32, narHashFromDigest } from "../../../src/nix/hash.ts";
import { encodeNar, encodeNarRegularStart, type NarTree } from "../../../src/nix/nar/nar-writer.ts";
import { narTree } from "../arbitraries.ts";
import { readVector, readVectorTable } from "../vectors.ts";
import { narOf, readNarEvents, treeOfEvents } from "./nar-events.ts";

function file(contents: string, options: { executable?: boolean } = {}): NarTree {
  return { type: "regular", executable: options.executable ?? false, contents: Buffer.from(contents, "latin1") };
}

function link(target: string): NarTree {
  return { type: "symlink", target };
}

function directory(entries: Record<string, NarTree>): NarTree {
  return { type: "directory", entries: new Map(Object.entries(entries)) };
}

const ORDER_NAMES = ["a", "a-b", "a.b", "ab", "A", "B", "Z", "_", "10", "9", ".hidden", "..hidden", "~", " "];
const SIZES = Array.from({ length: 18 }, (_, size) => size);

/** The trees of test/vectors/make.sh. */
const trees: Record<string, NarTree> = {
  file: file("hello\n"),
  "empty-file": file(""),
  executable: file("#!/bin/sh\necho hello\n", { executable: true }),
  symlink: link("../target/of/link"),
  "empty-directory": directory({}),
  order: directory({
    ...Object.fromEntries([...ORDER_NAMES, "with space", "-dash"].map((name) => [name, file(name)])),
    a0: directory({}),
  }),
  bytes: directory({
    "caf\xc3\xa9": file("1"),
    "caf\xe9": file("2"),
    "\xff": file("3"),
    "line\nbreak": file("4"),
    "back\\slash": file("5"),
    link: link("\xff/\xc3\xa9"),
  }),
  sizes: directory(
    Object.fromEntries(
      SIZES.map((size) => [String(size).padStart(2, "0"), file("abcdefghijklmnopqrstuvwxyz".slice(0, size))]),
    ),
  ),
  nested: directory({
    bin: directory({ run: file("#!/bin/sh\n", { executable: true }), "also-run": link("run") }),
    share: directory({
      doc: directory({ deep: directory({ deeper: directory({ README: file("text\n") }) }), empty: file("") }),
    }),
  }),
};

describe("NARs", () => {
  test.each(readVectorTable("nar/hashes.tsv"))(
    "of the tree %s are those of Nix",
    (name = "", size = "", nix32 = "") => {
      const expected = readVector(`nar/${name}.nar`);
      const tree = trees[name];
      if (tree === undefined) {
        throw new Error(`no tree ${name}`);
      }
      const nar = narOf(tree);
      expect(nar).toEqual(expected);
      expect(nar).toHaveLength(Number(size));
      const digest = new Uint8Array(createHash("sha256").update(nar).digest());
      expect(formatHashNix32(narHashFromDigest(digest))).toBe(nix32);
      expect(narOf(treeOfEvents(readNarEvents([expected])))).toEqual(expected);
    },
  );

  test("round-trip any tree through writer and reader", () => {
    fc.assert(
      fc.property(narTree, (tree) => {
        const nar = narOf(tree);
        expect(nar.length % 8).toBe(0);
        expect(narOf(treeOfEvents(readNarEvents(encodeNar(tree))))).toEqual(nar);
      }),
    );
  });

  test("carry contents without a copy", () => {
    const contents = new Uint8Array(1000);
    expect([...encodeNar({ type: "regular", executable: false, contents })]).toContain(contents);
  });

  let tooDeep = directory({});
  for (let depth = 0; depth < 64; depth += 1) {
    tooDeep = directory({ d: tooDeep });
  }
  test.each<[string, NarTree]>([
    ["an empty name", directory({ "": file("") })],
    ["the name .", directory({ ".": file("") })],
    ["the name ..", directory({ "..": file("") })],
    ["a name with a slash", directory({ "a/b": file("") })],
    ["a name with a NUL", directory({ "a\0": file("") })],
    ["a name of 256 bytes", directory({ ["x".repeat(256)]: file("") })],
    ["a name that was not decoded as latin1", directory({ "\u20ac": file("") })],
    ["an empty target", link("")],
    ["a target with a NUL", link("a\0b")],
    ["a target of 4096 bytes", link("x".repeat(4096))],
    ["a tree that is too deep", tooDeep],
  ])("cannot have %s", (_what, tree) => {
    expect(() => narOf(tree)).toThrow(RangeError);
  });

  test.each([-1, 1.5, Number.NaN, 2 ** 53])("cannot have a file of %d bytes", (sizeBytes) => {
    expect(() => encodeNarRegularStart({ sizeBytes, executable: false })).toThrow(RangeError);
  });
});
