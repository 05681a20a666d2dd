/** The test runner must notice every way in which tests can vanish. Runs it on the small suites in fixtures/runner. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type GroupResult, runGroup } from "../../scripts/run-group.ts";

const ROOT = join(import.meta.dir, "../..");

type RunOptions = { readonly processes?: number; readonly groupTimeoutMs?: number };

async function runSuites(suites: readonly string[], options: RunOptions = {}): Promise<GroupResult> {
  const folder = mkdtempSync(join(tmpdir(), "nixdeploy-runner-"));
  try {
    return await runGroup({
      group: {
        name: "fixture",
        needs: [],
        files: suites.map((suite) => `test/fixtures/runner/${suite}.suite.ts`),
        testTimeoutMs: 5_000,
        groupTimeoutMs: options.groupTimeoutMs ?? 20_000,
        processes: options.processes ?? 1,
      },
      cwd: ROOT,
      reportFile: join(folder, "report.xml"),
      signal: new AbortController().signal,
      output: "ignore",
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const counts = ({ passed, failed, skipped }: GroupResult) => ({ passed, failed, skipped });

test("counts what passed", async () => {
  expect(await runSuites(["passing"])).toEqual({ passed: 2, failed: 0, skipped: 0, problems: [] });
});

test("counts what failed", async () => {
  expect(await runSuites(["passing", "failing"])).toEqual({ passed: 3, failed: 1, skipped: 0, problems: [] });
});

test("counts what was skipped", async () => {
  expect(await runSuites(["skipped"])).toEqual({ passed: 1, failed: 0, skipped: 1, problems: [] });
});

test("process.exit(0) within a test is a problem", async () => {
  const result = await runSuites(["passing", "exiting"]);
  expect(counts(result)).toEqual({ passed: 0, failed: 0, skipped: 0 });
  expect(result.problems).toEqual([expect.stringContaining("bun test wrote no report (exit code 0)")]);
});

test("process.exit(0) within a test fails that file when files have processes of their own", async () => {
  const result = await runSuites(["passing", "exiting"], { processes: 2 });
  expect(result.passed).toBeGreaterThanOrEqual(2);
  expect(result.failed + result.problems.length).toBeGreaterThanOrEqual(1);
});

test("test.todo is a problem", async () => {
  const result = await runSuites(["todo"]);
  expect(result.problems).toEqual([expect.stringContaining("test.todo is not allowed: is not written yet")]);
});

for (const suite of ["only", "empty", "broken"]) {
  test(`a file is missed when it is lost from the report: ${suite}`, async () => {
    const result = await runSuites(["passing", suite]);
    expect(counts(result)).toEqual({ passed: 2, failed: 0, skipped: 0 });
    expect(result.problems).toEqual([expect.stringContaining(`${suite}.suite.ts: not in the report`)]);
  });

  test(`a run of nothing else is a problem: ${suite}`, async () => {
    const result = await runSuites([suite]);
    expect(result.passed).toBe(0);
    expect(result.problems).not.toEqual([]);
  });
}

test("a file that does not exist is a problem", async () => {
  expect((await runSuites(["absent"])).problems).not.toEqual([]);
});

test("no files at all is a problem", async () => {
  expect((await runSuites([])).problems).toEqual(["fixture: there are no test files"]);
});

test("a group that does not end is killed and is a problem", async () => {
  const result = await runSuites(["hanging"], { groupTimeoutMs: 1_000 });
  expect(result.problems).toContain("fixture: not done after 1 s, killed");
});
