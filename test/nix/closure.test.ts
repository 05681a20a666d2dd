import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type ClosureNode, missingReferences, sortReferencesFirst } from "../../src/nix/closure.ts";
import { encodeNix32 } from "../../src/nix/nix32.ts";
import { NixParseError } from "../../src/nix/parse-error.ts";
import { parseStorePathBaseName, type StorePath } from "../../src/nix/store-path.ts";

function path(number: number): StorePath {
  const bytes = new Uint8Array(20);
  new DataView(bytes.buffer).setUint32(16, number);
  return parseStorePathBaseName(`${encodeNix32(bytes)}-path-${number}`);
}

function node(number: number, ...references: number[]): ClosureNode {
  return { storePath: path(number), references: references.map(path) };
}

function expectReferencesFirst(nodes: readonly ClosureNode[]): void {
  const listed = new Set(nodes.map((item) => item.storePath));
  const seen = new Set<StorePath>();
  for (const item of nodes) {
    const late = item.references.filter((it) => it !== item.storePath && listed.has(it) && !seen.has(it));
    expect(late).toEqual([]);
    seen.add(item.storePath);
  }
}

/** Nodes that refer only to lower numbers and perhaps themselves, in any order. */
const acyclicGraph = fc
  .array(fc.array(fc.nat(40), { maxLength: 4 }), { maxLength: 20 })
  .map((lists) => lists.map((list, index) => node(index, ...list.filter((number) => number <= index))))
  .chain((nodes) => fc.shuffledSubarray(nodes, { minLength: nodes.length }));

describe("sortReferencesFirst", () => {
  test("puts every path behind what it refers to", () => {
    fc.assert(
      fc.property(acyclicGraph, (nodes) => {
        const sorted = sortReferencesFirst(nodes);
        expectReferencesFirst(sorted);
        expect(new Set(sorted)).toEqual(new Set(nodes));
        expect(sorted).toHaveLength(nodes.length);
      }),
    );
  });

  test.each<[string, ClosureNode[], number[]]>([
    ["nothing", [], []],
    ["an order that is right already", [node(1), node(2, 1), node(3, 1, 2)], [1, 2, 3]],
    ["the reverse", [node(3, 2), node(2, 1), node(1)], [1, 2, 3]],
    ["a path that refers to itself", [node(2, 2, 1), node(1, 1)], [1, 2]],
    ["a diamond", [node(4, 2, 3), node(3, 1), node(2, 1), node(1)], [1, 2, 3, 4]],
    ["references among each other", [node(3, 1, 2), node(1, 2), node(2)], [2, 1, 3]],
    ["references that are elsewhere", [node(2, 9, 1), node(1, 8)], [1, 2]],
    ["a reference named twice", [node(2, 1, 1), node(1)], [1, 2]],
  ])("sorts %s", (_what, nodes, expected) => {
    expect(sortReferencesFirst(nodes).map((item) => item.storePath)).toEqual(expected.map(path));
  });

  test("does not recurse: a chain of 50,000 paths", () => {
    const chain = Array.from({ length: 50_000 }, (_, index) => node(index, index + 1));
    expect(sortReferencesFirst(chain)[0]?.storePath).toBe(path(49_999));
  });

  test.each<[string, ClosureNode[]]>([
    ["two paths in a cycle", [node(1, 2), node(2, 1)]],
    ["a long cycle", [node(1, 2), node(2, 3), node(3, 4), node(4, 2)]],
    ["a path listed twice", [node(1), node(2, 1), node(1)]],
  ])("refuses %s", (_what, nodes) => {
    expect(() => sortReferencesFirst(nodes)).toThrow(NixParseError);
  });
});

describe("missingReferences", () => {
  test("names each missing path once, sorted, and nothing that is present", () => {
    const present = new Set([path(9)]);
    const missing = missingReferences([node(1, 1, 9, 7), node(2, 1, 8, 7)], (it) => present.has(it));
    expect(missing).toEqual([path(7), path(8)]);
  });

  test("a closure lacks nothing", () => {
    expect(missingReferences([node(2, 1, 2), node(1)], () => false)).toEqual([]);
  });
});
