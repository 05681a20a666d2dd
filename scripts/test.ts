/**
 * What `npm test` runs: format, lint, types; unit tests; the build; a real Nix; integration and end-to-end tests.
 *
 *   bun scripts/test.ts [PART-OF-A-PATH…]     with filters: only the matching test files, and no checks
 *
 * The last line is `N passed, N failed, N skipped`, made from the reports in `.test-report/` and kept there in
 * `summary.txt`. A check, a build or a Nix that fails counts as one failure, and so does every fault of the run itself.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type GroupResult, runGroup } from "./run-group.ts";
import { printStep, runSteps } from "./steps.ts";
import { summarizeRun } from "./summary.ts";
import { listTestGroups, type TestGroup } from "./test-groups.ts";

const ROOT = join(import.meta.dir, "..");
const REPORT_FOLDER = join(ROOT, ".test-report");

/** The requirements of test groups, each provided once; false when that failed. */
function createRequirements(signal: AbortSignal, fail: (sentence: string) => void) {
  const provide = { nix: provideNix, binary: () => provideBinary(signal) };
  const provided = new Map<keyof typeof provide, Promise<boolean>>();
  const attempt = async (name: keyof typeof provide) => {
    const startedMs = performance.now();
    const why = await provide[name]().then(
      () => null,
      (error) => (error instanceof Error ? error.message : String(error)),
    );
    printStep({ name: name === "nix" ? "Nix" : "build", ok: why === null, durationMs: performance.now() - startedMs });
    if (why !== null) {
      fail(why);
    }
    return why === null;
  };
  return async (needs: TestGroup["needs"]): Promise<boolean> => {
    const results: boolean[] = [];
    for (const name of needs) {
      const running = provided.get(name) ?? attempt(name);
      provided.set(name, running);
      results.push(await running);
    }
    return results.every(Boolean);
  };
}

async function provideBinary(signal: AbortSignal): Promise<void> {
  const cmd = [process.execPath, "build.ts"];
  const child = Bun.spawn({ cmd, cwd: ROOT, stdin: "ignore", stdout: "inherit", stderr: "inherit", signal });
  if ((await child.exited) !== 0) {
    throw new Error("the build failed");
  }
}

async function provideNix(): Promise<void> {
  const { ensureNix } = await import("../test/support/nix.ts");
  const { ensureNixOf, NIX_SUITES } = await import("../test/support/nix-versions.ts");
  await ensureNix();
  await Promise.all(NIX_SUITES.map(ensureNixOf));
}

async function runTestGroup(group: TestGroup, signal: AbortSignal): Promise<GroupResult> {
  const startedMs = performance.now();
  const reportFile = join(REPORT_FOLDER, `${group.name}.xml`);
  const result = await runGroup({ group, cwd: ROOT, reportFile, signal, output: "inherit" });
  const failed = result.failed + result.problems.length;
  const name = `${group.name} tests: ${result.passed} passed, ${failed} failed, ${result.skipped} skipped`;
  printStep({ name, ok: failed === 0, durationMs: performance.now() - startedMs });
  return result;
}

async function runAll(filters: readonly string[], signal: AbortSignal) {
  const results: GroupResult[] = [];
  const otherFailures: string[] = [];
  if (filters.length === 0) {
    const steps = await runSteps(ROOT, signal);
    otherFailures.push(...steps.filter((step) => !step.ok).map((step) => `${step.name} failed`));
  }
  const provideAll = createRequirements(signal, (sentence) => otherFailures.push(sentence));
  for (const group of listTestGroups(ROOT, filters).filter(({ files }) => files.length > 0)) {
    if (!signal.aborted && (await provideAll(group.needs))) {
      results.push(await runTestGroup(group, signal));
    } else {
      otherFailures.push(`${group.name}: ${group.files.length} test files were not run`);
    }
  }
  return { results, otherFailures };
}

const filters = process.argv.slice(2);
const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort());
process.once("SIGTERM", () => interrupted.abort());
rmSync(REPORT_FOLDER, { recursive: true, force: true });
mkdirSync(REPORT_FOLDER, { recursive: true });

const { results, otherFailures } = await runAll(filters, interrupted.signal);
for (const sentence of [...results.flatMap((result) => result.problems), ...otherFailures]) {
  console.log(`FAILED ${sentence}`);
}
if (filters.length > 0) {
  console.log(`Only files that match ${filters.join(" or ")}; no checks.`);
}
const summary = summarizeRun({ results, otherFailures });
writeFileSync(join(REPORT_FOLDER, "summary.txt"), `${summary.line}\n`);
console.log(summary.line);
process.exit(summary.ok ? 0 : 1);
