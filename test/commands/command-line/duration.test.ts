import { expect, test } from "bun:test";
import { parseDuration } from "../../../src/commands/command-line/duration.ts";

for (const [text, milliseconds] of [
  ["45s", 45_000],
  ["30m", 1_800_000],
  ["1h30m", 5_400_000],
  ["90d", 7_776_000_000],
  ["1d1h1m1s", 90_061_000],
  ["90m", 5_400_000],
  ["1h0m", 3_600_000],
] as const) {
  test(`${text} is ${milliseconds} ms`, () => {
    expect(parseDuration(text)).toBe(milliseconds);
  });
}

for (const text of [
  "",
  "5",
  "0s",
  "1.5h",
  "-1m",
  "30M",
  "30 m",
  " 30m",
  "30m ",
  "1m1h",
  "1m1m",
  "99999d",
  "1w",
  "٣m",
]) {
  test(`${JSON.stringify(text)} is refused`, () => {
    expect(() => parseDuration(text)).toThrow("a duration");
  });
}
