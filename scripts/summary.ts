/** The closing line of a test run, summed from what the groups reported. */
import type { GroupResult } from "./run-group.ts";

export type RunSummary = {
  /** Always `N passed, N failed, N skipped`. */
  readonly line: string;
  readonly ok: boolean;
};

export type SummarizeOptions = {
  readonly results: readonly GroupResult[];
  /** What failed beside the tests (a check, the build), one sentence each; each counts as one failure. */
  readonly otherFailures: readonly string[];
};

/** A run in which nothing failed is still not good when nothing passed either. */
export function summarizeRun({ results, otherFailures }: SummarizeOptions): RunSummary {
  const sum = (count: (result: GroupResult) => number) => results.reduce((total, result) => total + count(result), 0);
  const passed = sum((result) => result.passed);
  const failed = sum((result) => result.failed + result.problems.length) + otherFailures.length;
  const skipped = sum((result) => result.skipped);
  const isEmpty = passed === 0 && failed === 0;
  return {
    line: `${passed} passed, ${isEmpty ? 1 : failed} failed, ${skipped} skipped`,
    ok: failed === 0 && !isEmpty,
  };
}
