/**
 * Whole fleets, simulated: a real coordinator and real agents, whose connections break, who are killed and restored, and
 * who in the end agree on what happened (`truth.ts`).
 *
 *     SIM_SEEDS=2000 bun test test/simulation            that many seeds; the default is what fits into a CI run
 *     SIM_FIRST=501 SIM_SEEDS=500 bun test test/simulation      from that one on
 *     SIM_SEED=17 bun test test/simulation               one, with its story when it fails
 */
import { heapStats } from "bun:jsc";
import { expect, test } from "bun:test";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { simulate } from "./simulate.ts";

const SEEDS_A_TEST = 10;
const seed = process.env["SIM_SEED"];
const count = Number(process.env["SIM_SEEDS"] ?? 50);
const from = Number(process.env["SIM_FIRST"] ?? 1);
const seeds = seed === undefined ? Array.from({ length: count }, (_, index) => from + index) : [Number(seed)];
/** One that leaves its killed coordinators behind leaves 16,000. */
const OBJECTS_A_SEED_MAX = 1_000;
const loaded = countObjects();
/** Modules, and code that was compiled. */
const LOADED_LATER_MAX = 150_000;

for (let first = 0; first < seeds.length; first += SEEDS_A_TEST) {
  const some = seeds.slice(first, first + SEEDS_A_TEST);
  test(`seeds ${some[0]} to ${some.at(-1)}`, async () => {
    for (const each of some) {
      await using directory = await createTemporaryDirectory("simulation");
      const { faults, story } = await simulate({ seed: each, directory: directory.path });
      if (faults.length > 0) console.error(`SIM_SEED=${each} bun test test/simulation`);
      if (faults.length > 0 && seed !== undefined) console.error(story.join("\n"));
      expect({ seed: each, faults }).toEqual({ seed: each, faults: [] });
    }
  }, 600_000);
}

test("no seed leaves anything in memory", () => {
  expect(countObjects() - loaded).toBeLessThan(LOADED_LATER_MAX + OBJECTS_A_SEED_MAX * seeds.length);
});

function countObjects(): number {
  Bun.gc(true);
  return heapStats().objectCount;
}
