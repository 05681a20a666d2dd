import { expect, test } from "bun:test";
import { formatBytes, formatCount } from "../src/quantity.ts";

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

test("formatCount", () => {
  expect([0, 1, 2].map((count) => formatCount(count, "path"))).toEqual(["0 paths", "1 path", "2 paths"]);
});
