/**
 * A machine on which systemd is PID 1: a container of nspawn over the host's own tree, with a temporary layer above it,
 * and with /nix, /boot, /var/lib/nixdeploy and /var/lib/private (state of services with `DynamicUser=`) on a "disk": the
 * folders of a machine (machine.ts), which outlive it.
 *
 * Booting runs what the boot loader's default names, as a boot does: its `init` activates, and becomes systemd
 * (test/fixtures/nix/system/init-systemd.sh). A power cut is SIGKILL to PID 1, upon which the kernel kills everything
 * else; what was written stays, as with a kernel that lives (no cache is lost). Each boot has a boot id of its own.
 *
 * Shares the host's network and kernel. When the test process is killed, the kernel kills the box with it.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Disk, readBootDefault, takeBoot } from "./boot-firmware.ts";
import { ensureDebianPackages } from "./debian.ts";
import { NIX_CONF } from "./nix.ts";
import {
  checkResult,
  type RunOptions,
  type RunResult,
  runProcess,
  type SpawnedProcess,
  spawnProcess,
} from "./processes.ts";
import { waitFor } from "./wait-for.ts";

export type SystemdBoxOptions = {
  /** Also its host name. */
  readonly name: string;
  /** Absolute; of a device (device.ts) that was installed there. Kept. */
  readonly directory: string;
  /** Host file → where it is inside, read-only. */
  readonly files: Readonly<Record<string, string>>;
};

export type SystemdBox = AsyncDisposable & {
  readonly name: string;
  readonly directory: string;
  /** Switches it on; returns when services can be started; some may still be starting. @throws Error with the console when it does not */
  boot(): Promise<void>;
  /** `systemctl reboot`, and the boot after it. */
  reboot(): Promise<void>;
  /** Waits until it goes down by itself, and boots it. */
  awaitReboot(): Promise<void>;
  /** Everything inside is gone at once. */
  powerCut(): Promise<void>;
  /** Runs to the end, as root, in no unit; a non-zero exit code is a result. */
  exec(command: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Like `exec`, but throws with the output unless the exit code is 0; returns stdout without the last newline. */
  run(command: readonly string[], options?: RunOptions): Promise<string>;
  /** One property of a unit, as `systemctl show` prints it. */
  unit(name: string, property: string): Promise<string>;
  /** Where this process finds a file of a box that is on. Absolute symlinks met on the way are the host's. */
  hostPath(path: string): string;
  /** Where this process finds a file of the disk, also while it is off. */
  diskPath(path: string): string;
  /** The store path that the next boot would boot. */
  bootDefault(): Promise<string>;
  /** What systemd printed, and the journal of this boot; for error messages. */
  describe(): Promise<string>;
};

/** Folder of the directory → where it is mounted inside. */
const DISK = {
  nix: "/nix",
  boot: "/boot",
  "var-lib-nixdeploy": "/var/lib/nixdeploy",
  "var-lib-private": "/var/lib/private",
  firmware: "/sys/firmware",
} as const;
/** Tells the fixture that it may replace /etc/systemd/system. */
const MARK = "/etc/NIXOS";
/** cgroup v1 with systemd's own hierarchy, the hybrid, and v2. */
const CGROUP_ROOTS = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"] as const;
const BOOT_MAX_MS = 30_000;
const REBOOT_MAX_MS = 60_000;

/** $1 cgroups to enter, one a line; $2 mount point of the tree; then the command. */
const ENTER = `
for group in $1; do echo $$ > "$group/cgroup.procs"; done
mount --bind / "$2"
shift 2
exec setpriv --pdeathsig KILL "$@"
`;

/** Needs root and installs what is missing. The box is off. */
export async function createSystemdBox(options: SystemdBoxOptions): Promise<SystemdBox> {
  await ensureDebianPackages(["systemd-container", "systemd", "dbus"]);
  const { name, directory } = options;
  const root = join(directory, "root");
  await mkdir(root, { recursive: true });
  await writeFile(join(directory, "nixos"), "");
  await mkdir(join(directory, "etc-nix"), { recursive: true });
  await mkdir(join(directory, "var-lib-private"), { recursive: true, mode: 0o700 });
  await writeFile(join(directory, "etc-nix/nix.conf"), NIX_CONF);
  const groups = CGROUP_ROOTS.filter((path) => existsSync(join(path, "cgroup.procs"))).map((path) =>
    join(path, `nixdeploy-${name}-${process.pid}-${crypto.randomUUID().slice(0, 8)}`),
  );
  for (const group of groups) await mkdir(group, { recursive: true });
  const disk: Disk = { boot: join(directory, "boot"), firmware: join(directory, "firmware") };
  let running: { readonly container: SpawnedProcess; readonly leader: number } | null = null;

  const exec: SystemdBox["exec"] = async (command, runOptions) => {
    if (running === null) throw new Error(`cannot run ${command.join(" ")}: ${name} is off`);
    return await runProcess(["nsenter", "--target", String(running.leader), "--all", "--", ...command], {
      ...runOptions,
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", HOME: "/root", ...runOptions?.env },
    });
  };
  const run: SystemdBox["run"] = async (command, runOptions) =>
    checkResult([`[${name}]`, ...command], await exec(command, runOptions));

  const boot = async () => {
    if (running !== null) throw new Error(`cannot boot ${name}: it is on`);
    const system = await takeBoot(disk);
    if (system === null) throw new Error(`cannot boot ${name}: nothing is installed in /boot`);
    const enter = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-euc", ENTER, "enter"];
    const container = spawnProcess([
      ...enter,
      groups.join("\n"),
      root,
      ...describeContainer(options, { root, system }),
    ]);
    const leader = await waitFor(`systemd to be PID 1 of ${name}`, () => findLeader(container), {
      timeoutMs: BOOT_MAX_MS,
      describe: container.output,
    });
    running = { container, leader };
    await waitFor(`${name} to be up`, () => exec(["systemctl", "is-active", "basic.target"]), {
      timeoutMs: BOOT_MAX_MS,
      until: (result) => result.exitCode === 0,
      describe: container.output,
    });
  };
  const ended = async () => {
    await running?.container.exited;
    running = null;
  };
  const awaitReboot = async () => {
    const down = running?.container.exited.then(() => true);
    await waitFor(`${name} to go down`, () => Promise.race([down, Bun.sleep(100).then(() => false)]), {
      timeoutMs: REBOOT_MAX_MS,
      until: (isDown) => isDown === true,
    });
    running = null;
    await boot();
  };
  const powerCut = async () => {
    if (running === null) return;
    process.kill(running.leader, "SIGKILL");
    await ended();
  };
  return {
    name,
    directory,
    boot,
    async reboot() {
      await exec(["systemctl", "--no-block", "reboot"]);
      await ended();
      await boot();
    },
    awaitReboot,
    powerCut,
    exec,
    run,
    unit: (unit, property) => run(["systemctl", "show", `--property=${property}`, "--value", unit]),
    hostPath: (path) => join(`/proc/${running?.leader}/root`, path),
    diskPath: (path) => toDiskPath(path, directory),
    bootDefault: async () => (await readBootDefault(disk)) ?? "nothing",
    async describe() {
      const journal =
        running === null ? "" : (await exec(["journalctl", "--boot", "--no-pager", "--lines=200"])).stdout;
      return `${running?.container.output() ?? ""}\n${journal}`;
    },
    async [Symbol.asyncDispose]() {
      await powerCut();
      for (const group of groups) await removeGroup(group);
      await rm(root, { recursive: true, force: true });
    },
  };
}

function describeContainer(
  { name, directory, files }: SystemdBoxOptions,
  { root, system }: { readonly root: string; readonly system: string },
): string[] {
  return [
    ...["systemd-nspawn", "--quiet", `--directory=${root}`, "--volatile=overlay", `--machine=${name}`],
    // No machined and no systemd outside is asked for anything.
    ...["--register=no", "--keep-unit", "--link-journal=no", "--console=pipe", "--kill-signal=SIGRTMIN+3"],
    ...Object.entries(DISK).map(([folder, target]) => `--bind=${join(directory, folder)}:${target}`),
    `--bind-ro=${join(directory, "nixos")}:${MARK}`,
    `--bind-ro=${join(directory, "etc-nix")}:/etc/nix`,
    ...Object.entries(files).map(([source, target]) => `--bind-ro=${source}:${target}`),
    `${system}/init`,
  ];
}

/** PID 1 of the container, once it is systemd; null before. */
async function findLeader({ pid }: SpawnedProcess): Promise<number | null> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  const leader = Number(children.trim().split(" ")[0]);
  if (!(leader > 0)) return null;
  return (await readFile(`/proc/${leader}/comm`, "utf8")).trim() === "systemd" ? leader : null;
}

function toDiskPath(path: string, directory: string): string {
  for (const [folder, target] of Object.entries(DISK)) {
    if (path.startsWith(`${target}/`)) return join(directory, folder, path.slice(target.length));
  }
  throw new Error(`${path} is not on the disk of a box`);
}

/** The kernel empties it a moment after the last process. */
async function removeGroup(group: string): Promise<void> {
  const remove = ["find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"];
  await waitFor(`${group} to be empty`, async () => {
    await runProcess(remove);
    return !existsSync(group);
  });
}
