/**
 * Child processes of tests and of the demo: the output is captured line by line, standard input is closed unless
 * given, nothing is inherited from the environment but PATH, HOME and TMPDIR, and a failure always shows the output.
 *
 * Signals go to the one process, never to a group: what a child leaves behind is found by its namespace (machine.ts).
 */

export type ProcessOptions = {
  /** Added to PATH, HOME, TMPDIR and LANG, which are all that is inherited. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
};

export type RunOptions = ProcessOptions & {
  /** Written to standard input, which is then closed. Default: /dev/null. */
  readonly input?: string | Uint8Array;
  /** Default 60,000; the process is killed and an error thrown when it takes longer. */
  readonly timeoutMs?: number;
};

export type ProcessExit = {
  /** null when a signal ended it. */
  readonly exitCode: number | null;
  /** "SIGKILL", …; null when it exited by itself. */
  readonly signal: string | null;
};

export type RunResult = ProcessExit & { readonly stdout: string; readonly stderr: string };

export type OutputLine = { readonly stream: "stdout" | "stderr"; readonly text: string };

export type SpawnedProcess = AsyncDisposable & {
  readonly pid: number;
  readonly command: readonly string[];
  /** Everything printed so far, both streams in the order of arrival, without the newline. */
  readonly lines: readonly OutputLine[];
  /** The lines as one text, for error messages. */
  output(): string;
  /**
   * The first line, of either stream, that matches; lines already printed count too, from index `from` on.
   * @throws Error with the whole output when the process ends or time is up (default 10,000 ms) without it
   */
  waitForLine(pattern: RegExp, options?: { timeoutMs?: number; from?: number }): Promise<RegExpExecArray>;
  /** Sends the signal to this process alone. Does nothing once it has ended. */
  kill(signal: NodeJS.Signals): void;
  /** SIGTERM, then SIGKILL if it is still there after `graceMs` (default 5,000). */
  stop(options?: { graceMs?: number }): Promise<ProcessExit>;
  /** Resolves when it has ended and its output was read. Never rejects. */
  readonly exited: Promise<ProcessExit>;
};

/** How long output is awaited after the end of a process whose own children still hold the pipe. */
const LEFTOVER_OUTPUT_MS = 300;

/** The environment that every child gets before its own additions. */
export function baseEnvironment(): Record<string, string> {
  return {
    PATH: process.env["PATH"] ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: process.env["HOME"] ?? "/",
    TMPDIR: process.env["TMPDIR"] ?? "/tmp",
    LANG: "C.UTF-8",
  };
}

/** Starts a process that runs beside the test; disposing it stops it. */
export function spawnProcess(command: readonly string[], options: ProcessOptions = {}): SpawnedProcess {
  const lines: OutputLine[] = [];
  const watchers = new Set<() => void>();
  const onChange = () => {
    for (const watcher of watchers) watcher();
  };
  const splitter = (stream: OutputLine["stream"]) =>
    createLineSplitter((text) => {
      lines.push({ stream, text });
      onChange();
    });
  const child = start(command, options, { stdout: splitter("stdout"), stderr: splitter("stderr") });
  let ended = false;
  const exited = child.exited.finally(() => {
    ended = true;
    onChange();
  });
  const output = () => lines.map((line) => line.text).join("\n");
  const kill: SpawnedProcess["kill"] = (signal) => {
    if (!ended) child.kill(signal);
  };
  const stop: SpawnedProcess["stop"] = async ({ graceMs = 5_000 } = {}) => {
    kill("SIGTERM");
    const timer = setTimeout(() => kill("SIGKILL"), graceMs);
    return exited.finally(() => clearTimeout(timer));
  };

  return {
    pid: child.pid,
    command,
    lines,
    output,
    waitForLine: async (pattern, { timeoutMs = 10_000, from = 0 } = {}) => {
      const found = await findLine({ pattern, timeoutMs, from, lines, watchers, hasEnded: () => ended });
      if (typeof found !== "string") return found;
      throw new Error(`${command.join(" ")}: ${found}; it printed:\n${output()}`);
    },
    kill,
    stop,
    exited,
    [Symbol.asyncDispose]: async () => {
      await stop({ graceMs: 2_000 });
    },
  };
}

type LineSearch = {
  readonly pattern: RegExp;
  readonly timeoutMs: number;
  readonly from: number;
  readonly lines: readonly OutputLine[];
  /** Called at each new line and at the end. */
  readonly watchers: Set<() => void>;
  readonly hasEnded: () => boolean;
};

/** The match, or why there is none. */
function findLine(search: LineSearch): Promise<RegExpExecArray | string> {
  const { pattern, timeoutMs, lines, watchers } = search;
  const matcher = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ""));
  return new Promise((resolve) => {
    let next = search.from;
    const settle = (result: RegExpExecArray | string) => {
      clearTimeout(timer);
      watchers.delete(look);
      resolve(result);
    };
    const look = () => {
      for (; next < lines.length; next += 1) {
        const match = matcher.exec(lines[next]?.text ?? "");
        if (match !== null) return settle(match);
      }
      if (search.hasEnded()) settle(`ended without a line that matches ${pattern}`);
    };
    const timer = setTimeout(() => settle(`no line matches ${pattern} after ${timeoutMs} ms`), timeoutMs);
    watchers.add(look);
    look();
  });
}

/**
 * Runs a process to its end; a non-zero exit code is a result, not an error.
 * @throws Error with the output when it takes longer than `timeoutMs`
 */
export async function runProcess(command: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const chunks = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
  const child = start(command, options, {
    stdout: { push: (chunk) => chunks.stdout.push(chunk), end: () => {} },
    stderr: { push: (chunk) => chunks.stderr.push(chunk), end: () => {} },
  });
  const timeoutMs = options.timeoutMs ?? 60_000;
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill("SIGKILL");
  }, timeoutMs);
  const exit = await child.exited;
  clearTimeout(timer);
  const result = {
    ...exit,
    stdout: Buffer.concat(chunks.stdout).toString(),
    stderr: Buffer.concat(chunks.stderr).toString(),
  };
  if (timedOut) throw new Error(`${command.join(" ")}: not done after ${timeoutMs} ms\n${describeResult(result)}`);
  return result;
}

/**
 * Runs a process that must succeed and returns its standard output without the last newline.
 * @throws Error with the exit code and the output
 */
export async function runChecked(command: readonly string[], options: RunOptions = {}): Promise<string> {
  return checkResult(command, await runProcess(command, options));
}

/** The standard output of a result that must be a success. */
export function checkResult(command: readonly string[], result: RunResult): string {
  if (result.exitCode !== 0) throw new Error(`${command.join(" ")}: ${describeResult(result)}`);
  return result.stdout.replace(/\n$/, "");
}

function describeResult(result: RunResult): string {
  const end = result.signal === null ? `exit code ${result.exitCode}` : `ended by ${result.signal}`;
  return `${end}\nstdout: ${result.stdout}\nstderr: ${result.stderr}`;
}

type ByteSink = { push(chunk: Uint8Array): void; end(): void };

type StartedProcess = {
  readonly pid: number;
  kill(signal: NodeJS.Signals): void;
  readonly exited: Promise<ProcessExit>;
};

function start(
  command: readonly string[],
  options: RunOptions,
  sinks: { stdout: ByteSink; stderr: ByteSink },
): StartedProcess {
  const input = typeof options.input === "string" ? new TextEncoder().encode(options.input) : options.input;
  const child = Bun.spawn([...command], {
    env: { ...baseEnvironment(), ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdin: input ?? "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const readers = [readInto(child.stdout, sinks.stdout), readInto(child.stderr, sinks.stderr)];
  const exited = (async () => {
    await child.exited;
    const patience = setTimeout(() => {
      for (const reader of readers) reader.cancel();
    }, LEFTOVER_OUTPUT_MS);
    await Promise.all(readers.map((reader) => reader.done));
    clearTimeout(patience);
    const { exitCode, signalCode } = child;
    return signalCode === null ? { exitCode, signal: null } : { exitCode: null, signal: String(signalCode) };
  })();
  return { pid: child.pid, kill: (signal) => child.kill(signal), exited };
}

function readInto(stream: ReadableStream<Uint8Array>, sink: ByteSink): { done: Promise<void>; cancel(): void } {
  const reader = stream.getReader();
  const done = (async () => {
    try {
      for (;;) {
        const { done: isLast, value } = await reader.read();
        if (isLast) break;
        sink.push(value);
      }
    } catch {
      // The pipe was given up after the process ended: what was read so far is the output.
    }
    sink.end();
  })();
  return { done, cancel: () => void reader.cancel().catch(() => {}) };
}

function createLineSplitter(onLine: (text: string) => void): ByteSink {
  const decoder = new TextDecoder();
  let rest = "";
  return {
    push(chunk) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) onLine(part.replace(/\r$/, ""));
    },
    end() {
      rest += decoder.decode();
      if (rest !== "") onLine(rest);
      rest = "";
    },
  };
}
