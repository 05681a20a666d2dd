/**
 * Runs a command line in this process as `main.ts` does, with streams that are kept: for tests of commands that need
 * no process of their own.
 */
import type { CommandContext, OutputStream } from "../../src/commands/command-line/context.ts";
import { describeFailure, formatFailure } from "../../src/commands/command-line/format-failure.ts";
import { resolveRequest } from "../../src/commands/root.ts";
import { neutralizeWorkflowCommands } from "../../src/commands/terminal/workflow-commands.ts";
import { ProgramEnded } from "../../src/errors.ts";
import { createLogger } from "../../src/log.ts";
import { type Random, systemClock, systemRandom } from "../../src/runtime.ts";

export type RunCommandOptions = {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  readonly signal?: AbortSignal;
  readonly isTerminal?: boolean;
};

export type CommandResult = { readonly exitCode: number; readonly stdout: string; readonly stderr: string };

export type RunningCommand = {
  readonly result: Promise<CommandResult>;
  /** What has been printed so far. */
  stdout(): string;
  stderr(): string;
};

/** Waits between two tries are a hundredth of what they may be. */
export const impatientRandom: Random = { bytes: systemRandom.bytes, fraction: () => 0.01 };

export function startCommand(words: readonly string[], options: RunCommandOptions = {}): RunningCommand {
  const signal = options.signal ?? new AbortController().signal;
  const isTerminal = options.isTerminal ?? false;
  let stdout = "";
  let stderr = "";
  const isWorkflow = options.env?.["GITHUB_ACTIONS"] === "true";
  const collect = (append: (text: string) => void): OutputStream => ({
    isTerminal,
    size: () => ({ columns: 100, rows: 24 }),
    write: async (text) => append(isWorkflow ? neutralizeWorkflowCommands(text) : text),
  });
  const run = async (): Promise<CommandResult> => {
    let exitCode = 0;
    try {
      const request = await resolveRequest({ words, version: "0.0.0" });
      if (request.kind !== "run") throw new Error(`nothing to run: ${words.join(" ")}`);
      const { json, url, verbose, logFormat } = request.common;
      const context: CommandContext = {
        signal,
        stdout: collect((text) => {
          stdout += text;
        }),
        stderr: collect((text) => {
          stderr += text;
        }),
        workflow: isWorkflow
          ? {
              write: async (text) => {
                stderr += text;
              },
            }
          : null,
        readStdin: () => new Blob([options.stdin ?? ""]).stream(),
        askSecret: null,
        onSignal: () => ({ [Symbol.dispose]: () => {} }),
        log: createLogger({
          verbose,
          format: logFormat,
          write: (line) => {
            stderr += `${isWorkflow ? neutralizeWorkflowCommands(line) : line}\n`;
          },
        }),
        logFormat,
        env: options.env ?? {},
        clock: systemClock,
        random: impatientRandom,
        json,
        urlFlag: url,
        verbose,
      };
      await request.run(context);
    } catch (error) {
      if (error instanceof ProgramEnded) return { exitCode: error.exitCode, stdout, stderr };
      const failure = describeFailure(error, signal);
      const text = formatFailure(failure, "0.0.0");
      stderr += isWorkflow ? neutralizeWorkflowCommands(text) : text;
      exitCode = failure.exitCode;
    }
    return { exitCode, stdout, stderr };
  };
  return { result: run(), stdout: () => stdout, stderr: () => stderr };
}

export function runCommand(words: readonly string[], options: RunCommandOptions = {}): Promise<CommandResult> {
  return startCommand(words, options).result;
}
