/**
 * A real sshd on loopback inside a machine, and what a client needs to get in: a key, known hosts, and a configuration
 * that the ssh program is given by NIX_SSHOPTS. Nobody's own ~/.ssh is read or written.
 *
 * Debian's openssh-server is installed where it is missing, and not started as a service.
 */
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ensureDebianPackages } from "./debian.ts";
import { findFreePorts } from "./free-port.ts";
import type { Machine } from "./machine.ts";
import { runChecked, type SpawnedProcess } from "./processes.ts";

export type SshClient = {
  /** For the environment of whoever calls ssh. */
  readonly NIX_SSHOPTS: string;
};

export type SshServer = AsyncDisposable & {
  readonly port: number;
  /** ssh://USER@127.0.0.1:PORT */
  address(user: string): string;
  /** As messages have it. */
  name(user: string): string;
  readonly process: SpawnedProcess;
  /** Knows the host and has a key that it takes. */
  readonly client: SshClient;
  /** As `client`, with more lines of configuration before all others, or another set of known hosts or keys. */
  clientWith(changes: {
    readonly lines?: readonly string[];
    readonly knownHosts?: string;
    readonly hasKey?: boolean;
  }): Promise<SshClient>;
  stop(): Promise<void>;
  /** Again on the same port, with the same keys. */
  start(): Promise<void>;
};

export type SshServerOptions = {
  /** Users of the machine who may log in, besides root. */
  readonly users?: readonly string[];
  /** Comes first in everybody's PATH. */
  readonly path?: string;
  /** More lines of sshd_config. */
  readonly lines?: readonly string[];
};

export async function startSshServer(machine: Machine, options: SshServerOptions = {}): Promise<SshServer> {
  await ensureDebianPackages(["openssh-server", "openssh-client"]);
  const [port = 0] = await findFreePorts(1);
  const directory = join(machine.directory, "sshd");
  await mkdir(directory, { recursive: true });
  await chmod(directory, 0o755);
  for (const name of ["host_key", "client_key"]) {
    await runChecked(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", join(directory, name)]);
  }
  const hostKey = (await readFile(join(directory, "host_key.pub"), "utf8")).trim();
  await writeFile(join(directory, "known_hosts"), `[127.0.0.1]:${port} ${hostKey}\n`);
  await writeFile(join(directory, "sshd_config"), describeServer({ port, directory, machine, options }));
  await machine.run(["mkdir", "-p", "/run/sshd"]);

  let count = 0;
  const clientWith: SshServer["clientWith"] = async ({ lines = [], knownHosts = "known_hosts", hasKey = true }) => {
    const file = join(directory, `client-${count}`);
    count += 1;
    const own = [
      `UserKnownHostsFile ${join(directory, knownHosts)}`,
      "GlobalKnownHostsFile /dev/null",
      "StrictHostKeyChecking yes",
      `IdentityFile ${hasKey ? join(directory, "client_key") : "/nonexistent"}`,
      "IdentitiesOnly yes",
    ];
    await writeFile(file, `${[...lines, ...own].join("\n")}\n`);
    return { NIX_SSHOPTS: `-F ${file}` };
  };
  const launch = async () => {
    const server = machine.spawn(["/usr/sbin/sshd", "-D", "-e", "-f", join(directory, "sshd_config")]);
    await server.waitForLine(/Server listening on/);
    return server;
  };
  let process = await launch();
  const stop = async () => {
    await process.stop();
  };
  return {
    port,
    address: (user) => `ssh://${user}@127.0.0.1:${port}`,
    name: (user) => `${user}@127.0.0.1:${port}`,
    get process() {
      return process;
    },
    client: await clientWith({}),
    clientWith,
    stop,
    async start() {
      process = await launch();
    },
    [Symbol.asyncDispose]: stop,
  };
}

function describeServer(server: {
  readonly port: number;
  readonly directory: string;
  readonly machine: Machine;
  readonly options: SshServerOptions;
}): string {
  const { port, directory, machine, options } = server;
  const setEnvironment = (environment: Readonly<Record<string, string>>) => {
    const path = options.path === undefined ? environment["PATH"] : `${options.path}:${environment["PATH"]}`;
    const all = Object.entries({ ...environment, PATH: path });
    return `SetEnv ${all.map(([name, value]) => `${name}=${value}`).join(" ")}`;
  };
  return [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${join(directory, "host_key")}`,
    "PidFile none",
    `AuthorizedKeysFile ${join(directory, "client_key.pub")}`,
    "StrictModes no",
    "UsePAM no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "PermitRootLogin yes",
    ...(options.lines ?? []),
    "Match User root",
    setEnvironment(machine.environment),
    ...(options.users ?? []).flatMap((user) => [`Match User ${user}`, setEnvironment(machine.environmentOf(user))]),
    "",
  ].join("\n");
}
