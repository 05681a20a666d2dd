/**
 * Home Manager in both generations of its protocol, nix-darwin, and plain profiles with a hook: kill -9 of agent,
 * supervisor or both in the middle of what they do × ends of their scripts × proofs. Profile, what is live and every
 * single link are of the old version or of the new one, the coordinator says which, and nothing is left over.
 *
 * A chosen part runs always; all of it with TYPE_MATRIX=full; TYPE_CASE="part of a name" runs those that have it.
 */
import { afterAll, beforeAll, test } from "bun:test";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { chooseTypeCases, KINDS, type Kind, listTypeCases, type TypeCase } from "./type-fault-cases.ts";
import { createTypeLane, type TypeLane } from "./type-fault-lane.ts";

const LANES = 3;
const isFull = process.env["TYPE_MATRIX"] === "full";
const wanted = process.env["TYPE_CASE"];
const all = isFull || wanted !== undefined ? listTypeCases() : chooseTypeCases();
const cases = wanted === undefined ? all : all.filter(({ name }) => name.includes(wanted));

const results = new Map(cases.map((one) => [one, Promise.withResolvers<void>()]));
let fleet: Fleet;
let lanes: Promise<unknown>;

beforeAll(async () => {
  fleet = await createFleet("types");
  for (const { promise } of results.values()) promise.catch(() => {});
  const kinds = [...KINDS];
  lanes = Promise.all(Array.from({ length: LANES }, () => runKinds(kinds)));
}, 60_000);

afterAll(async () => {
  await lanes;
  await fleet[Symbol.asyncDispose]();
}, 60_000);

async function runKinds(kinds: Kind[]): Promise<void> {
  for (let kind = kinds.shift(); kind !== undefined; kind = kinds.shift()) await runKind(kind);
}

/** A case that failed leaves a device of which nothing is known, so the next one gets a new device. */
async function runKind(kind: Kind): Promise<void> {
  let lane: TypeLane | null = null;
  const own = cases.filter((one: TypeCase) => one.kind === kind);
  for (const [round, one] of own.entries()) {
    const settled = results.get(one);
    try {
      lane ??= await createTypeLane(fleet, kind, `${kind.replaceAll(/[^a-z0-9]+/g, "-")}-${round}`);
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

for (const one of cases) {
  // They run side by side: the first of them waits for the most.
  test(one.name, () => results.get(one)?.promise ?? Promise.reject(new Error("not run")), isFull ? 1_800_000 : 120_000);
}
