/**
 * kill -9 of agent, supervisor or both at every stage on record × every end of the switch script × proofs × modes: the
 * device always ends on the old system or on the new one, whole, the coordinator says which, and nothing is left over.
 *
 * A chosen part runs always; all of it with FAULT_MATRIX=full; FAULT_CASE="part of a name" runs those that have it.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { chooseFaultCases, type FaultCase, listFaultCases } from "./activation-fault-cases.ts";
import { createFaultLane, type FaultBench, type FaultLane, prepareFaultBench } from "./activation-fault-lane.ts";

const LANES = 3;
const isFull = process.env["FAULT_MATRIX"] === "full";
const wanted = process.env["FAULT_CASE"];
const all = isFull || wanted !== undefined ? listFaultCases() : chooseFaultCases();
const cases = wanted === undefined ? all : all.filter(({ name }) => name.includes(wanted));

const results = new Map(cases.map((one) => [one, Promise.withResolvers<void>()]));
let fleet: Fleet;
let lanes: Promise<unknown>;

beforeAll(async () => {
  fleet = await createFleet("faults");
  const bench = await prepareFaultBench(fleet);
  const queue = [...cases];
  for (const { promise } of results.values()) promise.catch(() => {});
  lanes = Promise.all(Array.from({ length: LANES }, (_, index) => runLane(bench, queue, `lane${index}`)));
}, 60_000);

afterAll(async () => {
  await lanes;
  await fleet[Symbol.asyncDispose]();
}, 60_000);

/** A case that failed leaves a device of which nothing is known, so the next one gets a new device. */
async function runLane(bench: FaultBench, queue: FaultCase[], name: string): Promise<void> {
  let lane: FaultLane | null = null;
  for (let round = 0; ; round += 1) {
    const one = queue.shift();
    if (one === undefined) break;
    const settled = results.get(one);
    try {
      lane ??= await createFaultLane(bench, `${name}-${round}`);
      await lane.run(one);
      settled?.resolve();
    } catch (error) {
      settled?.reject(error);
      await lane?.[Symbol.asyncDispose]();
      lane = null;
    }
  }
  await lane?.[Symbol.asyncDispose]();
}

test("the whole matrix has at least 150 cases", () => {
  expect(listFaultCases().length).toBeGreaterThanOrEqual(150);
});

for (const one of cases) {
  // They run side by side: the first of them waits for the most.
  test(one.name, () => results.get(one)?.promise ?? Promise.reject(new Error("not run")), isFull ? 1_800_000 : 120_000);
}
