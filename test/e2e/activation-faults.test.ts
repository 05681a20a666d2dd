/**
 * kill -9 of agent, supervisor or both at every stage on record × every end of the switch script × proofs × modes: the
 * device always ends on the old system or on the new one, whole, the coordinator says which, and nothing is left over.
 *
 * A chosen part runs always; all of it with FAULT_MATRIX=full; FAULT_CASE="part of a name" runs those that have it.
 */
import { expect, test } from "bun:test";
import { chooseFaultCases, listFaultCases } from "./activation-fault-cases.ts";
import { createActivationLane, prepareFaultBench } from "./activation-fault-lane.ts";
import { SIDE_BY_SIDE, testFaultTable } from "./fault-table.ts";

test("the whole matrix has at least 150 cases", () => {
  expect(listFaultCases().length).toBeGreaterThanOrEqual(150);
});

testFaultTable({
  fleetName: "faults",
  variables: "FAULT",
  all: listFaultCases,
  chosen: chooseFaultCases,
  async planTracks(fleet, cases) {
    const bench = await prepareFaultBench(fleet);
    const queue = [...cases];
    return Array.from({ length: SIDE_BY_SIDE }, (_, index) => ({
      queue,
      createLane: (round) => createActivationLane(bench, `lane${index}-${round}`),
    }));
  },
});
