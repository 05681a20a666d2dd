/** Which test files exist, and which of them run together. */
import { Glob } from "bun";

export type TestGroup = {
  readonly name: string;
  /** What the tests stand on beyond the source. */
  readonly needs: readonly ("nix" | "binary")[];
  /** Relative to the root, sorted. */
  readonly files: readonly string[];
  /** For one test: against hanging, so long that a busy machine reaches it never. */
  readonly testTimeoutMs: number;
  /** For the whole group; then its processes are killed. */
  readonly groupTimeoutMs: number;
  /** Test files that run at the same time, each in a process of its own. */
  readonly processes: number;
};

/** `places`: folders with a slash at their end, and single files. */
type GroupRule = Omit<TestGroup, "files"> & { readonly places: readonly string[] };

/** A file belongs to the first group that has its place; the last one takes the rest. */
const RULES: readonly GroupRule[] = [
  {
    name: "e2e",
    places: ["test/e2e/"],
    needs: ["nix", "binary"],
    testTimeoutMs: 120_000,
    groupTimeoutMs: 2_700_000,
    processes: 2,
  },
  {
    name: "integration",
    places: ["test/integration/"],
    needs: ["nix"],
    testTimeoutMs: 60_000,
    groupTimeoutMs: 900_000,
    processes: 1,
  },
  {
    // Floods, fuzzing, simulated fleets, and a kill or a power cut before each step: they need nothing, but time.
    name: "endurance",
    places: [
      "test/adversarial/",
      "test/agent/activation/power-cut.test.ts",
      "test/agent/activation/supervise.test.ts",
      "test/agent/machine/process.test.ts",
      "test/server/database/failing-writes.test.ts",
      "test/simulation/",
    ],
    needs: [],
    testTimeoutMs: 240_000,
    groupTimeoutMs: 900_000,
    processes: 2,
  },
  {
    name: "unit",
    places: ["test/"],
    needs: [],
    testTimeoutMs: 60_000,
    groupTimeoutMs: 900_000,
    processes: 2,
  },
];

/** Every test file below `root`, quickest group first; only those whose path contains one of `filters`, if any are given. */
export function listTestGroups(root: string, filters: readonly string[] = []): TestGroup[] {
  const all = [...new Glob("test/**/*.test.ts").scanSync({ cwd: root })].sort();
  const chosen = all.filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
  const ruleOf = (file: string) => RULES.find((rule) => rule.places.some((place) => file.startsWith(place)));
  return RULES.map(({ places: _, ...rule }) => ({
    ...rule,
    files: chosen.filter((file) => ruleOf(file)?.name === rule.name),
  })).reverse();
}
