/** Speed and time left from what was seen: a steady stream, bursts, a stall, a new beginning; and in words. */
import { expect, test } from "bun:test";
import { addSample, describeSpeed, measureSpeed, type Sample } from "../src/transfer-speed.ts";

const samplesOf = (...pairs: readonly (readonly [atMs: number, bytes: number])[]) =>
  pairs.reduce<readonly Sample[]>((all, [atMs, bytes]) => addSample(all, { atMs, bytes }), []);

test.each([
  ["a steady stream", samplesOf([0, 0], [1_000, 10], [2_000, 20]), 2_000, { bytesPerSecond: 10, secondsLeft: 8 }],
  [
    "the last seconds count",
    samplesOf([0, 0], [50_000, 10], [60_000, 60]),
    60_000,
    { bytesPerSecond: 5, secondsLeft: 8 },
  ],
  ["a stall", samplesOf([0, 50], [1_000, 50]), 5_000, { bytesPerSecond: 0, secondsLeft: null }],
  ["it slows down while nothing comes", samplesOf([0, 0], [1_000, 50]), 5_000, { bytesPerSecond: 10, secondsLeft: 5 }],
  ["all of it", samplesOf([0, 0], [1_000, 100]), 1_000, { bytesPerSecond: 100, secondsLeft: 0 }],
  ["too early to tell", samplesOf([0, 0], [500, 50]), 500, null],
  ["one look", samplesOf([0, 0]), 5_000, null],
  ["begun again", samplesOf([0, 0], [1_000, 50], [2_000, 10]), 2_000, null],
  ["nothing", [], 0, null],
] as const)("%s", (_what, samples, nowMs, expected) => {
  expect(measureSpeed(samples, { nowMs, bytesTotal: 100 })).toEqual(expected);
});

test("samples do not pile up", () => {
  let samples: readonly Sample[] = [];
  for (let atMs = 0; atMs < 600_000; atMs += 500) samples = addSample(samples, { atMs, bytes: atMs });
  expect(samples.length).toBeLessThan(25);
});

test("nor do those of somebody who is told of every piece, and they tell the same", () => {
  let samples: readonly Sample[] = [];
  let most = 0;
  for (let atMs = 0; atMs <= 60_000; atMs += 1) {
    samples = addSample(samples, { atMs, bytes: atMs * 7 });
    most = Math.max(most, samples.length);
  }
  expect(most).toBeLessThan(25);
  expect(measureSpeed(samples, { nowMs: 60_000, bytesTotal: 490_000 })).toEqual({
    ...{ bytesPerSecond: 7_000, secondsLeft: 10 },
  });
});

test.each([
  [null, ""],
  [{ bytesPerSecond: 0, secondsLeft: null }, "0 B/s"],
  [{ bytesPerSecond: 1_500, secondsLeft: 0 }, "1.5 kB/s, 0 s left"],
  [{ bytesPerSecond: 1, secondsLeft: 99 }, "1 B/s, 99 s left"],
  [{ bytesPerSecond: 1, secondsLeft: 100 }, "1 B/s, 2 min left"],
  [{ bytesPerSecond: 1, secondsLeft: 5_940 }, "1 B/s, 99 min left"],
  [{ bytesPerSecond: 1, secondsLeft: 7_500 }, "1 B/s, 2 h 5 min left"],
])("%p: %s", (speed, text) => expect(describeSpeed(speed).join(", ")).toBe(text));
