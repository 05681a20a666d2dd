/** A NixOS-like system's switch-to-configuration, which behaves as the real one where it matters. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { SYSTEM_PROFILE } from "../../support/device.ts";

import { openSwitchBed, type SwitchBed, setProfile, stateOf, switchTo } from "./bed.ts";

setDefaultTimeout(30_000);

let bed: SwitchBed;

beforeAll(async () => {
  bed = await openSwitchBed();
});
afterAll(() => bed[Symbol.asyncDispose]());

describe("switch-to-configuration", () => {
  /** What each action changes when version 1 runs and the profile already names version 2. */
  const ACTIONS = [
    { action: "check", current: "1", bootDefault: "1", unit: "1" },
    { action: "dry-activate", current: "1", bootDefault: "1", unit: "1" },
    { action: "boot", current: "1", bootDefault: "2", unit: "1" },
    { action: "test", current: "2", bootDefault: "1", unit: "2" },
    { action: "switch", current: "2", bootDefault: "2", unit: "2" },
  ] as const;

  test.each(ACTIONS)(
    "$action moves what it should and nothing else; a reboot follows the boot default",
    async (row) => {
      await using device = await bed.deviceBetweenVersions();
      const paths = { "1": bed.v1, "2": bed.v2 };
      await setProfile(device, bed.v2);
      expect(await switchTo(device, bed.v2, row.action)).toMatchObject({ exitCode: 0 });
      expect(await stateOf(device)).toEqual({
        current: paths[row.current],
        bootDefault: paths[row.bootDefault],
        etcVersion: row.current,
        unit: row.unit,
      });
      expect(await device.link("/run/booted-system")).toBe(bed.v1);
      expect(await device.link(SYSTEM_PROFILE)).toBe(bed.v2);

      expect(await device.boot()).toBe(paths[row.bootDefault]);
      expect(await stateOf(device)).toMatchObject({ current: paths[row.bootDefault], unit: row.bootDefault });
      expect(await device.link("/run/booted-system")).toBe(paths[row.bootDefault]);
    },
  );

  test("prints what the real one prints, on the same streams", async () => {
    await using device = await bed.deviceBetweenVersions();
    expect((await switchTo(device, bed.v2, "dry-activate")).stderr).toBe(
      "would stop the following units: nuc.service\nwould activate the configuration...\nwould start the following units: nuc.service\n",
    );
    expect(await switchTo(device, bed.v2, "test")).toMatchObject({
      stdout: "Checking switch inhibitors... done\nsetting up /etc...\n",
      stderr:
        "stopping the following units: nuc.service\nactivating the configuration...\nstarting the following units: nuc.service\n",
    });
  });

  test("the boot default follows the profile's generations: what is in none of them becomes no default", async () => {
    await using device = await bed.deviceBetweenVersions();
    expect(await switchTo(device, bed.v2, "boot")).toMatchObject({ exitCode: 0 });
    expect(await device.bootDefault()).toBe(bed.v1);

    await setProfile(device, bed.v2);
    await switchTo(device, bed.v2, "boot");
    expect(await device.bootDefault()).toBe(bed.v2);
    expect(readdirSync(device.hostPath("/boot/loader/entries")).sort()).toEqual([
      "nixos-generation-1.conf",
      "nixos-generation-2.conf",
    ]);

    await switchTo(device, bed.v1, "boot");
    expect(await device.bootDefault()).toBe(bed.v1);
    await device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--delete-generations", "1"]);
    await switchTo(device, bed.v2, "boot");
    expect(readdirSync(device.hostPath("/boot/loader/entries"))).toEqual(["nixos-generation-2.conf"]);
  });

  test("the lock admits one at a time and goes with its holder", async () => {
    await using device = await bed.deviceBetweenVersions();
    const hanging = await bed.builder.build("system", {
      name: "nuc",
      version: "hanging",
      faults: [{ stage: "activate", kind: "hang" }],
    });
    await device.importFrom(bed.builder, hanging);
    await using holder = device.spawn([`${hanging}/bin/switch-to-configuration`, "test"]);
    await holder.waitForLine(/stopping the following units/);
    for (const action of ["switch", "check", "dry-activate"]) {
      expect(await switchTo(device, bed.v2, action)).toMatchObject({
        exitCode: 11,
        stderr: "Could not acquire lock\n",
      });
    }
    holder.kill("SIGKILL");
    await holder.exited;
    expect(await switchTo(device, bed.v2, "test")).toMatchObject({ exitCode: 0 });
    expect(await stateOf(device)).toMatchObject({ current: bed.v2, unit: "2" });
  });

  test("refuses a wrong action, a user who is not root, and a machine that is not NixOS", async () => {
    await using device = await bed.deviceBetweenVersions();
    const before = await stateOf(device);
    const program = `${bed.v2}/bin/switch-to-configuration`;
    for (const wrong of [["rollback"], []]) {
      expect(await device.exec([program, ...wrong])).toMatchObject({
        exitCode: 1,
        stderr: expect.stringContaining("Usage: switch-to-configuration [check|switch|boot|test|dry-activate]"),
      });
    }
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "switch"];
    expect(await device.exec(nobody)).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining("must be run as the root user"),
    });
    await device.run(["umount", "/etc/os-release"]);
    expect(await switchTo(device, bed.v2, "switch")).toMatchObject({
      exitCode: 2,
      stderr: "This is not a NixOS installation!\n",
    });
    expect(await stateOf(device)).toEqual(before);
    expect(before.current).toBe(bed.v1);
  });

  test("init interfaces that differ end with 100 before anything is touched, but after the boot loader", async () => {
    await using device = await bed.deviceBetweenVersions();
    const other = await bed.builder.build("system", { name: "nuc", version: "100", initInterfaceVersion: "systemd 4" });
    await device.importFrom(bed.builder, other);
    await setProfile(device, other);
    expect(await switchTo(device, other, "switch")).toMatchObject({ exitCode: 100 });
    expect(await stateOf(device)).toEqual({ current: bed.v1, bootDefault: other, etcVersion: "1", unit: "1" });
  });

  test("switch inhibitors refuse switch, test and check, not boot, and can be overridden", async () => {
    const build = (version: string, dbus: string) =>
      bed.builder.build("system", { name: "nuc", version, switchInhibitors: { dbus, kernel: "6.1" } });
    const [old, next] = [await build("1", "dbus-1"), await build("2", "broker-36")];
    await using device = await bed.newDevice();
    await device.install(bed.builder, old);
    await device.importFrom(bed.builder, next);
    for (const action of ["switch", "test", "check"]) {
      expect(await switchTo(device, next, action)).toMatchObject({
        exitCode: 1,
        stdout: expect.stringContaining("dbus : dbus-1 -> broker-36"),
        stderr: "Pre-switch checks failed\n",
      });
    }
    expect(await switchTo(device, next, "boot")).toMatchObject({ exitCode: 0 });
    expect(await stateOf(device)).toMatchObject({ current: old, unit: "1" });
    expect(await switchTo(device, next, "test", { NIXOS_NO_CHECK: "1" })).toMatchObject({ exitCode: 0 });
    expect(await stateOf(device)).toMatchObject({ current: next, unit: "2" });
  });
});
