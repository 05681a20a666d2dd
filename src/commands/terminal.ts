/** Questions to whoever sits at the terminal, while standard input may be a pipe with something else in it. */
import { type FileHandle, open } from "node:fs/promises";
import type { CommandContext } from "./context.ts";

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
