/**
 * Makes a test of each case of a table of kills, and runs them side by side on several devices. A chosen part of the
 * table runs always; all of it, or those cases that have a part of a name, when the environment says so.
 */
import { afterAll, beforeAll, test } from "bun:test";
import { createFleet, type Fleet } from "../support/fleet.ts";
import type { FaultLane } from "./fault-lane.ts";

/** Cases that devices take from the front, one device after the other. Tracks may share their queue. */
export type Track<Case> = {
  readonly queue: Case[];
  createLane(round: number): Promise<FaultLane<Case>>;
};

/** Devices at work at the same time. */
export const SIDE_BY_SIDE = 3;

/** Registers the tests. @param variables `X`: all of it with X_MATRIX=full, some with X_CASE="part of a name" */
export function testFaultTable<Case extends { readonly name: string }>(options: {
  readonly fleetName: string;
  readonly variables: string;
  readonly all: () => readonly Case[];
  readonly chosen: () => readonly Case[];
  readonly planTracks: (fleet: Fleet, cases: readonly Case[]) => Promise<Track<Case>[]>;
}): void {
  const isFull = process.env[`${options.variables}_MATRIX`] === "full";
  const wanted = process.env[`${options.variables}_CASE`];
  const listed = isFull || wanted !== undefined ? options.all() : options.chosen();
  const cases = wanted === undefined ? listed : listed.filter(({ name }) => name.includes(wanted));
  const results = new Map(cases.map((one) => [one, Promise.withResolvers<void>()]));
  let fleet: Fleet;
  let running: Promise<unknown>;

  beforeAll(async () => {
    fleet = await createFleet(options.fleetName);
    const tracks = await options.planTracks(fleet, cases);
    for (const { promise } of results.values()) promise.catch(() => {});
    const runTracks = async () => {
      for (let track = tracks.shift(); track !== undefined; track = tracks.shift()) await runTrack(track, results);
    };
    running = Promise.all(Array.from({ length: SIDE_BY_SIDE }, runTracks));
  }, 60_000);

  afterAll(async () => {
    await running;
    await fleet[Symbol.asyncDispose]();
  }, 60_000);

  for (const one of cases) {
    // They run side by side: the first of them waits for the most.
    const timeoutMs = isFull ? 1_800_000 : 120_000;
    test(one.name, () => results.get(one)?.promise ?? Promise.reject(new Error("not run")), timeoutMs);
  }
}

/** A case that failed leaves a device of which nothing is known, so the next one gets a new device. */
async function runTrack<Case>(
  { queue, createLane }: Track<Case>,
  results: ReadonlyMap<Case, PromiseWithResolvers<void>>,
): Promise<void> {
  let lane: FaultLane<Case> | null = null;
  for (let round = 0; ; round += 1) {
    const one = queue.shift();
    if (one === undefined) break;
    const settled = results.get(one);
    try {
      lane ??= await createLane(round);
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
