/** What changes between two closures: a table of kinds, and what holds for any two. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type ClosureItem, diffClosures } from "../../src/nix/closure-diff.ts";
import { parsePackageName } from "../../src/nix/package-name.ts";

/** `hash:name`, 100 bytes, 10 of them to download. */
function item(text: string): ClosureItem {
  const [hash = "", name = ""] = text.split(":");
  return { baseName: `${hash}-${name}`, ...parsePackageName(name), narSizeBytes: 100, fileSizeBytes: 10 };
}
const items = (text: string) => (text === "" ? [] : text.split(" ").map(item));

describe("one package", () => {
  test.each([
    ["", "a:foo-1.0", "added", [], ["1.0"]],
    ["a:foo-1.0", "", "removed", ["1.0"], []],
    ["a:foo-1.9", "b:foo-1.10", "up", ["1.9"], ["1.10"]],
    ["a:foo-1.10", "b:foo-1.9", "down", ["1.10"], ["1.9"]],
    ["a:foo-1.0", "a:foo-1.0 b:foo-2.0", "changed", [], ["2.0"]],
    ["a:foo-1.0 b:foo-2.0", "b:foo-2.0", "changed", ["1.0"], []],
    ["a:foo-1.0 b:foo-2.0", "c:foo-1.1 d:foo-2.1", "up", ["1.0", "2.0"], ["1.1", "2.1"]],
    ["", "a:unit-x.service", "added", [], []],
    ["a:foo-1.0", "a:foo-1.0 b:foo-1.0-man", null, [], []],
    ["a:foo-1.0", "b:foo-1.0", null, [], []],
    ["a:etc", "b:etc", null, [], []],
  ] as const)("%s → %s is %s", (before, after, kind, gone, come) => {
    const diff = diffClosures(items(before), items(after));
    const changes = kind === null ? [] : [{ kind, before: gone, after: come }];
    expect(diff.changes as readonly unknown[]).toMatchObject(changes);
    expect(diff.changes).toHaveLength(changes.length);
    expect(diff.rebuilt).toBe(kind === null ? 1 : 0);
  });
});

test("sizes, downloads and order: by kind, what has a version first", () => {
  const diff = diffClosures(
    items("a:glibc-2.38 b:zsh-5.9 c:old-1 d:etc e:unit-old.service"),
    items("a:glibc-2.38 f:zsh-5.8 g:new-1 h:etc i:bash-5.2 j:unit-new.service k:apps-1"),
  );
  expect(diff.changes.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
    "down zsh",
    "added apps",
    "added bash",
    "added new",
    "removed old",
    "added unit-new.service",
    "removed unit-old.service",
  ]);
  expect(diff).toMatchObject({ rebuilt: 1, sizeBeforeBytes: 500, sizeAfterBytes: 700, fetchPaths: 6, fetchBytes: 60 });
});

const closure = fc
  .uniqueArray(fc.tuple(fc.constantFrom("a", "b", "c"), fc.constantFrom("foo", "bar", "etc"), fc.nat(3)), {
    selector: (each) => each.join(),
  })
  .map((all) => all.map(([hash, name, version]) => item(`${hash}:${name}${version === 0 ? "" : `-${version}`}`)));

test("nothing changes from a closure to itself, and the way back is the opposite", () => {
  fc.assert(
    fc.property(closure, closure, (before, after) => {
      expect(diffClosures(before, before)).toMatchObject({ changes: [], rebuilt: 0, fetchPaths: 0, fetchBytes: 0 });
      const there = diffClosures(before, after);
      const back = diffClosures(after, before);
      const opposite = { up: "down", down: "up", added: "removed", removed: "added", changed: "changed" } as const;
      const turned = back.changes.map((change) => ({
        ...{ name: change.name, kind: opposite[change.kind], before: change.after, after: change.before },
      }));
      const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
      expect(turned.sort(byName)).toEqual([...there.changes].sort(byName));
      expect(back.rebuilt).toBe(there.rebuilt);
    }),
  );
});
