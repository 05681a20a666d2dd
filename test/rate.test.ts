/** Speed and time left, by what came lately. */
import { expect, test } from "bun:test";
import { createRate, formatRemaining } from "../src/rate.ts";
import { createManualClock } from "./support/manual-clock.ts";

test("nothing to go by at first, then the latest ten seconds", async () => {
  const clock = createManualClock();
  const rate = createRate(clock);
  rate.add(500);
  expect([rate.perSecond(), rate.remainingMs(100)]).toEqual([null, null]);
  await clock.advance(1_000);
  rate.add(500);
  expect([rate.perSecond(), rate.remainingMs(2_000)]).toEqual([1_000, 2_000]);
  for (let second = 0; second < 20; second += 1) {
    await clock.advance(1_000);
    rate.add(100);
  }
  expect(rate.perSecond()).toBeCloseTo(100, -1);
  await clock.advance(11_000);
  expect([rate.perSecond(), rate.remainingMs(1)]).toEqual([0, null]);
});

test("what must be done again is no speed", async () => {
  const clock = createManualClock();
  const rate = createRate(clock);
  rate.add(100);
  rate.add(-300);
  await clock.advance(2_000);
  expect(rate.perSecond()).toBe(0);
});

test.each([
  [400, "1 s"],
  [99_000, "99 s"],
  [100_000, "2 min"],
  [5_940_000, "99 min"],
  [7_500_000, "2 h 5 min"],
])("%d ms: %s", (ms, text) => expect(formatRemaining(ms)).toBe(text));
