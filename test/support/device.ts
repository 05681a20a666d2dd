/**
 * A device of the fleet: a machine (machine.ts) that has firmware and a boot loader (boot-firmware.ts) and can be switched
 * off and on. It has no systemd: `systemctl reboot` and `bootctl` are those of test/support/programs.
 *
 * Booting runs what the boot loader names, with /run empty, exactly as far as the NixOS-like system of
 * test/fixtures/nix/system.nix goes: its `init` sets /run/booted-system, activates and starts the units.
 */
import { existsSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Disk, readBootDefault, readLoaderVariables, takeBoot } from "./boot-firmware.ts";
import { createMachine, type Machine, type MachineOptions, writeBootId } from "./machine.ts";
import { type NixDaemon, startNixDaemon } from "./nix-daemon.ts";
import { waitFor } from "./wait-for.ts";

export type Device = Machine & {
  /** A real nix-daemon inside, accepting. It ends with `powerOff`, as everything does. */
  startDaemon(options?: { env?: Readonly<Record<string, string>> }): Promise<NixDaemon>;
  /** Copies a closure from another machine's store by `nix-store --export | --import`, which asks for no signature. */
  importFrom(source: Machine, storePath: string): Promise<void>;
  /** What an installer does: closure, profile, boot loader, first boot. The store path must be a system. */
  install(source: Machine, systemPath: string): Promise<void>;
  /**
   * Switches off and on; returns the store path of the system that came up.
   * @throws Error when there is nothing to boot, or its init failed
   */
  boot(): Promise<string>;
  /** A power cut: everything inside is killed, /run is empty afterwards. The daemon does not come back by itself. */
  powerOff(): Promise<void>;
  /** Waits until somebody inside asks for a reboot, and does it; returns what `boot` returns. @throws as `boot` */
  awaitReboot(describe?: () => string): Promise<string>;
  /** The store path that the boot loader would boot again and again, or null. */
  bootDefault(): Promise<string | null>;
  /** What the boot loader's variables name, null where they are not set. */
  loaderVariables(): Promise<{ readonly default: string | null; readonly oneShot: string | null }>;
};

export const SYSTEM_PROFILE = "/nix/var/nix/profiles/system";
const PROGRAMS = join(import.meta.dir, "programs");
const REBOOT_REQUESTED = "/run/reboot-requested";
const REBOOT_MAX_MS = 40_000;

export async function createDevice(options: MachineOptions): Promise<Device> {
  const machine = await createMachine({ programs: PROGRAMS, ...options });
  const disk: Disk = { boot: machine.hostPath("/boot"), firmware: machine.hostPath("/sys/firmware") };

  const powerOff = async () => {
    await machine.killAll();
    const run = machine.hostPath("/run");
    for (const name of await readdir(run)) await rm(join(run, name), { recursive: true, force: true });
    await writeBootId(machine.directory);
  };

  const boot = async () => {
    await powerOff();
    const system = await takeBoot(disk);
    if (system === null) throw new Error(`cannot boot device ${options.name}: nothing is installed in /boot`);
    await machine.run([`${system}/init`]);
    return system;
  };

  const importFrom = async (source: Machine, storePath: string) => {
    const paths = (await source.run(["nix-store", "--query", "--requisites", storePath])).split("\n");
    const archive = join(machine.directory, "import.nixexport");
    try {
      await source.run(["/bin/sh", "-euc", 'exec nix-store --export "$@" > "$0"', archive, ...paths]);
      await machine.run(["/bin/sh", "-euc", 'exec nix-store --import < "$0"', archive]);
    } finally {
      await rm(archive, { force: true });
    }
  };

  return {
    ...machine,
    startDaemon: (daemonOptions) => startNixDaemon(machine, daemonOptions),
    importFrom,
    install: async (source, systemPath) => {
      await importFrom(source, systemPath);
      await machine.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", systemPath]);
      await machine.run([`${systemPath}/bin/switch-to-configuration`, "boot"]);
      await boot();
    },
    boot,
    powerOff,
    async awaitReboot(describe) {
      const isAsked = () => existsSync(machine.hostPath(REBOOT_REQUESTED));
      await waitFor(`device ${options.name} to be asked to reboot`, isAsked, {
        timeoutMs: REBOOT_MAX_MS,
        ...(describe === undefined ? {} : { describe }),
      });
      return await boot();
    },
    bootDefault: () => readBootDefault(disk),
    loaderVariables: () => readLoaderVariables(disk),
  };
}
