/**
 * The program, behind start.ts. The only file that sets the exit code, handles signals and prints errors.
 *
 * The first SIGINT or SIGTERM aborts the command's signal: a command that then returns ended well (`serve` and `agent`
 * do), one that throws ends with 130. The second one leaves at once. A reader of stdout that goes away (`| head`) stops
 * the command too, without a word.
 */
import { isatty } from "node:tty";
import type { CommandEntry } from "./commands/command-line/args.ts";
import { COMMON_DEFAULTS, type CommonValues, guessCommonValues } from "./commands/command-line/common-args.ts";
import type { CommandContext, OutputStream, SignalListener, WorkflowLog } from "./commands/command-line/context.ts";
import { describeFailure, formatFailure, listCauses } from "./commands/command-line/format-failure.ts";
import { COMMANDS, resolveRequest } from "./commands/root.ts";
import { createSecretPrompt } from "./commands/terminal/secret-prompt.ts";
import { neutralizeWorkflowCommands } from "./commands/terminal/workflow-commands.ts";
import { describeError, NixdeployError, ProgramEnded, toExitCode } from "./errors.ts";
import { createLogger, type Logger } from "./log.ts";
import { formatJson, stripColors } from "./printable.ts";
import { systemClock, systemRandom } from "./runtime.ts";
import { NIXDEPLOY_VERSION } from "./version.ts";

const EXIT_INTERRUPTED = toExitCode("interrupted");
/** Of a terminal that does not say. */
const COLUMNS_DEFAULT = 80;
const ROWS_DEFAULT = 24;

/** Runs the command line of this process and ends the process. */
export async function main(commands: readonly CommandEntry[] = COMMANDS): Promise<never> {
  const stop = new AbortController();
  const signalListeners = new Set<SignalListener>();
  stopOnSignals(stop, signalListeners);
  const isWorkflow = process.env["GITHUB_ACTIONS"] === "true";
  // Our own colors are not made in the first place; these are those of devices.
  const uncolor = (process.env["NO_COLOR"] ?? "") === "" ? (text: string) => text : stripColors;
  const prepare = (text: string) => (isWorkflow ? neutralizeWorkflowCommands(uncolor(text)) : uncolor(text));
  const onGone = () => stop.abort(new OutputClosedError());
  const stdout = createOutput(process.stdout, { prepare, onGone });
  const stderr = createOutput(process.stderr, { prepare, onGone: () => {} });
  // Commands and what surrounds them take the same way, or they would overtake each other.
  const raw = createOutput(process.stderr, { prepare: (text) => text, onGone: () => {} });
  const workflow = isWorkflow ? { write: raw.write } : null;
  const report = (error: unknown, common: CommonValues) =>
    reportFailure({ error, common, signal: stop.signal, stderr });
  process.on("uncaughtException", (error) => void report(error, COMMON_DEFAULTS).then(leave));
  process.on("unhandledRejection", (error) => void report(error, COMMON_DEFAULTS).then(leave));

  const words = process.argv.slice(2);
  let common = guessCommonValues(words);
  try {
    const request = await resolveRequest({ words, version: NIXDEPLOY_VERSION, commands });
    if (request.kind === "print") {
      await stdout.write(request.text);
      return leave(0);
    }
    if (request.kind === "no-command") {
      await stderr.write(`${request.help}\n`);
      throw new NixdeployError("usage", `cannot run \`${request.what}\`: no command is given`);
    }
    common = request.common;
    await request.run(createContext({ common, stop, signalListeners, stdout, stderr, workflow }));
    return leave(0);
  } catch (error) {
    return leave(error instanceof ProgramEnded ? error.exitCode : await report(error, common));
  }
}

function leave(exitCode: number): never {
  process.exit(exitCode);
}

/** The reason of the abort when nobody reads stdout any more. */
class OutputClosedError extends Error {
  override readonly name = "OutputClosedError";
}

function stopOnSignals(stop: AbortController, listeners: ReadonlySet<SignalListener>): void {
  let count = 0;
  const onSignal = (signal: NodeJS.Signals) => {
    for (const listener of listeners) listener(signal);
    count += 1;
    if (count > 1) {
      leave(EXIT_INTERRUPTED);
    }
    stop.abort(new NixdeployError("interrupted", "interrupted"));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
}

type OutputOptions = {
  /** What is done to every text that is written. */
  readonly prepare: (text: string) => string;
  readonly onGone: () => void;
};

function createOutput(stream: NodeJS.WriteStream, { prepare, onGone }: OutputOptions): OutputStream {
  stream.on("error", (error) => {
    if (isGone(error)) onGone();
  });
  return {
    isTerminal: stream.isTTY === true,
    size: () => ({ columns: stream.columns || COLUMNS_DEFAULT, rows: stream.rows || ROWS_DEFAULT }),
    write: (text) =>
      new Promise((resolve, reject) => {
        stream.write(prepare(text), (error) => {
          if (!error || isGone(error) || stream === process.stderr) return resolve();
          // A result that got lost (a full disk behind `>`) is no success.
          const message = `cannot write to standard output: ${describeError(error)}`;
          return reject(new NixdeployError("host", message, { cause: error }));
        });
      }),
  };
}

/** Whether the reader went away: that is its right. */
function isGone(error: Error): boolean {
  return "code" in error && error.code === "EPIPE";
}

type ContextParts = {
  readonly common: CommonValues;
  readonly stop: AbortController;
  readonly signalListeners: Set<SignalListener>;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly workflow: WorkflowLog | null;
};

function createContext({ common, stop, signalListeners, stdout, stderr, workflow }: ContextParts): CommandContext {
  return {
    signal: stop.signal,
    onSignal: (listener) => {
      signalListeners.add(listener);
      return { [Symbol.dispose]: () => signalListeners.delete(listener) };
    },
    stdout,
    stderr,
    workflow,
    readStdin: () => Bun.stdin.stream(),
    // Whoever does not ask leaves standard input alone, which a program that is run may want to read.
    askSecret: isatty(0) ? (prompt, signal) => createSecretPrompt(process.stdin, stderr)(prompt, signal) : null,
    log: createStderrLogger(common, stderr),
    logFormat: common.logFormat,
    env: { ...process.env },
    clock: systemClock,
    random: systemRandom,
    json: common.json,
    urlFlag: common.url,
    verbose: common.verbose,
  };
}

function createStderrLogger({ verbose, logFormat }: CommonValues, stderr: OutputStream): Logger {
  return createLogger({ verbose, format: logFormat, write: (line) => void stderr.write(`${line}\n`) });
}

type FailureReport = {
  readonly error: unknown;
  readonly common: CommonValues;
  readonly signal: AbortSignal;
  readonly stderr: OutputStream;
};

/** Prints what went wrong and returns the exit code for it. */
async function reportFailure({ error, common, signal, stderr }: FailureReport): Promise<number> {
  const failure = describeFailure(error, signal);
  if (signal.reason instanceof OutputClosedError) {
    return toExitCode("refused");
  }
  const causes = common.verbose ? listCauses(error) : [];
  if (common.logFormat === "json") {
    const { message, hint, details } = failure;
    const time = new Date(systemClock.nowMs()).toISOString();
    await stderr.write(`${formatJson({ time, level: "error", message, hint, details, causes })}\n`);
  } else {
    await stderr.write(formatFailure(failure, NIXDEPLOY_VERSION) + causes.map((text) => `cause: ${text}\n`).join(""));
  }
  return failure.exitCode;
}
