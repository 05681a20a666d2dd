import { expect, test } from "bun:test";
import { formatBytes, formatCount, formatSpan } from "../src/quantity.ts";

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1_000, "1.0 kB"],
  [999_949, "999.9 kB"],
  [999_950, "1.0 MB"],
  [20_000_000, "20.0 MB"],
  [5_400_000_000, "5.4 GB"],
  [5e15, "5000.0 TB"],
])("formatBytes(%d)", (bytes, expected) => {
  expect(formatBytes(bytes)).toBe(expected);
});

test("formatSpan", () => {
  const DAY_MS = 86_400_000;
  const spans = [0, 99_000, 100_000, 99 * 60_000, 3 * 3_600_000, 47 * 3_600_000, 3 * DAY_MS].map(formatSpan);
  expect(spans).toEqual(["0 s", "99 s", "2 min", "99 min", "3 h", "47 h", "3 days"]);
});

test("formatCount", () => {
  expect([0, 1, 2].map((count) => formatCount(count, "path"))).toEqual(["0 paths", "1 path", "2 paths"]);
});
