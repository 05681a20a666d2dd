/** Deadlines of many by one timer. */
import { expect, test } from "bun:test";
import { createDeadlines, type Deadline } from "../../../src/server/agents/deadlines.ts";
import { createManualClock } from "../../support/manual-clock.ts";

function createBench() {
  const clock = createManualClock();
  const deadlines = createDeadlines(clock);
  const late: string[] = [];
  const make = (name: string): Deadline => ({ dueMs: 0, onLate: () => late.push(`${name} at ${clock.monotonicMs()}`) });
  return { clock, deadlines, late, make };
}

test("each is told once, when it is due, by one timer", async () => {
  const { clock, deadlines, late, make } = createBench();
  for (const [name, afterMs] of [
    ["c", 300],
    ["a", 100],
    ["b", 200],
    ["b2", 200],
  ] as const) {
    deadlines.set(make(name), afterMs);
  }
  await clock.advance(0);
  expect(clock.sleepers).toBe(1);
  await clock.advance(1_000);
  expect(late).toEqual(["a at 100", "b at 200", "b2 at 200", "c at 300"]);
  expect(clock.sleepers).toBe(0);
});

test("one that is cleared or moved is not told at its old time", async () => {
  const { clock, deadlines, late, make } = createBench();
  const [cleared, moved] = [make("cleared"), make("moved")];
  deadlines.set(cleared, 100);
  deadlines.set(moved, 100);
  deadlines.clear(cleared);
  deadlines.set(moved, 500);
  await clock.advance(499);
  expect(late).toEqual([]);
  await clock.advance(1);
  expect(late).toEqual(["moved at 500"]);
});

test("one that is told may set another", async () => {
  const { clock, deadlines, late, make } = createBench();
  const second = make("second");
  deadlines.set({ dueMs: 0, onLate: () => deadlines.set(second, 50) }, 100);
  await clock.advance(200);
  expect(late).toEqual(["second at 150"]);
});

test("disposed of, nobody is told and no timer is left", async () => {
  const { clock, deadlines, late, make } = createBench();
  deadlines.set(make("a"), 100);
  await deadlines[Symbol.asyncDispose]();
  expect(clock.sleepers).toBe(0);
  await clock.advance(1_000);
  expect(late).toEqual([]);
});
