/**
 * A whole machine: QEMU without KVM, Debian's kernel, ext4, and the host's tools as a root file system that is only read.
 * /nix, /boot and /var/lib/nixdeploy are three file systems on three disks, so that making one of them durable makes
 * nothing else durable. Booting runs what /boot/loader/default names (test/fixtures/virtual-machine/start.sh).
 *
 * A power cut is SIGKILL to QEMU, and what was not synced is gone:
 *
 * - What the guest's kernel held (page cache, the journal that is not committed) was memory of QEMU. The guest is told to
 *   write nothing back by itself, so it holds everything for which nobody asked.
 * - What the guest wrote and did not flush would be in the *host's* page cache, which a dead QEMU leaves as it is: a raw
 *   image has no volatile write cache to lose. So each boot writes to a new qcow2 layer above the disk as it was: a cluster
 *   is part of it once the table that names it is written, and QEMU keeps that table in its own memory until the guest
 *   flushes. A first write to a cluster that no flush followed is gone, too; a second one may stay, as on a real disk.
 *   `cache=unsafe` leaves that as it is and merely omits the host's fsync, since the host's kernel lives.
 *
 * After the cut the layer is merged into the disk, for the next boot. The guest has a network of its own, where the host
 * is 10.0.2.2. Not here: systemd (systemd-box.ts), another kernel or boot loader than Debian's by QEMU.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { findFreePorts } from "./free-port.ts";
import { checkResult, type RunResult, runChecked, type SpawnedProcess, spawnProcess } from "./processes.ts";
import { buildImage, buildInitramfs, buildRootImage, ensureKernel } from "./virtual-machine-image.ts";
import { waitFor } from "./wait-for.ts";

export type VirtualMachineOptions = {
  /** Also its host name, and the agent's. */
  readonly name: string;
  /** Absolute; of a device (device.ts) that was installed there, whose files become the disks. */
  readonly directory: string;
  /** Host file → where it is inside, read-only. */
  readonly files: Readonly<Record<string, string>>;
  readonly stateDirectory: string;
  readonly nixConf: string;
};

export type VirtualMachine = AsyncDisposable & {
  /** Returns when the system is up and commands can be run. @throws Error with the console when it is not */
  boot(): Promise<void>;
  /** What was not synced is lost. */
  powerCut(): Promise<void>;
  /** Waits for a line of the console, of this boot; those that are there count from `from` on. */
  waitForLine(pattern: RegExp, options?: { timeoutMs?: number; from?: number }): Promise<RegExpExecArray>;
  /** How many lines this boot has printed. */
  lineCount(): number;
  /** By a shell, as root; a non-zero exit code is a result. What it writes to stderr is in stdout. */
  exec(script: string): Promise<RunResult>;
  /** Like `exec`, but throws with the output unless the exit code is 0; returns the output without the last newline. */
  run(script: string): Promise<string>;
  /** The console of this boot; for error messages. */
  console(): string;
};

/** Folder of the directory → size of its disk; in the order in which the guest knows them, after the root. */
const DISKS = { nix: 512, boot: 32, "var-lib-nixdeploy": 32 } as const;
const BOOT_MAX_MS = 240_000;
const EXEC_MAX_MS = 240_000;
/** So that what one flush makes durable is little more than what was asked for. */
const LAYER_OPTIONS = "cluster_size=4k";
const KERNEL_PARAMETERS =
  "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr no_timer_check random.trust_cpu=on";

/** Installs and downloads what is missing. The machine is off. */
export async function createVirtualMachine(options: VirtualMachineOptions): Promise<VirtualMachine> {
  const { name, directory, files, stateDirectory, nixConf } = options;
  const kernel = await ensureKernel();
  const initramfs = await buildInitramfs(kernel, directory);
  const root = await buildRootImage({ directory, files, texts: describeMachine({ name, stateDirectory, nixConf }) });
  const disks: string[] = [];
  for (const [folder, sizeMebibytes] of Object.entries(DISKS)) {
    const file = join(directory, `${folder}.ext4`);
    disks.push(await buildImage({ file, tree: join(directory, folder), sizeMebibytes }));
  }
  const [port = 0] = await findFreePorts(1);
  let machine: SpawnedProcess | null = null;
  const running = () => {
    if (machine === null) throw new Error(`${name} is off`);
    return machine;
  };
  const exec: VirtualMachine["exec"] = (script) => execute(script, port);

  const boot = async () => {
    if (machine !== null) throw new Error(`cannot boot ${name}: it is on`);
    for (const disk of disks) await addLayer(disk);
    machine = spawnProcess([
      ...["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "1024"],
      ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
      ...["-kernel", kernel.image, "-initrd", initramfs, "-append", KERNEL_PARAMETERS],
      ...describeDisk("root", { file: root, more: "format=raw,read-only=on" }),
      ...disks.flatMap((disk, index) => describeDisk(`disk${index}`, { file: layerOf(disk), more: "format=qcow2" })),
      ...["-netdev", `user,id=net,hostfwd=tcp:127.0.0.1:${port}-:80`, "-device", "virtio-net-pci,netdev=net,romfile="],
    ]);
    const [line] = await machine.waitForLine(/@(up|broken) .*|Kernel panic.*/, { timeoutMs: BOOT_MAX_MS });
    if (!line.startsWith("@up")) throw new Error(`cannot boot ${name}: ${line}\n${machine.output()}`);
    await waitFor(`${name} to take commands`, () => exec("true"), {
      timeoutMs: BOOT_MAX_MS,
      describe: machine.output,
    });
  };
  const powerCut = async () => {
    if (machine === null) return;
    machine.kill("SIGKILL");
    await machine.exited;
    machine = null;
    for (const disk of disks) await mergeLayer(disk);
  };
  return {
    boot,
    powerCut,
    waitForLine: async (pattern, how) => await running().waitForLine(pattern, how),
    lineCount: () => running().lines.length,
    exec,
    run: async (script) => checkResult([`[${name}]`, script], await exec(script)),
    console: () => machine?.output() ?? "",
    async [Symbol.asyncDispose]() {
      machine?.kill("SIGKILL");
      await machine?.exited;
    },
  };
}

function describeMachine(options: Pick<VirtualMachineOptions, "name" | "stateDirectory" | "nixConf">) {
  return {
    "etc/hostname": `${options.name}\n`,
    "etc/state-directory": `${options.stateDirectory}\n`,
    "etc/nix/nix.conf": options.nixConf,
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/NIXOS": "",
    "etc/os-release": "ID=nixos\nNAME=NixOS\n",
  };
}

function describeDisk(id: string, { file, more }: { readonly file: string; readonly more: string }): string[] {
  return ["-drive", `if=none,id=${id},file=${file},cache=unsafe,${more}`, "-device", `virtio-blk-pci,drive=${id}`];
}

function layerOf(disk: string): string {
  return `${disk}.layer`;
}

async function addLayer(disk: string): Promise<void> {
  await runChecked([
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-b",
    disk,
    "-F",
    "raw",
    "-o",
    LAYER_OPTIONS,
    layerOf(disk),
  ]);
}

async function mergeLayer(disk: string): Promise<void> {
  await runChecked(["qemu-img", "commit", "-q", "-t", "unsafe", "-f", "qcow2", layerOf(disk)]);
  await rm(layerOf(disk));
}

/** The last line of the answer is the exit code (shell.cgi). */
async function execute(script: string, port: number): Promise<RunResult> {
  const url = `http://127.0.0.1:${port}/cgi-bin/shell`;
  const response = await fetch(url, { method: "POST", body: `${script}\n`, signal: AbortSignal.timeout(EXEC_MAX_MS) });
  const text = await response.text();
  const end = text.lastIndexOf("\n");
  const exitCode = Number(text.slice(end + 1));
  if (!response.ok || end < 0 || !Number.isInteger(exitCode))
    throw new Error(`it answered ${response.status}: ${text}`);
  return { exitCode, signal: null, stdout: text.slice(0, end), stderr: "" };
}
