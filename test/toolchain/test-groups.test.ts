/** Every test file is in one group, and the quick one holds nothing that is slow or needs more than the source. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { Glob } from "bun";
import { listTestGroups } from "../../scripts/test-groups.ts";

const ROOT = join(import.meta.dir, "../..");
const groups = listTestGroups(ROOT);
const filesOf = (name: string) => groups.find((group) => group.name === name)?.files ?? [];

test("every test file is in exactly one group, and no group is empty", () => {
  const all = [...new Glob("test/**/*.test.ts").scanSync({ cwd: ROOT })].sort();
  expect(groups.flatMap(({ files }) => files).sort()).toEqual(all);
  for (const { files } of groups) expect(files.length).toBeGreaterThan(0);
});

test("the quickest comes first, and needs nothing", () => {
  expect(groups.map(({ name }) => name)).toEqual(["unit", "endurance", "integration", "e2e"]);
  expect(groups.map(({ needs }) => needs.length)).toEqual([0, 0, 1, 2]);
});

test("what floods, cuts power or kills at each step is not in the quick group", () => {
  for (const file of ["test/adversarial/floods.test.ts", "test/agent/activation/supervise.test.ts"]) {
    expect(filesOf("endurance")).toContain(file);
  }
  expect(filesOf("unit").filter((file) => file.startsWith("test/adversarial/"))).toEqual([]);
  expect(filesOf("unit")).toContain("test/tidy.test.ts");
  expect(filesOf("unit")).toContain("test/agent/activation/engine.test.ts");
});

test("a filter leaves only what it names, in the groups it is in", () => {
  const chosen = listTestGroups(ROOT, ["activation/supervise.test"]);
  expect(chosen.filter(({ files }) => files.length > 0).map(({ name }) => name)).toEqual(["endurance"]);
});
