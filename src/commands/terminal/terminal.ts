/** Questions to whoever sits at the terminal, while standard input may be a pipe with something else in it. */
import { spawn } from "node:child_process";
import { type FileHandle, open } from "node:fs/promises";
import type { CommandContext } from "../command-line/context.ts";

type Asking = Pick<CommandContext, "stderr" | "signal">;

/** @returns what was typed, without the end of line; null when there is no terminal, or nothing came */
export async function askLine(context: Asking, question: string): Promise<string | null> {
  if (!context.stderr.isTerminal) return null;
  const terminal = await openTerminal();
  if (terminal === null) return null;
  await context.stderr.write(question);
  return await readLine(terminal, context.signal);
}

/** Anything but a yes is a no; null when nobody can be asked. */
export async function askYes(context: Asking, question: string): Promise<boolean | null> {
  const answer = await askLine(context, `${question} [y/N] `);
  return answer === null ? null : /^y(es)?$/i.test(answer.trim());
}

/** What is typed is not shown; null when nobody can be asked. */
export async function askSecretLine(context: Asking, question: string): Promise<string | null> {
  if (!context.stderr.isTerminal) return null;
  const terminal = await openTerminal();
  if (terminal === null) return null;
  await context.stderr.write(question);
  await setEcho(terminal, "-echo");
  const typed = readLine(terminal, context.signal);
  try {
    return await typed;
  } finally {
    await setEcho(null, "echo");
    await context.stderr.write("\n");
  }
}

/** @param terminal null: it is opened anew */
async function setEcho(terminal: FileHandle | null, mode: "echo" | "-echo"): Promise<void> {
  const handle = terminal ?? (await openTerminal());
  if (handle === null) return;
  const child = spawn("stty", [mode], { stdio: [handle.fd, "ignore", "ignore"] });
  await new Promise<void>((resolve) => {
    child.once("close", () => resolve());
    // Without stty the line is shown, which is better than no way to type it.
    child.once("error", () => resolve());
  });
  if (terminal === null) await handle.close();
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

/** Closes the terminal. @throws the signal's reason at once, although a read of a terminal cannot be stopped */
async function readLine(terminal: FileHandle, signal: AbortSignal): Promise<string | null> {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  const reading = terminal.read(Buffer.alloc(LINE_MAX_BYTES), 0, LINE_MAX_BYTES, null);
  // It may take until the next line, which nobody waits for after an interrupt.
  const closing = reading.finally(() => terminal.close()).catch(() => {});
  try {
    signal.throwIfAborted();
    const { bytesRead, buffer } = await Promise.race([reading, stopped]);
    await closing;
    return bytesRead === 0 ? null : buffer.toString("utf8", 0, bytesRead).replace(/\r?\n$/, "");
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
