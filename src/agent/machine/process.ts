/**
 * Programs that the agent runs on the device: the only importer of execa.
 *
 * Standard input is closed, the program gets a session and process group of its own (so that it and all its children
 * can be stopped together, and a Ctrl-C at our terminal does not reach it), output comes line by line and the program
 * waits while we are busy with it, and there is a deadline. What it leaves running may keep the pipe: output after its
 * end is read for a moment only.
 */
import { describeError } from "../../errors.ts";
import { LOG_LINE_CHARACTERS_MAX } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import { createLineSplitter } from "./line-splitter.ts";

export type RunProgramOptions = {
  readonly command: string;
  readonly args: readonly string[];
  /** All of it: nothing is inherited (`cleanEnvironment`). */
  readonly environment: Readonly<Record<string, string>>;
  readonly deadlineMs: number;
  /** Called in order; the program's output waits for the promise. */
  readonly onLine: (stream: "out" | "err", text: string) => Promise<void>;
  /** Told as soon as it runs; the id is that of its process group, too. */
  readonly onStarted?: (processId: number) => void;
  /** Stops it early, as the deadline would; it counts as timed out. */
  readonly stop?: AbortSignal;
  readonly clock: Clock;
};

export type ProgramExit =
  | { readonly kind: "exited"; readonly code: number }
  | { readonly kind: "killed"; readonly signal: string }
  | { readonly kind: "timed-out"; readonly afterMs: number }
  | { readonly kind: "not-started"; readonly reason: string };

export type RunProgram = (options: RunProgramOptions) => Promise<ProgramExit>;

/** Between the polite signal and the other. */
const KILL_GRACE_MS = 10_000;
const LEFTOVER_OUTPUT_MS = 1_000;

type Execa = typeof import("execa")["execa"];

/** Runs a program to its end. Never throws: not being able to start it is a result too. */
export async function runProgram(options: RunProgramOptions): Promise<ProgramExit> {
  const { clock } = options;
  const startedMs = clock.monotonicMs();
  // Loaded at the first activation: it would take 2 MB of an agent that waits.
  const child = startChild(options, (await import("execa")).execa);
  if (child === null) return { kind: "not-started", reason: "it is no program that this system can execute" };
  if (child.pid !== undefined) options.onStarted?.(child.pid);
  const hasExited = new AbortController();
  let timedOut = false;
  const deadline = stopAtDeadline({ ...options, pid: child.pid, signal: hasExited.signal }).then((stopped) => {
    timedOut = stopped;
  });
  const exited = new Promise<void>((resolve) => {
    child.nodeChildProcess.once("exit", () => resolve());
    child.nodeChildProcess.once("error", () => resolve());
  });
  const outputs = [
    readLines(child.stdout, (text) => options.onLine("out", text)),
    readLines(child.stderr, (text) => options.onLine("err", text)),
  ];
  await exited;
  hasExited.abort(new Error("the program has ended"));
  await deadline;
  const isRead = new AbortController();
  await Promise.race([Promise.all(outputs), clock.sleep(LEFTOVER_OUTPUT_MS, isRead.signal)]);
  isRead.abort(new Error("the output was read"));
  child.stdout.destroy();
  child.stderr.destroy();
  const result = await child;
  if (timedOut) {
    const wasStopped = options.stop?.aborted === true;
    return { kind: "timed-out", afterMs: wasStopped ? clock.monotonicMs() - startedMs : options.deadlineMs };
  }
  if (result.exitCode !== undefined) return { kind: "exited", code: result.exitCode };
  if (result.signal !== undefined) return { kind: "killed", signal: result.signal };
  return { kind: "not-started", reason: describeError(result.cause ?? result.shortMessage) };
}

/** @returns null for a file that is no program of this architecture */
function startChild(options: RunProgramOptions, execa: Execa) {
  try {
    return execa(options.command, [...options.args], {
      env: options.environment,
      extendEnv: false,
      cwd: "/",
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      buffer: false,
      reject: false,
      detached: true,
      cleanup: false,
    });
  } catch (error) {
    // Bun throws for ENOEXEC where Node emits an event, and execa then throws a TypeError of its own.
    if (error instanceof TypeError) return null;
    throw error;
  }
}

/** Starts a program that outlives us, in a session of its own, without standard streams. */
export async function startDetached(options: {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}): Promise<void> {
  const { execa } = await import("execa");
  const [file = "", ...args] = options.command;
  const child = execa(file, args, {
    env: options.environment,
    extendEnv: false,
    cwd: "/",
    stdio: "ignore",
    buffer: false,
    reject: false,
    detached: true,
    cleanup: false,
  });
  child.nodeChildProcess.unref();
}

/** Stops the whole group when time is up. @returns whether it was */
async function stopAtDeadline(options: {
  readonly pid: number | undefined;
  readonly deadlineMs: number;
  readonly stop?: AbortSignal;
  readonly clock: Clock;
  /** The program has ended by itself. */
  readonly signal: AbortSignal;
}): Promise<boolean> {
  const { pid, clock, signal, stop } = options;
  let stopped = false;
  try {
    await clock.sleep(options.deadlineMs, stop === undefined ? signal : AbortSignal.any([signal, stop])).catch(() => {
      signal.throwIfAborted();
    });
    stopped = true;
    signalGroup(pid, "SIGTERM");
    await clock.sleep(KILL_GRACE_MS, signal);
    signalGroup(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
  return stopped;
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // The group is gone.
  }
}

async function readLines(stream: AsyncIterable<unknown>, onLine: (text: string) => Promise<void>): Promise<void> {
  const splitter = createLineSplitter(LOG_LINE_CHARACTERS_MAX);
  try {
    for await (const chunk of stream) {
      if (!(chunk instanceof Uint8Array)) continue;
      for (const line of splitter.push(chunk)) await onLine(line);
    }
  } catch {
    // The pipe was given up after the program's end: what was read so far is the output.
  }
  for (const line of splitter.end()) await onLine(line);
}

/** What runs now, to be run again: what comes before the arguments; with the script, when we run from a checkout. */
export function ownProgram(): readonly string[] {
  return [process.execPath, ...(Bun.main.startsWith("/$bunfs/") ? [] : [Bun.main])];
}
