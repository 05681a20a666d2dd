/**
 * Programs that say little and end soon, for an agent that waits: like `runProgram`, but by Bun alone, because execa would
 * stay in memory for good (2 MB). The whole output is read first, so it is nothing for an activation, whose programs
 * may print without end.
 */
import type { ProgramExit, RunProgram } from "./process.ts";

const OUTPUT_MAX_BYTES = 1024 * 1024;

/** Never throws for what the program does: not being able to start it is a result too. */
export const runSmallProgram: RunProgram = async (options) => {
  const { command, args, environment, deadlineMs, clock, onLine } = options;
  const file = Bun.which(command, { PATH: environment["PATH"] ?? "" });
  if (file === null) return { kind: "not-started", reason: "there is no such program" };
  const startedMs = clock.monotonicMs();
  let child: Bun.ReadableSubprocess;
  try {
    child = Bun.spawn([file, ...args], {
      ...{ env: { ...environment }, cwd: "/", stdin: "ignore", stdout: "pipe", stderr: "pipe" },
      ...{ timeout: deadlineMs, killSignal: "SIGKILL", maxBuffer: OUTPUT_MAX_BYTES },
    });
  } catch (error) {
    return { kind: "not-started", reason: error instanceof Error ? error.message : String(error) };
  }
  options.onStarted?.(child.pid);
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  await child.exited;
  for (const line of linesOf(out)) await onLine("out", line);
  for (const line of linesOf(err)) await onLine("err", line);
  return describeEnd(child, { deadlineMs, lastedMs: clock.monotonicMs() - startedMs });
};

function describeEnd(
  { exitCode, signalCode }: Bun.ReadableSubprocess,
  { deadlineMs, lastedMs }: { readonly deadlineMs: number; readonly lastedMs: number },
): ProgramExit {
  if (exitCode !== null) return { kind: "exited", code: exitCode };
  if (lastedMs >= deadlineMs) return { kind: "timed-out", afterMs: deadlineMs };
  return { kind: "killed", signal: String(signalCode ?? "SIGKILL") };
}

function linesOf(text: string): string[] {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines;
}
