/**
 * Home Manager in both generations of its protocol, nix-darwin, and plain profiles with a hook: kill -9 of agent,
 * supervisor or both in the middle of what they do × ends of their scripts × proofs. Profile, what is live and every
 * single link are of the old version or of the new one, the coordinator says which, and nothing is left over.
 *
 * A chosen part runs always; all of it with TYPE_MATRIX=full; TYPE_CASE="part of a name" runs those that have it.
 */
import { testFaultTable } from "./fault-table.ts";
import { chooseTypeCases, KINDS, listTypeCases } from "./type-fault-cases.ts";
import { createTypeLane } from "./type-fault-lane.ts";

testFaultTable({
  fleetName: "types",
  variables: "TYPE",
  all: listTypeCases,
  chosen: chooseTypeCases,
  planTracks: async (fleet, cases) =>
    KINDS.map((kind) => ({
      queue: cases.filter((one) => one.kind === kind),
      createLane: (round) => createTypeLane(fleet, kind, `${kind.replaceAll(/[^a-z0-9]+/g, "-")}-${round}`),
    })),
});
