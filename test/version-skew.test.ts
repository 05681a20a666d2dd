import { describe, expect, test } from "bun:test";
import { isTooNew, judgeVersion } from "../src/version-skew.ts";

const TABLE: readonly (readonly [agent: string, coordinator: string, status: string])[] = [
  ["0.3.0", "0.3.0", "current"],
  ["0.3.9", "0.3.0", "current"],
  ["0.3.0", "0.3.9", "current"],
  ["0.3.0-rc.1", "0.3.0", "current"],
  ["0.3.0+abc", "0.3.0", "current"],
  ["0.2.7", "0.3.0", "current"],
  ["0.1.0", "0.3.0", "outdated"],
  ["0.9.0", "1.0.0", "outdated"],
  ["1.12.0", "2.0.0", "outdated"],
  ["0.4.0", "0.3.5", "newer"],
  ["0.5.0", "0.3.0", "refused"],
  ["0.10.0", "0.9.0", "newer"],
  ["0.10.0", "0.8.0", "refused"],
  ["1.0.0", "0.9.0", "refused"],
  ["", "0.3.0", "unknown"],
  ["0.3", "0.3.0", "unknown"],
  ["v0.3.0", "0.3.0", "unknown"],
  ["main", "0.3.0", "unknown"],
  ["9999999.0.0", "0.3.0", "unknown"],
  ["0.5.0", "somebody's own", "unknown"],
];

describe("an agent and a coordinator", () => {
  for (const [agent, coordinator, expected] of TABLE) {
    test(`${agent} and ${coordinator}: ${expected}`, () => {
      expect(isTooNew(agent, coordinator)).toBe(expected === "refused");
      if (expected === "refused") expect(judgeVersion(agent, coordinator)).toBe("newer");
      else expect<string>(judgeVersion(agent, coordinator)).toBe(expected);
    });
  }
});
