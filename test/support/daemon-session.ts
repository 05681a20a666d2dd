/**
 * Our own daemon client (src/nix/daemon), outside a machine, in session with the real daemon inside it: either way,
 * and as root or as one of the machine's users.
 */
import { closeSync, constants, openSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { connectDaemon } from "../../src/nix/daemon/connect.ts";
import type { DaemonConnection } from "../../src/nix/daemon/connection.ts";
import type { Machine } from "./machine.ts";
import type { MachineUser } from "./machine-users.ts";
import { DAEMON_SOCKET } from "./nix-daemon.ts";

export type Via = "socket" | "stdio";

export type DaemonSessionOptions = {
  readonly via: Via;
  /** Default: root. */
  readonly user?: MachineUser;
  readonly signal?: AbortSignal;
};

export async function openDaemonSession(machine: Machine, options: DaemonSessionOptions): Promise<DaemonConnection> {
  const { via, user, signal = new AbortController().signal } = options;
  if (via === "stdio") {
    return await connectDaemon({ signal, via, environment: await prepareStdioEnvironment(machine, user) });
  }
  if (user === undefined) {
    return await connectDaemon({ signal, via, socketPath: machine.hostPath(DAEMON_SOCKET), environment: {} });
  }
  // By its folder's descriptor, because the way to the machine's folder is open to root alone.
  const folder = openSync(machine.hostPath(dirname(DAEMON_SOCKET)), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const socketPath = `/proc/self/fd/${folder}/${basename(DAEMON_SOCKET)}`;
    return await asUser(user, () => connectDaemon({ signal, via, socketPath, environment: {} }));
  } finally {
    closeSync(folder);
  }
}

/** Variables whose PATH begins with a `nix-daemon` that runs the real one inside the machine. */
export async function prepareStdioEnvironment(machine: Machine, user?: MachineUser): Promise<Record<string, string>> {
  const folder = join(machine.directory, `program-${user?.name ?? "root"}`);
  const environment = user === undefined ? machine.environment : machine.environmentOf(user.name);
  const command = machine.enter(["nix-daemon"], user === undefined ? {} : { user: user.name });
  await mkdir(folder, { recursive: true });
  const run = `${command.map((word) => `'${word}'`).join(" ")} "$@"`;
  // Nix 2.8 can relay to its daemon only between pipes, and our child's streams are sockets. Where `auto` decides, it
  // takes the daemon's socket itself and relays nothing.
  const program = user === undefined ? `exec ${run}` : `exec 3<&0; cat <&3 | ${run} | cat & exec >&-; wait $!`;
  await writeFile(join(folder, "nix-daemon"), `#!/bin/sh\nPATH='${environment["PATH"]}'\n${program}\n`);
  await chmod(join(folder, "nix-daemon"), 0o755);
  return { ...environment, PATH: `${folder}:/usr/bin:/bin` };
}

/** This whole process is `user` until `work` is done: whoever is at the other end of a socket sees who connected. */
async function asUser<T>(user: MachineUser, work: () => Promise<T>): Promise<T> {
  const { setegid, seteuid } = process;
  if (setegid === undefined || seteuid === undefined) throw new Error("cannot become another user on this system");
  setegid(user.id);
  seteuid(user.id);
  try {
    return await work();
  } finally {
    seteuid(0);
    setegid(0);
  }
}
