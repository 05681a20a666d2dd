/**
 * `bun run ok`: everything quick that must hold before a commit. Format, lint, types, and the group `unit` of the tests
 * (the rules of the house in test/tidy.test.ts among them). `npm test` has the others. One line per step.
 */
import { join } from "node:path";
import { runGroup } from "./run-group.ts";
import { printStep, runSteps } from "./steps.ts";
import { listTestGroups } from "./test-groups.ts";

const ROOT = join(import.meta.dir, "..");

async function checkUnitTests(signal: AbortSignal): Promise<boolean> {
  const startedMs = performance.now();
  const group = listTestGroups(ROOT).find((candidate) => candidate.name === "unit");
  if (group === undefined) {
    return false;
  }
  const reportFile = join(ROOT, ".test-report", "ok.xml");
  const result = await runGroup({ group, cwd: ROOT, reportFile, signal, output: "inherit" });
  for (const problem of result.problems) {
    console.log(problem);
  }
  const ok = result.failed === 0 && result.problems.length === 0;
  const name = `${group.name} tests: ${result.passed} passed, ${result.failed + result.problems.length} failed`;
  printStep({ name, ok, durationMs: performance.now() - startedMs });
  return ok;
}

const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort());
process.once("SIGTERM", () => interrupted.abort());

const steps = await runSteps(ROOT, interrupted.signal);
const testsOk = await checkUnitTests(interrupted.signal);
process.exit(testsOk && steps.every((step) => step.ok) ? 0 : 1);
