/** The units of a NixOS-like system, and faults that are built into it. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { Fault } from "../../support/builder.ts";
import type { Device } from "../../support/device.ts";
import { waitFor } from "../../support/wait-for.ts";

import {
  openSwitchBed,
  readInside,
  runningUnits,
  type SwitchBed,
  setProfile,
  stateOf,
  switchTo,
  unitVersions,
} from "./bed.ts";

setDefaultTimeout(30_000);

let bed: SwitchBed;

beforeAll(async () => {
  bed = await openSwitchBed();
});
afterAll(() => bed[Symbol.asyncDispose]());

describe("units", () => {
  test("changed ones run the new version's program, unchanged ones keep their process, removed ones stop", async () => {
    const v1 = await bed.builder.build("system", {
      name: "nuc",
      version: "1",
      units: [{ name: "changed.service" }, { name: "removed.service" }, { name: "same.service", version: "x" }],
    });
    const v2 = await bed.builder.build("system", {
      name: "nuc",
      version: "2",
      units: [{ name: "added.service" }, { name: "changed.service" }, { name: "same.service", version: "x" }],
    });
    await using device = await bed.newDevice();
    await device.install(bed.builder, v1);
    await device.importFrom(bed.builder, v2);
    const before = runningUnits(device);
    const result = await switchTo(device, v2, "test");
    expect(result.stderr).toContain("stopping the following units: changed.service, removed.service\n");
    expect(result.stderr).toContain("the following new units were started: added.service\n");

    const after = runningUnits(device);
    expect(unitVersions(device)).toEqual({ "added.service": "2", "changed.service": "2", "same.service": "x" });
    expect(after["same.service"]?.pid).toBe(before["same.service"]?.pid ?? -1);
    expect(after["changed.service"]?.pid).not.toBe(before["changed.service"]?.pid);
    const program = /ExecStart=(.*)/.exec(await device.run(["cat", `${v2}/etc/systemd/system/changed.service`]))?.[1];
    expect(after["changed.service"]?.commandLine).toBe(`/bin/sh ${program}`);
    expect(device.processes()).not.toContain(before["removed.service"]?.pid);
  });

  test("are restarted in place, skipped or kept as their options say", async () => {
    const units = (version: string) => [
      { name: "kept.service", stopOnRemoval: false },
      { name: "restarted.service", version, stopIfChanged: false },
      { name: "skipped.service", version, restartIfChanged: false },
    ];
    const v1 = await bed.builder.build("system", { name: "nuc", version: "1", units: units("1") });
    const v2 = await bed.builder.build("system", { name: "nuc", version: "2", units: units("2").slice(1) });
    await using device = await bed.newDevice();
    await device.install(bed.builder, v1);
    await device.importFrom(bed.builder, v2);
    expect((await switchTo(device, v2, "dry-activate")).stderr).toBe(
      "would NOT stop the following changed units: skipped.service\nwould activate the configuration...\n" +
        "would restart the following units: restarted.service\n",
    );
    expect((await switchTo(device, v2, "switch")).stderr).toBe(
      "NOT restarting the following changed units: skipped.service\nactivating the configuration...\n" +
        "restarting the following units: restarted.service\n",
    );
    expect(unitVersions(device)).toEqual({
      "kept.service": "1",
      "restarted.service": "2",
      "skipped.service": "1",
    });
  });

  test("that fail end with 4 and are recorded until the next switch; the rest runs", async () => {
    await using device = await bed.deviceBetweenVersions();
    const bad = await bed.builder.build("system", {
      name: "nuc",
      version: "bad",
      units: [{ name: "bad.service", fails: true }, { name: "nuc.service" }],
    });
    await device.importFrom(bed.builder, bad);
    expect(await switchTo(device, bad, "test")).toMatchObject({
      exitCode: 4,
      stderr: expect.stringContaining(
        "warning: the following units failed: bad.service\nbad.service bad: cannot start",
      ),
    });
    expect(readInside(device, "/run/units/failed")).toBe("bad.service");
    expect(await stateOf(device)).toMatchObject({ current: bad, unit: "bad" });
    expect(await switchTo(device, bed.v1, "test")).toMatchObject({ exitCode: 0 });
    expect(readInside(device, "/run/units/failed")).toBeNull();
  });

  test("can be any program", async () => {
    const system = await bed.builder.build("system", {
      name: "nuc",
      version: "1",
      units: [{ name: "own.service", exec: 'echo "$NIXOS_UNIT" > /run/own; exec sleep infinity' }],
    });
    await using device = await bed.newDevice();
    await device.install(bed.builder, system);
    expect(readInside(device, "/run/own")).toBe("nuc/own.service");
    expect(runningUnits(device)["own.service"]?.commandLine).toBe("sleep infinity");
  });
});

describe("faults chosen at build time", () => {
  async function addFaulty(device: Device, ...faults: Fault[]): Promise<string> {
    const system = await bed.builder.build("system", { name: "nuc", version: "2", faults });
    await device.importFrom(bed.builder, system);
    return system;
  }

  /** current, boot default and unit afterwards: "old", "new", or null for a unit that is stopped. */
  const FAULTS: readonly [fault: Fault, exit: number | string, current: string, boot: string, unit: string | null][] = [
    [{ stage: "start", kind: "exit", argument: 7 }, 7, "old", "old", "old"],
    [{ stage: "pre-switch-check", kind: "fail" }, 1, "old", "old", "old"],
    [{ stage: "pre-switch-check", kind: "exit", argument: 100 }, 100, "old", "old", "old"],
    [{ stage: "boot-loader", kind: "fail" }, 1, "old", "old", "old"],
    [{ stage: "boot-loader-done", kind: "exit", argument: 1 }, 1, "old", "new", "old"],
    [{ stage: "stop-units", kind: "exit", argument: 1 }, 1, "old", "new", null],
    [{ stage: "activate", kind: "fail" }, 2, "new", "new", "new"],
    [{ stage: "activate", kind: "signal", argument: "KILL" }, "SIGKILL", "old", "new", null],
    [{ stage: "start-units", kind: "signal", argument: "TERM" }, "SIGTERM", "new", "new", null],
    [{ stage: "end", kind: "exit", argument: 3 }, 3, "new", "new", "new"],
    [{ stage: "end", kind: "exit", argument: 11, actions: ["test", "boot"] }, 0, "new", "new", "new"],
    [{ stage: "start", kind: "close-output" }, 0, "new", "new", "new"],
  ];

  test.each(FAULTS)("%j ends with %p", async (fault, exit, current, bootDefault, unit) => {
    await using device = await bed.deviceBetweenVersions();
    const system = await addFaulty(device, fault);
    await setProfile(device, system);
    const result = await switchTo(device, system, "switch");
    expect(result.exitCode ?? result.signal).toBe(exit);
    const name = (path: string | null) => (path === bed.v1 ? "old" : path === system ? "new" : path);
    const state = await stateOf(device);
    expect([name(state.current), name(state.bootDefault)]).toEqual([current, bootDefault]);
    expect(state.unit === "1" ? "old" : state.unit === "2" ? "new" : state.unit).toBe(unit);
    if (fault.kind === "close-output") expect(result.stdout + result.stderr).toBe("");
  });

  test("print much", async () => {
    await using device = await bed.deviceBetweenVersions();
    const lines = await addFaulty(device, { stage: "start", kind: "print-lines", argument: 5_000 });
    const result = await switchTo(device, lines, "check");
    expect(result.stdout).toContain("line 1 of 5000\n");
    expect(result.stdout.split("\n").filter((line) => line.startsWith("line "))).toHaveLength(5_000);
    const mebibytes = await addFaulty(device, { stage: "start", kind: "print-mebibytes", argument: 3 });
    expect((await switchTo(device, mebibytes, "check")).stdout.length).toBeGreaterThan(3 << 20);
  });

  test("hang until SIGTERM, or until SIGKILL", async () => {
    await using device = await bed.deviceBetweenVersions();
    for (const kind of ["hang", "hang-ignoring-sigterm"] as const) {
      const system = await addFaulty(device, { stage: "activate", kind });
      await using running = device.spawn([`${system}/bin/switch-to-configuration`, "test"]);
      await waitFor("it to hang", () => readFileSync(`/proc/${running.pid}/cmdline`, "utf8").startsWith("sleep"));
      running.kill("SIGTERM");
      if (kind === "hang") {
        expect((await running.exited).signal).toBe("SIGTERM");
      } else {
        expect(await Promise.race([running.exited, Bun.sleep(150)])).toBeUndefined();
        running.kill("SIGKILL");
        expect((await running.exited).signal).toBe("SIGKILL");
      }
    }
  });

  test("a system that cannot boot leaves the device off", async () => {
    await using device = await bed.deviceBetweenVersions();
    const system = await addFaulty(device, { stage: "init", kind: "fail", actions: ["init"] });
    await setProfile(device, system);
    expect(await switchTo(device, system, "switch")).toMatchObject({ exitCode: 0 });
    await expect(device.boot()).rejects.toThrow(/kernel panic/);
  });
});
