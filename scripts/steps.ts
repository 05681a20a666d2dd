/** The checks that need no test: format and lint, types. One line each, and the whole output of one that fails. */

export type StepResult = { readonly name: string; readonly ok: boolean };

const STEPS: readonly { readonly name: string; readonly cmd: readonly string[] }[] = [
  { name: "biome (format, lint)", cmd: ["biome", "ci", "--error-on-warnings", "--colors=off"] },
  { name: "tsc (types)", cmd: ["tsc", "-p", ".", "--pretty", "false"] },
];

/** Runs the steps at the same time and reports in their order. */
export async function runSteps(root: string, signal: AbortSignal): Promise<StepResult[]> {
  const running = STEPS.map((step) => runStep(root, step.cmd, signal));
  const results: StepResult[] = [];
  for (const [index, step] of STEPS.entries()) {
    const result = await running[index];
    const ok = result?.ok === true;
    printStep({ name: step.name, ok, durationMs: result?.durationMs ?? 0 });
    if (!ok) {
      console.log(result?.output ?? "");
    }
    results.push({ name: step.name, ok });
  }
  return results;
}

export function printStep({ name, ok, durationMs }: StepResult & { readonly durationMs: number }): void {
  console.log(`${ok ? "ok    " : "FAILED"} ${name} (${(durationMs / 1000).toFixed(1)} s)`);
}

async function runStep(root: string, cmd: readonly string[], signal: AbortSignal) {
  const startedMs = performance.now();
  const child = Bun.spawn({
    cmd: [process.execPath, "--bun", "run", "--silent", ...cmd],
    cwd: root,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    signal,
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  await child.exited;
  return { ok: child.exitCode === 0, output: `${stdout}${stderr}`.trim(), durationMs: performance.now() - startedMs };
}
