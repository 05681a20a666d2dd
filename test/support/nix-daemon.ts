/**
 * A real nix-daemon inside a machine, as systemd's socket unit would have it.
 */
import { connect } from "node:net";
import type { Machine } from "./machine.ts";
import type { SpawnedProcess } from "./processes.ts";
import { waitFor } from "./wait-for.ts";

export const DAEMON_SOCKET = "/nix/var/nix/daemon-socket/socket";

export type NixDaemon = AsyncDisposable & {
  readonly process: SpawnedProcess;
  /** The socket as this process reaches it, from outside the machine. */
  readonly hostSocketPath: string;
};

/**
 * Starts it and waits until its socket accepts.
 * @throws Error with the daemon's output if it does not
 */
export async function startNixDaemon(
  machine: Machine,
  options: { env?: Readonly<Record<string, string>> } = {},
): Promise<NixDaemon> {
  // Two first connections to a new store would both make its database, and one of them would be hung up on.
  await machine.run(["nix-store", "--init"], { env: { ...options.env, NIX_REMOTE: "local" } });
  const daemon = machine.spawn(["nix-daemon"], options);
  const hostSocketPath = machine.hostPath(DAEMON_SOCKET);
  try {
    await waitFor("nix-daemon to accept", () => accepts(hostSocketPath), { describe: daemon.output });
  } catch (error) {
    await daemon[Symbol.asyncDispose]();
    throw error;
  }
  return { process: daemon, hostSocketPath, [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose]() };
}

function accepts(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
