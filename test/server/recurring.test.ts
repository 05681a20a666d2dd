/** The one timer behind what is due at times that stand in the database. */
import { expect, test } from "bun:test";
import { silentLogger } from "../../src/log.ts";
import { createBus } from "../../src/server/bus.ts";
import { startRecurring } from "../../src/server/recurring.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { waitFor } from "../support/wait-for.ts";

const MINUTE_MS = 60_000;

/** Does nothing but count, and is due again when the test says. */
function start(dueMs: () => number | null) {
  const clock = createManualClock();
  const bus = createBus();
  const errors: string[] = [];
  const log = { ...silentLogger, error: (message: string) => void errors.push(message) };
  let runs = 0;
  const work = startRecurring(
    { clock, bus, log },
    {
      what: "count",
      topics: ["more"],
      run: async () => {
        runs += 1;
        return dueMs();
      },
    },
  );
  const ran = (count: number) => waitFor(`run ${count}`, () => runs === count);
  return { clock, bus, errors, ran, runs: () => runs, [Symbol.asyncDispose]: () => work[Symbol.asyncDispose]() };
}

test("runs at the start, and then not before somebody says so when nothing is due", async () => {
  await using it = start(() => null);
  await it.ran(1);
  await waitFor("rest", () => it.clock.sleepers === 0);
  await it.clock.advance(48 * 60 * MINUTE_MS);
  expect(it.runs()).toBe(1);
  it.bus.publish("more");
  await it.ran(2);
});

test("runs when something is due, and not a moment before", async () => {
  let due: number | null = null;
  await using it = start(() => due);
  await it.ran(1);
  due = it.clock.nowMs() + 5 * MINUTE_MS;
  it.bus.publish("more");
  await it.ran(2);
  await it.clock.advance(5 * MINUTE_MS - 1);
  expect(it.runs()).toBe(2);
  due = null;
  await it.clock.advance(1);
  await it.ran(3);
});

test("looks every six hours while something is due later: clocks are set, and timers have an end", async () => {
  await using it = start(() => Date.UTC(2030, 0, 1));
  await it.ran(1);
  await it.clock.advance(6 * 60 * MINUTE_MS);
  await it.ran(2);
});

test("what fails is said, and tried again a minute later", async () => {
  let isBroken = true;
  await using it = start(() => {
    if (isBroken) throw new Error("the disk is full");
    return null;
  });
  await waitFor("the complaint", () => it.errors.length === 1);
  expect(it.errors).toEqual(["cannot count"]);
  isBroken = false;
  await it.clock.advance(MINUTE_MS);
  await it.ran(2);
  expect(it.errors).toHaveLength(1);
});

test("leaves no timer behind", async () => {
  const it = start(() => Date.UTC(2030, 0, 1));
  await waitFor("it to wait", () => it.clock.sleepers === 1);
  await it[Symbol.asyncDispose]();
  expect(it.clock.sleepers).toBe(0);
});
