/**
 * Runs a program in our place: with our standard streams, our environment and the signals that we get. For commands that
 * do something beside a program of the user's.
 */
import { constants } from "node:os";
import { isatty } from "node:tty";
import { describeError, NixdeployError } from "../errors.ts";
import type { CommandContext } from "./command-line/context.ts";

export type Child = {
  /** Resolves when it has ended: its exit code; 128 and the signal's number for one that a signal ended, as shells say it. */
  readonly exited: Promise<number>;
};

const SIGNALLED = 128;
const STDERR = 2;

/** @throws NixdeployError "usage" when there is no such program, or it cannot be executed */
export function startChild(
  words: readonly string[],
  context: Pick<CommandContext, "env" | "onSignal" | "json">,
): Child {
  const [program = "", ...args] = words;
  const file = Bun.which(program, { PATH: context.env["PATH"] ?? "" });
  if (file === null) {
    throw new NixdeployError("usage", `cannot run ${JSON.stringify(program)}: there is no such program`, {
      hint: "What comes behind `--` is a program and its arguments; for a shell's line: -- sh -c '…'",
    });
  }
  let child: Bun.Subprocess;
  try {
    child = Bun.spawn([file, ...args], {
      argv0: program,
      env: { ...context.env },
      // Our result goes to standard output then, alone.
      stdio: ["inherit", context.json ? STDERR : "inherit", "inherit"],
    });
  } catch (cause) {
    throw new NixdeployError("usage", `cannot run ${program}: ${describeError(cause)}`, { cause });
  }
  const forwarding = context.onSignal((signal) => {
    // Ctrl-C reaches everything at the terminal by itself.
    if (signal === "SIGINT" && isatty(0)) return;
    child.kill(signal);
  });
  const exited = child.exited.then(() => {
    forwarding[Symbol.dispose]();
    return child.signalCode === null ? (child.exitCode ?? 1) : SIGNALLED + numberOf(child.signalCode);
  });
  return { exited };
}

/** By its name, or a number already: one that has no name, such as the real-time ones. */
function numberOf(signal: NodeJS.Signals | number): number {
  return typeof signal === "number" ? signal : (constants.signals[signal] ?? 0);
}
