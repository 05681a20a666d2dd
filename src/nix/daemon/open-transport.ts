/**
 * The ways to a Nix daemon: its socket, or a `nix-daemon --stdio` of our own, which serves the local store where
 * no daemon runs (and relays to the socket where this user may not open the store), or any program between the two.
 * node:net and node:child_process, not Bun's own: those close both directions at once and buffer without limit.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createConnection } from "node:net";
import { systemClock } from "../../runtime.ts";
import { StreamTransport, type Transport } from "./transport.ts";

export const STDIO_PEER = "`nix-daemon --stdio`";

const LAST_WORDS_MAX_CHARACTERS = 4096;
const CHILD_EXIT_MS = 2_000;

/** Where Nix puts the program when it is not on the PATH (services often have a short one). */
const DAEMON_PROGRAMS = [
  "nix-daemon",
  "/run/current-system/sw/bin/nix-daemon",
  "/nix/var/nix/profiles/default/bin/nix-daemon",
];

/** @throws the system's error (`code` ENOENT, ECONNREFUSED, EACCES …) · the signal's reason */
export async function openSocketTransport(options: {
  readonly socketPath: string;
  readonly signal: AbortSignal;
}): Promise<Transport> {
  const socket = createConnection({ path: options.socketPath });
  try {
    await once(socket, "connect", { signal: options.signal });
  } catch (error) {
    socket.destroy();
    throw options.signal.aborted ? options.signal.reason : error;
  }
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  return new StreamTransport({
    peer: options.socketPath,
    readable: socket,
    writable: socket,
    finished: () => closed,
  });
}

/** @throws the system's error of the last program tried, when none can be started · the signal's reason */
export async function openStdioTransport(options: {
  readonly signal: AbortSignal;
  readonly environment: NodeJS.ProcessEnv;
}): Promise<Transport> {
  let failure: unknown = null;
  for (const program of DAEMON_PROGRAMS) {
    options.signal.throwIfAborted();
    try {
      return await openProgramTransport({ ...options, peer: STDIO_PEER, command: [program, "--stdio"] });
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}

/**
 * A program whose standard streams lead to a daemon, wherever that is.
 * @throws the system's error when it cannot be started
 */
export async function openProgramTransport(options: {
  readonly peer: string;
  readonly command: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
}): Promise<Transport> {
  const [program = "", ...args] = options.command;
  const child = spawn(program, args, { stdio: "pipe", env: options.environment });
  await once(child, "spawn");
  const { stdin, stdout, stderr } = child;
  let lastWords = "";
  stderr.setEncoding("utf8").on("data", (text) => {
    lastWords = `${lastWords}${String(text)}`.slice(-LAST_WORDS_MAX_CHARACTERS);
  });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  return new StreamTransport({
    peer: options.peer,
    readable: stdout,
    writable: stdin,
    lastWords: () => lastWords,
    finished: () => endChild(child, exited),
  });
}

/** The end of its input makes a daemon exit by itself; one that does not is stopped. */
async function endChild(child: ChildProcess, exited: Promise<void>): Promise<void> {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const timer = new AbortController();
    const timeUp = systemClock.sleep(CHILD_EXIT_MS, timer.signal).then(
      () => child.kill(signal),
      () => {
        // The child was faster.
      },
    );
    await Promise.race([exited, timeUp]);
    timer.abort();
    if (child.exitCode !== null || child.signalCode !== null) return;
  }
  await exited;
}
