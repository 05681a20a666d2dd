import { expect, test } from "bun:test";
import { summarizeRun } from "../../scripts/summary.ts";

const passed = { passed: 3, failed: 0, skipped: 1, problems: [] };

test("sums the groups", () => {
  const results = [passed, { passed: 2, failed: 1, skipped: 0, problems: [] }];
  expect(summarizeRun({ results, otherFailures: [] })).toEqual({ line: "5 passed, 1 failed, 1 skipped", ok: false });
});

test("is good only when everything passed", () => {
  expect(summarizeRun({ results: [passed], otherFailures: [] })).toEqual({
    line: "3 passed, 0 failed, 1 skipped",
    ok: true,
  });
});

test("a problem of the run counts as a failure", () => {
  const results = [{ ...passed, problems: ["lost"] }];
  expect(summarizeRun({ results, otherFailures: [] })).toEqual({ line: "3 passed, 1 failed, 1 skipped", ok: false });
});

test("a failed check counts as a failure", () => {
  expect(summarizeRun({ results: [passed], otherFailures: ["tsc failed"] }).line).toBe("3 passed, 1 failed, 1 skipped");
});

test("a run of nothing is a failure", () => {
  expect(summarizeRun({ results: [], otherFailures: [] })).toEqual({
    line: "0 passed, 1 failed, 0 skipped",
    ok: false,
  });
});
