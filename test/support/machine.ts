/**
 * A machine of its own on this one: a long-lived mount and UTS namespace in which /nix, /run, /boot and
 * /var/lib/nixdeploy are folders of one directory, so that two machines share neither store nor running system. It has a
 * boot id of its own, too. Everything else, the network included, is the host's.
 *
 * What runs inside is recognised by its UTS namespace, however it was started (daemons, orphans, own sessions), so
 * nothing survives the machine and nothing that is not ours is ever signalled. (Not by the mount namespace: Nix, as
 * root, makes itself a private one.) When the test process itself is killed, the holder's standard input ends and it
 * kills the rest.
 *
 * Does not isolate processes or network: process ids are the host's, which is what lets tests kill by id.
 */
import { readdirSync, readlinkSync } from "node:fs";
import { lstat, mkdir, readlink, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { becomeUser, homeOf, type MachineUser, planOpenWay, prepareUsers } from "./machine-users.ts";
import { ensureNix, NIX_CONF, type Nix } from "./nix.ts";
import {
  baseEnvironment,
  checkResult,
  type RunOptions,
  type RunResult,
  runProcess,
  type SpawnedProcess,
  spawnProcess,
} from "./processes.ts";
import { waitFor } from "./wait-for.ts";

export type MachineOptions = {
  /** Also its host name. */
  readonly name: string;
  /** Absolute; made if missing, kept when the machine is disposed: a machine made there again finds its disk. */
  readonly directory: string;
  /** Lines after the standard nix.conf, for example "trusted-public-keys = …". */
  readonly nixConf?: string;
  /** Default: `ensureNix()`. */
  readonly nix?: Nix;
  /** A folder of programs that come before all others; it must not be covered inside. */
  readonly programs?: string;
  /** People who are not root, known to the machine alone; default none. See `CommandOptions.user`. */
  readonly users?: readonly MachineUser[];
};

export type CommandOptions = {
  /** Added to the machine's own environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Working directory inside; default "/". */
  readonly cwd?: string;
  /** The name of one of the machine's users, who has no rights but his own and a home of his own. Default: root. */
  readonly user?: string;
};

/** `CommandOptions`, taken apart. */
type Inside = { readonly [K in keyof CommandOptions]?: CommandOptions[K] | undefined };

export type Machine = AsyncDisposable & {
  readonly name: string;
  readonly directory: string;
  readonly nix: Nix;
  /** What every command of root inside gets, and nothing else: PATH, HOME, NIX_CONF_DIR, XDG directories, its own. */
  readonly environment: Readonly<Record<string, string>>;
  /** The same for a user of the machine. */
  environmentOf(user: string): Readonly<Record<string, string>>;
  /** Runs to the end; a non-zero exit code is a result. Default time limit 60 s. */
  exec(command: readonly string[], options?: CommandOptions & Omit<RunOptions, "cwd">): Promise<RunResult>;
  /** Like `exec`, but throws with the output unless the exit code is 0; returns stdout without the last newline. */
  run(command: readonly string[], options?: CommandOptions & Omit<RunOptions, "cwd">): Promise<string>;
  /** Starts a process inside and returns at once; its `pid` is the real process. */
  spawn(command: readonly string[], options?: CommandOptions): SpawnedProcess;
  /** What to start outside so that `command` runs inside; with which environment is the caller's business. */
  enter(command: readonly string[], options?: Pick<CommandOptions, "cwd" | "user">): readonly string[];
  /** Where this process finds a file of the machine. Absolute symlinks met on the way are the host's: see `link`. */
  hostPath(path: string): string;
  /** Follows symlinks as the machine would and returns the end of the chain, or null if `path` does not exist. */
  link(path: string): Promise<string | null>;
  /** Process ids of everything that runs inside, the holder excepted. */
  processes(): number[];
  /** SIGKILL to everything inside; returns when all of it is gone. */
  killAll(): Promise<void>;
};

/** File of the machine's directory → where it is mounted inside. */
const FILE_MOUNTS = { "os-release": "/etc/os-release", "boot-id": "/proc/sys/kernel/random/boot_id" } as const;

/** Folder of the machine's directory → where it is mounted inside. */
const MOUNTS = {
  nix: "/nix",
  boot: "/boot",
  "var-lib-nixdeploy": "/var/lib/nixdeploy",
  run: "/run",
  // What the firmware keeps: a machine of its own has its own variables.
  firmware: "/sys/firmware",
} as const;

/**
 * $1 directory, $2 host name, $3 folders to cover, $4 folders to keep open below those, $5 pairs of source (in the
 * directory) and target; one a line, no spaces in any. Ends, killing what is left, when its input ends.
 */
const HOLDER = `
set -eu
directory=$1; hostname "$2"; covered=$3; kept=$4; mounts=$5
if [ -n "$covered" ]; then
  set -- $kept
  exec 3<"$1" 4<"$2" 5<"$3"
  for folder in $covered; do mount --no-mtab -t tmpfs -o mode=755 none "$folder"; done
  mkdir -p "$@"
  descriptor=3
  for folder; do
    mount --no-mtab --no-canonicalize --bind "/proc/self/fd/$descriptor" "$folder"
    descriptor=$((descriptor + 1))
  done
  exec 3<&- 4<&- 5<&-
fi
set -- $mounts
while [ $# -gt 0 ]; do mount --no-mtab --bind "$directory/$1" "$2"; shift 2; done
trap '' INT TERM HUP
echo ready
read -r _ || :
mine=$(readlink /proc/$$/ns/uts | tr -d '[:alpha:][:punct:]')
while :; do
  left=
  for link in $(find /proc/[0-9]*/ns/uts -maxdepth 0 -lname "uts:?$mine?" 2>/dev/null); do
    id=\${link#/proc/}; id=\${id%/ns/uts}
    if [ "$id" != $$ ] && kill -9 "$id" 2>/dev/null; then left=1; fi
  done
  [ -n "$left" ] || break
done
`;

/**
 * Makes the namespace. Needs root; leaves behind on the host only empty mount points (/nix, /boot, /var/lib/nixdeploy).
 * @throws Error if not root, or if a mount fails
 */
export async function createMachine(options: MachineOptions): Promise<Machine> {
  const { name, directory, users = [], programs } = options;
  if (process.getuid?.() !== 0) {
    throw new Error(`cannot make machine ${name}: mount namespaces over /nix need root, run this as root`);
  }
  const nix = options.nix ?? (await ensureNix());
  await prepareDirectory(directory, NIX_CONF + (options.nixConf ?? ""));
  await prepareUsers(directory, users);
  const holder = await startHolder(options);
  const environment = describeEnvironment({ home: join(directory, "home"), user: "root", directory, nix, programs });
  const environmentOf = (user: string) =>
    describeEnvironment({ home: homeOf(user, directory), user, directory, nix, programs });
  const namespace = readlinkSync(`/proc/${holder.pid}/ns/uts`);

  const enter = (command: readonly string[], { cwd = "/", user }: Inside = {}) => [
    "nsenter",
    // With --root, because entering a mount namespace alone would leave the chroot that we may be in.
    ...["--target", String(holder.pid), "--mount", "--uts", "--root", `--wdns=${cwd}`, "--"],
    ...(user === undefined ? [] : becomeUser(users, user)),
    ...command,
  ];
  const environmentFor = ({ user, env }: Inside) => ({
    ...(user === undefined ? environment : environmentOf(user)),
    ...env,
  });
  const hostPath = (path: string) => join(`/proc/${holder.pid}/root`, path);
  // The kernel gives the number of a namespace that is gone to the next one, which may be another test's machine: only
  // while the holder lives is the number ours.
  const isHeld = () => holder.exitCode === null && holder.signalCode === null;
  const processes = () => (isHeld() ? findProcesses(namespace).filter((id) => id !== holder.pid) : []);
  const killAll = async () => {
    await waitFor(`everything on ${name} to be gone`, () => {
      const left = processes();
      for (const id of left) killQuietly(id);
      return left.length === 0;
    });
  };
  const exec: Machine["exec"] = (command, { cwd, user, env, ...rest } = {}) =>
    runProcess(enter(command, { cwd, user }), { ...rest, env: environmentFor({ user, env }) });

  return {
    name,
    directory,
    nix,
    environment,
    environmentOf,
    enter,
    exec,
    run: async (command, runOptions) => checkResult([`[${name}]`, ...command], await exec(command, runOptions)),
    spawn: (command, inside = {}) => spawnProcess(enter(command, inside), { env: environmentFor(inside) }),
    hostPath,
    link: (path) => followLinks(path, hostPath),
    processes,
    killAll,
    [Symbol.asyncDispose]: async () => {
      await killAll();
      holder.kill("SIGKILL");
      await holder.exited;
    },
  };
}

async function prepareDirectory(directory: string, nixConf: string): Promise<void> {
  for (const folder of [...Object.keys(MOUNTS), "etc-nix", "home", "nix/store"]) {
    await mkdir(join(directory, folder), { recursive: true });
  }
  await writeFile(join(directory, "etc-nix/nix.conf"), nixConf);
  // Activation scripts look here to see whether this is NixOS. Mounted over the host's file inside only.
  await writeFile(join(directory, "os-release"), 'ID=nixos\nNAME=NixOS\nPRETTY_NAME="NixOS look-alike"\n');
  await writeBootId(directory);
  for (const mountPoint of Object.values(MOUNTS)) await mkdir(mountPoint, { recursive: true });
}

/** Another boot has begun. */
export async function writeBootId(directory: string): Promise<void> {
  await writeFile(join(directory, "boot-id"), `${crypto.randomUUID()}\n`);
}

async function startHolder(options: MachineOptions): Promise<Bun.Subprocess<"pipe", "pipe", "pipe">> {
  const { name, directory, users = [] } = options;
  const hasUsers = users.length > 0;
  const files = hasUsers ? ["passwd", "/etc/passwd", "group", "/etc/group"] : [];
  const mounts = [...Object.entries(MOUNTS), ...Object.entries(FILE_MOUNTS)].flat().concat(files);
  const way = hasUsers ? await planOpenWay(directory) : { covered: [], kept: [] };
  const lists = [way.covered, way.kept, mounts].map((list) => list.join("\n"));
  const command = ["unshare", "--mount", "--uts", "--propagation", "private", "/bin/sh", "-c", HOLDER, "holder"];
  const holder = Bun.spawn([...command, directory, name, ...lists], {
    env: baseEnvironment(),
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  });
  const { value } = await holder.stdout.getReader().read();
  if (value === undefined) {
    throw new Error(`cannot make machine ${name}: ${await new Response(holder.stderr).text()}`);
  }
  return holder;
}

function describeEnvironment(options: {
  readonly home: string;
  readonly user: string;
  readonly directory: string;
  readonly nix: Nix;
  readonly programs: string | undefined;
}): Record<string, string> {
  const { home, user, directory, nix, programs } = options;
  return {
    PATH: `${programs === undefined ? "" : `${programs}:`}${nix.binDirectory}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: home,
    USER: user,
    NIX_CONF_DIR: join(directory, "etc-nix"),
    XDG_CACHE_HOME: join(home, ".cache"),
    XDG_CONFIG_HOME: join(home, ".config"),
    XDG_STATE_HOME: join(home, ".local/state"),
    XDG_DATA_HOME: join(home, ".local/share"),
  };
}

const LINKS_MAX = 40;

async function followLinks(path: string, hostPath: (path: string) => string): Promise<string | null> {
  let current = path;
  for (let hop = 0; hop < LINKS_MAX; hop += 1) {
    const stats = await lstat(hostPath(current)).catch(() => null);
    if (stats === null) return null;
    if (!stats.isSymbolicLink()) return current;
    current = resolve(dirname(current), await readlink(hostPath(current)));
  }
  throw new Error(`cannot follow ${path}: more than ${LINKS_MAX} symlinks`);
}

function findProcesses(namespace: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((id) => {
      try {
        return readlinkSync(`/proc/${id}/ns/uts`) === namespace;
      } catch {
        return false; // Ended between the two looks, or a zombie.
      }
    })
    .map(Number);
}

function killQuietly(id: number): void {
  try {
    process.kill(id, "SIGKILL");
  } catch {
    // Ended by itself meanwhile.
  }
}
