/**
 * A device of the fleet: a machine (machine.ts) that has a boot loader and can be switched off and on.
 *
 * Booting runs what the boot loader's default names, with /run empty, exactly as far as the NixOS-like system of
 * test/fixtures/nix/system.nix goes: its `init` sets /run/booted-system, activates and starts the units.
 */
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { createMachine, type Machine, type MachineOptions, writeBootId } from "./machine.ts";
import { type NixDaemon, startNixDaemon } from "./nix-daemon.ts";

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
  /** The store path that the boot loader would boot, or null. */
  bootDefault(): Promise<string | null>;
};

export const SYSTEM_PROFILE = "/nix/var/nix/profiles/system";
const BOOT_DEFAULT = "/boot/loader/default";

export async function createDevice(options: MachineOptions): Promise<Device> {
  const machine = await createMachine(options);

  const bootDefault = async () => {
    const text = await readFile(machine.hostPath(BOOT_DEFAULT), "utf8").catch(() => null);
    return text === null ? null : text.trim();
  };

  const powerOff = async () => {
    await machine.killAll();
    const run = machine.hostPath("/run");
    for (const name of await readdir(run)) await rm(join(run, name), { recursive: true, force: true });
    await writeBootId(machine.directory);
  };

  const boot = async () => {
    await powerOff();
    const system = await bootDefault();
    if (system === null) throw new Error(`cannot boot device ${options.name}: no ${BOOT_DEFAULT}`);
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
    bootDefault,
  };
}
