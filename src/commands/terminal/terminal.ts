/** Questions to whoever sits at the terminal, while standard input may be a pipe with something else in it. */
import { spawn } from "node:child_process";
import { type FileHandle, open } from "node:fs/promises";
import type { CommandContext } from "../command-line/context.ts";

/** @returns what was typed, without the end of line; null when there is no terminal, or nothing came */
export async function askLine(context: Pick<CommandContext, "stderr">, question: string): Promise<string | null> {
  if (!context.stderr.isTerminal) return null;
  await using terminal = await openTerminal();
  if (terminal === null) return null;
  await context.stderr.write(question);
  return await readLine(terminal);
}

/** Anything but a yes is a no; null when nobody can be asked. */
export async function askYes(context: Pick<CommandContext, "stderr">, question: string): Promise<boolean | null> {
  const answer = await askLine(context, `${question} [y/N] `);
  return answer === null ? null : /^y(es)?$/i.test(answer.trim());
}

/** What is typed is not shown; null when nobody can be asked. */
export async function askSecretLine(context: Pick<CommandContext, "stderr">, question: string): Promise<string | null> {
  if (!context.stderr.isTerminal) return null;
  await using terminal = await openTerminal();
  if (terminal === null) return null;
  await context.stderr.write(question);
  await setEcho(terminal, "-echo");
  try {
    return await readLine(terminal);
  } finally {
    await setEcho(terminal, "echo");
    await context.stderr.write("\n");
  }
}

async function setEcho(terminal: FileHandle, mode: "echo" | "-echo"): Promise<void> {
  const child = spawn("stty", [mode], { stdio: [terminal.fd, "ignore", "ignore"] });
  await new Promise<void>((resolve) => {
    child.once("close", () => resolve());
    // Without stty the line is shown, which is better than no way to type it.
    child.once("error", () => resolve());
  });
}

async function openTerminal(): Promise<FileHandle | null> {
  try {
    return await open("/dev/tty", "r");
  } catch {
    // No terminal: a service, CI, cron.
    return null;
  }
}

const LINE_MAX_BYTES = 4_096;

async function readLine(terminal: FileHandle): Promise<string | null> {
  const { bytesRead, buffer } = await terminal.read(Buffer.alloc(LINE_MAX_BYTES), 0, LINE_MAX_BYTES, null);
  return bytesRead === 0 ? null : buffer.toString("utf8", 0, bytesRead).replace(/\r?\n$/, "");
}
