/**
 * Runs one group of test files with `bun test` and says what truly happened. The counts come from the junit report,
 * never from the exit code alone: a `process.exit(0)` within a test ends `bun test` with 0 and no closing line.
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { type FileReport, parseJunit } from "./junit.ts";
import type { TestGroup } from "./test-groups.ts";

export type GroupResult = {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** What is wrong with the run itself, one sentence each; every one counts as a failure. */
  readonly problems: readonly string[];
};

export type RunGroupOptions = {
  readonly group: TestGroup;
  readonly cwd: string;
  readonly reportFile: string;
  readonly signal: AbortSignal;
  /** Where the output of the tests goes. */
  readonly output: "inherit" | "ignore";
};

type Exit = { readonly description: string; readonly ok: boolean; readonly timedOut: boolean };

/** Never throws for a test's fault: that is a count or a problem of the result. */
export async function runGroup(options: RunGroupOptions): Promise<GroupResult> {
  const { group, reportFile } = options;
  mkdirSync(dirname(reportFile), { recursive: true });
  rmSync(reportFile, { force: true });
  if (group.files.length === 0) {
    return { passed: 0, failed: 0, skipped: 0, problems: [`${group.name}: there are no test files`] };
  }
  const exit = await runBunTest(options);
  const reports = existsSync(reportFile) ? parseJunit(readFileSync(reportFile, "utf8")) : null;
  return summarize({ group, reports, exit });
}

async function runBunTest({ group, cwd, reportFile, signal, output }: RunGroupOptions): Promise<Exit> {
  const deadline = AbortSignal.timeout(group.groupTimeoutMs);
  const child = Bun.spawn({
    cmd: [
      process.execPath,
      "test",
      "--only-failures",
      `--timeout=${group.testTimeoutMs}`,
      ...(group.processes > 1 ? [`--parallel=${group.processes}`] : []),
      "--reporter=junit",
      `--reporter-outfile=${reportFile}`,
      // With "./" a path is taken as it is, not as a filter.
      ...group.files.map((file) => `./${file}`),
    ],
    cwd,
    env: testEnvironment(),
    stdin: "ignore",
    stdout: output,
    stderr: output,
    signal: AbortSignal.any([signal, deadline]),
    killSignal: "SIGTERM",
  });
  await child.exited;
  return {
    description: child.signalCode === null ? `exit code ${child.exitCode}` : `signal ${child.signalCode}`,
    ok: child.exitCode === 0,
    timedOut: deadline.aborted,
  };
}

/** `CI` makes `test.only` and new snapshots failures; settings of the person who runs the tests stay outside. */
function testEnvironment(): Record<string, string | undefined> {
  const foreign = (name: string) => name.startsWith("NIXDEPLOY_") || name === "CREDENTIALS_DIRECTORY";
  const kept = Object.entries(process.env).filter(([name]) => !foreign(name));
  return { ...Object.fromEntries(kept), CI: "true" };
}

type Evidence = { readonly group: TestGroup; readonly reports: readonly FileReport[] | null; readonly exit: Exit };

function summarize({ group, reports, exit }: Evidence): GroupResult {
  const overdue = exit.timedOut ? [`${group.name}: not done after ${group.groupTimeoutMs / 1000} s, killed`] : [];
  if (reports === null) {
    const why = "a test ended the process (process.exit?), or no file could be loaded";
    const problems = [...overdue, `${group.name}: bun test wrote no report (${exit.description}): ${why}`];
    return { passed: 0, failed: 0, skipped: 0, problems };
  }
  const sum = (count: (report: FileReport) => number) => reports.reduce((total, report) => total + count(report), 0);
  const failed = sum((report) => report.failed);
  const skipped = sum((report) => report.skipped);
  const passed = sum((report) => report.tests - report.failed - report.skipped - report.todo.length);
  const problems = [...overdue, ...findMissingFiles(group, reports), ...reports.flatMap(findReportProblems)];
  if (!exit.ok && failed === 0 && problems.length === 0) {
    problems.push(`${group.name}: bun test ended with ${exit.description} although no test failed`);
  }
  return { passed, failed, skipped, problems };
}

function findMissingFiles(group: TestGroup, reports: readonly FileReport[]): string[] {
  const present = new Set(reports.filter((report) => report.tests > 0).map((report) => report.file));
  return group.files
    .filter((file) => !present.has(file))
    .map((file) => `${file}: not in the report: it has no tests, could not be loaded, or ended the process`);
}

function findReportProblems({ file, tests, claimedTests, todo }: FileReport): string[] {
  const lost = tests < claimedTests ? [`${file}: ${claimedTests} tests claimed, ${tests} reported`] : [];
  return [...lost, ...todo.map((title) => `${file}: test.todo is not allowed: ${title}`)];
}
