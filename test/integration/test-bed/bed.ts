import { existsSync, readdirSync, readFileSync } from "node:fs";
import { type Builder, createBuilder } from "../../support/builder.ts";
import { createDevice, type Device, SYSTEM_PROFILE } from "../../support/device.ts";
import { runChecked } from "../../support/processes.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";

export type TestBed = AsyncDisposable & {
  readonly directory: TemporaryDirectory;
  readonly builder: Builder;
  newDevice(name?: string): Promise<Device>;
};

export type SwitchBed = TestBed & {
  readonly v1: string;
  readonly v2: string;
  /** A device that runs version 1 and has version 2 in its store: its disk is a copy of one that was installed once. */
  deviceBetweenVersions(): Promise<Device>;
};

export async function openTestBed(): Promise<TestBed> {
  const directory = await createTemporaryDirectory("test-bed");
  const builder = await createBuilder({ directory: directory.join("builder") });
  let devices = 0;
  return {
    ...{ directory, builder },
    newDevice(name = "nuc") {
      devices += 1;
      return createDevice({ name, directory: directory.join(`device-${devices}`) });
    },
    async [Symbol.asyncDispose]() {
      await builder[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

export async function openSwitchBed(): Promise<SwitchBed> {
  const bed = await openTestBed();
  const { directory, builder } = bed;
  const v1 = await builder.build("system", { name: "nuc", version: "1" });
  const v2 = await builder.build("system", { name: "nuc", version: "2" });
  await using installed = await createDevice({ name: "nuc", directory: directory.join("installed") });
  await installed.install(builder, v1);
  await installed.importFrom(builder, v2);
  let copies = 0;
  return {
    ...bed,
    ...{ v1, v2 },
    async deviceBetweenVersions() {
      copies += 1;
      const copy = directory.join(`copy-${copies}`);
      await runChecked(["cp", "-a", directory.join("installed"), copy]);
      const device = await createDevice({ name: "nuc", directory: copy, nix: builder.nix });
      await device.boot();
      return device;
    },
  };
}

export const switchTo = (device: Device, system: string, action: string, env: Record<string, string> = {}) =>
  device.exec([`${system}/bin/switch-to-configuration`, action], { env });

export const setProfile = (device: Device, system: string) =>
  device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", system]);

export function readInside(device: Device, path: string): string | null {
  const file = device.hostPath(path);
  return existsSync(file) ? readFileSync(file, "utf8").trim() : null;
}

/** Names, with the command line of the process that really runs. */
export function runningUnits(
  device: Device,
): Record<string, { pid: number; commandLine: string; version: string | null }> {
  const names = readdirSync(device.hostPath("/run/units")).filter((name) => name.endsWith(".pid"));
  return Object.fromEntries(
    names
      .map((name) => name.replace(/\.pid$/, ""))
      .flatMap((unit) => {
        const pid = Number(readInside(device, `/run/units/${unit}.pid`));
        if (!device.processes().includes(pid)) return [];
        const commandLine = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").join(" ").trim();
        return [[unit, { pid, commandLine, version: readInside(device, `/run/units/${unit}.version`) }]];
      }),
  );
}

export const unitVersions = (device: Device) =>
  Object.fromEntries(Object.entries(runningUnits(device)).map(([name, unit]) => [name, unit.version]));

export async function stateOf(device: Device) {
  return {
    current: await device.link("/run/current-system"),
    bootDefault: await device.bootDefault(),
    etcVersion: readInside(device, "/run/etc-version"),
    unit: runningUnits(device)["nuc.service"]?.version ?? null,
  };
}
