/**
 * Runs a program that says little and ends soon: its output is kept, up to a limit, and lines can be watched as they
 * come. In our own process group, unlike what the agent runs (`agent/machine/process.ts`): ssh must be able to ask at
 * the terminal, and a Ctrl-C is meant for it, too.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { describeError, NixdeployError } from "../../errors.ts";
import type { Clock } from "../../runtime.ts";

export type ChildResult = {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** It was stopped because its time was up. */
  readonly isLate: boolean;
};

export type RunChildOptions = {
  readonly command: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  /** For its standard input; nothing: there is none. */
  readonly input?: string | AsyncIterable<Uint8Array>;
  readonly deadlineMs: number;
  readonly onLine?: (stream: "out" | "err", line: string) => void;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

const OUTPUT_MAX_CHARACTERS = 1024 * 1024;

/** @throws NixdeployError("host") when the program cannot be started · the signal's reason */
export async function runChild(options: RunChildOptions): Promise<ChildResult> {
  const { environment, input, clock, signal } = options;
  signal.throwIfAborted();
  const [program = "", ...args] = options.command;
  const child = spawn(program, args, { env: environment, stdio: ["pipe", "pipe", "pipe"] });
  try {
    await once(child, "spawn");
  } catch (error) {
    throw new NixdeployError("host", `cannot run ${program}: ${describeError(error)}`, {
      hint: `Install ${program}, or correct PATH.`,
      cause: error,
    });
  }
  const ended = new AbortController();
  let isLate = false;
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const stop = () => {
    child.kill("SIGTERM");
    // A shared ssh connection keeps the streams of a command that was stopped for as long as it goes on over there.
    void gone.then(() => {
      child.stdout.destroy();
      child.stderr.destroy();
    });
  };
  signal.addEventListener("abort", stop, { once: true });
  const deadline = clock.sleep(options.deadlineMs, ended.signal).then(
    () => {
      isLate = true;
      stop();
    },
    () => {
      // It was faster.
    },
  );
  const outputs = [collect(child.stdout, (line) => options.onLine?.("out", line))];
  outputs.push(collect(child.stderr, (line) => options.onLine?.("err", line)));
  const feeding = feed(child.stdin, input);
  const closed = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  const code = await closed;
  signal.removeEventListener("abort", stop);
  ended.abort(new Error("the program has ended"));
  await deadline;
  await feeding;
  signal.throwIfAborted();
  const [stdout = "", stderr = ""] = await Promise.all(outputs);
  return { code, stdout, stderr, isLate };
}

async function collect(stream: Readable, onLine: (line: string) => void): Promise<string> {
  let text = "";
  let rest = "";
  stream.setEncoding("utf8");
  try {
    for await (const chunk of stream) {
      text = `${text}${String(chunk)}`.slice(-OUTPUT_MAX_CHARACTERS);
      const lines = `${rest}${String(chunk)}`.split("\n");
      rest = (lines.pop() ?? "").slice(-OUTPUT_MAX_CHARACTERS);
      for (const line of lines) onLine(line);
    }
  } catch (error) {
    if (!stream.destroyed) throw error;
  }
  if (rest !== "") onLine(rest);
  return text;
}

async function feed(stdin: NodeJS.WritableStream, input: RunChildOptions["input"]): Promise<void> {
  stdin.on("error", () => {
    // A program that does not read to the end says why by its exit code.
  });
  const chunks = typeof input === "string" ? [new TextEncoder().encode(input)] : (input ?? []);
  for await (const chunk of chunks) {
    const isGone = await new Promise<boolean>((resolve) => {
      stdin.write(chunk, (error) => resolve(error !== null && error !== undefined));
    });
    if (isGone) break;
  }
  stdin.end();
}
