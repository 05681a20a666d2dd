/**
 * The test bed itself: machines that share nothing, and a NixOS-like system that behaves as the real one where it
 * matters. Whatever is proved with them is worth no more than what is proved here.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Builder, createBuilder, type Fault, queryClosure } from "../support/builder.ts";
import { addBigPath, addClosure } from "../support/closure.ts";
import { createDevice, type Device, SYSTEM_PROFILE } from "../support/device.ts";
import { runChecked, runProcess, spawnProcess } from "../support/processes.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(30_000);

let directory: TemporaryDirectory;
let builder: Builder;
/** Versions 1 and 2 of a system named nuc with one unit, nuc.service. */
let v1: string;
let v2: string;

beforeAll(async () => {
  directory = await createTemporaryDirectory("test-bed");
  builder = await createBuilder({ directory: directory.join("builder") });
  v1 = await builder.build("system", { name: "nuc", version: "1" });
  v2 = await builder.build("system", { name: "nuc", version: "2" });
  await using installed = await createDevice({ name: "nuc", directory: directory.join("installed") });
  await installed.install(builder, v1);
  await installed.importFrom(builder, v2);
});

afterAll(async () => {
  await builder[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

let deviceCount = 0;

function newDevice(name = "nuc"): Promise<Device> {
  deviceCount += 1;
  return createDevice({ name, directory: directory.join(`device-${deviceCount}`) });
}

/** A device that runs version 1 and has version 2 in its store: its disk is a copy of one that was installed once. */
async function deviceBetweenVersions(): Promise<Device> {
  deviceCount += 1;
  const copy = directory.join(`device-${deviceCount}`);
  await runChecked(["cp", "-a", directory.join("installed"), copy]);
  const device = await createDevice({ name: "nuc", directory: copy, nix: builder.nix });
  await device.boot();
  return device;
}

const switchTo = (device: Device, system: string, action: string, env: Record<string, string> = {}) =>
  device.exec([`${system}/bin/switch-to-configuration`, action], { env });

const setProfile = (device: Device, system: string) =>
  device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", system]);

function readInside(device: Device, path: string): string | null {
  const file = device.hostPath(path);
  return existsSync(file) ? readFileSync(file, "utf8").trim() : null;
}

/** Names, with the command line of the process that really runs. */
function runningUnits(device: Device): Record<string, { pid: number; commandLine: string; version: string | null }> {
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

const unitVersions = (device: Device) =>
  Object.fromEntries(Object.entries(runningUnits(device)).map(([name, unit]) => [name, unit.version]));

async function stateOf(device: Device) {
  return {
    current: await device.link("/run/current-system"),
    bootDefault: await device.bootDefault(),
    etcVersion: readInside(device, "/run/etc-version"),
    unit: runningUnits(device)["nuc.service"]?.version ?? null,
  };
}

describe("processes and waiting", () => {
  test("captures both streams by line and closes standard input", async () => {
    await using child = spawnProcess(["/bin/sh", "-c", "cat; echo out; echo err >&2; printf last"]);
    expect(await child.exited).toEqual({ exitCode: 0, signal: null });
    expect(child.lines.filter((line) => line.stream === "stdout").map((line) => line.text)).toEqual(["out", "last"]);
    expect(child.lines.filter((line) => line.stream === "stderr").map((line) => line.text)).toEqual(["err"]);
    expect((await child.waitForLine(/^o(.*)/))[1]).toBe("ut");
  });

  test("says what was printed when a line does not come", async () => {
    await using child = spawnProcess(["/bin/sh", "-c", "echo something else; exit 3"]);
    await expect(child.waitForLine(/ready/)).rejects.toThrow(
      /ended without a line that matches \/ready\/.*something else/s,
    );
    expect((await child.exited).exitCode).toBe(3);
  });

  test("tells a signal from an exit code", async () => {
    const child = spawnProcess(["sleep", "60"]);
    child.kill("SIGKILL");
    expect(await child.exited).toEqual({ exitCode: null, signal: "SIGKILL" });
  });

  test("does not wait for a grandchild that holds the output", async () => {
    const result = await runProcess(["/bin/sh", "-c", "sleep 20 & echo $!"]);
    process.kill(Number(result.stdout), "SIGKILL");
    expect(result.exitCode).toBe(0);
  });

  test("inherits no variable but the few of the base", async () => {
    const result = await runProcess(["env"], { env: { GIVEN: "1" } });
    expect(result.stdout.match(/^\w+(?==)/gm)?.sort()).toEqual(["GIVEN", "HOME", "LANG", "PATH", "TMPDIR"]);
  });

  test("kills what takes too long, and shows its output", async () => {
    const run = runProcess(["/bin/sh", "-c", "echo started; exec sleep 60"], { timeoutMs: 200 });
    await expect(run).rejects.toThrow(/not done after 200 ms.*started/s);
  });

  test("waitFor names what it waited for and what it saw last", async () => {
    expect(await waitFor("three", () => 3, { until: (value) => value === 3 })).toBe(3);
    const waiting = waitFor("agent online", () => "offline", { until: (value) => value === "online", timeoutMs: 50 });
    await expect(waiting).rejects.toThrow("waited 50 ms for agent online: last seen offline");
  });
});

describe("machines", () => {
  test("have their own store, running system, boot partition and name, and leave the host's alone", async () => {
    const hostRun = readdirSync("/run").sort();
    await using device = await newDevice("kiosk");
    const app = await builder.build("app", { name: "hello", version: "1" });
    expect(await builder.run([`${app}/bin/hello`])).toBe("hello 1");
    expect(existsSync(device.hostPath(app))).toBe(false);
    expect(existsSync(app)).toBe(false);

    await device.importFrom(builder, app);
    expect(await device.run([`${app}/bin/hello`])).toBe("hello 1");
    expect(await queryClosure(device, app)).toEqual(await builder.closure(app));
    expect(await device.run(["hostname"])).toBe("kiosk");
    await device.run([
      "/bin/sh",
      "-c",
      "echo mine > /run/mine; echo mine > /boot/mine; echo mine > /var/lib/nixdeploy/mine",
    ]);
    expect(readdirSync("/run").sort()).toEqual(hostRun);
    expect(existsSync("/boot/mine") || existsSync("/var/lib/nixdeploy/mine")).toBe(false);
  });

  test("keep their disk when they are made again", async () => {
    const options = { name: "nuc", directory: directory.join("same-disk") };
    const app = await builder.build("app", { name: "hello", version: "1" });
    await using first = await createDevice(options);
    await first.importFrom(builder, app);
    await first[Symbol.asyncDispose]();
    await using second = await createDevice(options);
    expect(await second.run([`${app}/bin/hello`])).toBe("hello 1");
  });

  test("run a real nix-daemon, require signatures, and ask no substituter", async () => {
    await using device = await newDevice();
    await using daemon = await device.startDaemon();
    expect(existsSync(daemon.hostSocketPath)).toBe(true);
    const ping = await device.exec(["nix", "store", "ping"], { env: { NIX_REMOTE: "daemon" } });
    expect(ping).toMatchObject({ exitCode: 0, stderr: expect.stringContaining("daemon") });
    const config = await device.run(["nix", "show-config"]);
    expect(config).toContain("require-sigs = true");
    expect(config).toMatch(/^substituters = ?$/m);
  });

  test("lose everything that runs inside at a power cut, orphans and own sessions too", async () => {
    await using device = await newDevice();
    await using daemon = await device.startDaemon();
    await device.run(["/bin/sh", "-c", "echo here > /run/state; (setsid sleep 600 </dev/null >/dev/null 2>&1 &)"]);
    expect(device.processes().length).toBeGreaterThanOrEqual(2);
    await device.powerOff();
    expect(device.processes()).toEqual([]);
    expect(readdirSync(device.hostPath("/run"))).toEqual([]);
    expect((await daemon.process.exited).signal).toBe("SIGKILL");
  });

  test("end when the test process is killed", async () => {
    const path = directory.join("orphaned");
    const program = `
      import { createDevice } from ${JSON.stringify(join(import.meta.dir, "../support/device.ts"))};
      const device = await createDevice({ name: "orphan", directory: ${JSON.stringify(path)} });
      const child = device.spawn(["/bin/sh", "-c", "setsid sleep 600 & sleep 600"]);
      await Bun.sleep(50);
      console.log("pids " + [...device.processes(), child.pid].join(" "));
      await Bun.sleep(60_000);`;
    await using owner = spawnProcess([process.execPath, "-e", program]);
    const [, list = ""] = await owner.waitForLine(/^pids (.*)/);
    owner.kill("SIGKILL");
    for (const pid of list.split(" ")) {
      // A zombie that PID 1 has not collected yet has no command line any more.
      const file = `/proc/${pid}/cmdline`;
      await waitFor(`process ${pid} to be gone`, () => !existsSync(file) || readFileSync(file, "utf8") === "");
    }
  });

  test("tell a failing command's output", async () => {
    await using device = await newDevice();
    await expect(device.run(["/bin/sh", "-c", "echo why >&2; exit 5"])).rejects.toThrow(/exit code 5.*why/s);
    expect(await device.run(["pwd"], { cwd: "/nix/store" })).toBe("/nix/store");
    expect(await device.run(["cat"], { input: "given" })).toBe("given");
  });
});

describe("fixtures", () => {
  test("versions of an app share what did not change", async () => {
    const closures = await Promise.all(
      ["1", "2"].map(async (version) => builder.closure(await builder.build("app", { name: "hello", version }))),
    );
    const [first = [], second = []] = closures.map((closure) => closure.map((path) => path.storePath));
    expect(first).toHaveLength(4);
    expect(first.filter((path) => second.includes(path)).map((path) => path.slice(44))).toEqual(["hello-base"]);
  });

  test("a profile is no system, and a spec refers to what it names", async () => {
    const profile = await builder.build("profile", { name: "tools", version: "3" });
    const app = await builder.build("app", { name: "hello", version: "1" });
    const spec = await builder.build("spec", { agents: { nuc: profile, kiosk: app } });
    expect(await builder.run([`${profile}/bin/tools`])).toBe("tools 3");
    expect(readdirSync(builder.hostPath(profile)).sort()).toEqual(["bin", "share"]);
    expect(await Bun.file(builder.hostPath(spec)).json()).toEqual({ agents: { kiosk: app, nuc: profile } });
    const references = (await builder.closure(spec)).at(-1)?.references;
    expect(references).toEqual([app, profile].sort());
  });

  test("a system has the entries of a real toplevel", async () => {
    const system = await builder.build("system", { name: "nuc", version: "1" });
    expect(readdirSync(builder.hostPath(system)).sort()).toEqual(
      // biome-ignore format: one list
      ["activate", "bin", "dry-activate", "etc", "firmware", "init", "init-interface-version", "initrd", "kernel", "kernel-modules",
       "kernel-params", "nixos-version", "specialisation", "sw", "system", "systemd"],
    );
  });

  test("generated closures are valid, repeatable and as large as asked", async () => {
    await using device = await newDevice();
    const options = { name: "wide", pathCount: 100, sizeBytes: 2_000_000 };
    const top = await addClosure(builder, options);
    expect(await addClosure(device, options)).toBe(top);
    const closure = await builder.closure(top);
    expect(closure).toHaveLength(100);
    expect(await queryClosure(device, top)).toEqual(closure);
    await builder.run(["nix-store", "--verify-path", ...closure.map((path) => path.storePath)]);
    const size = closure.reduce((sum, path) => sum + path.narSizeBytes, 0);
    expect(size).toBeWithin(2_000_000, 2_300_000);

    const changed = await builder.closure(await addClosure(builder, { ...options, version: "2", changedShare: 0.1 }));
    const known = new Set(closure.map((path) => path.storePath));
    expect(changed.filter((path) => !known.has(path.storePath))).toHaveLength(10);
  });

  test("a big path compresses as much as asked", async () => {
    const sizeBytes = 4_000_000;
    const big = await addBigPath(builder, { name: "half", sizeBytes, incompressibleShare: 0.5 });
    const data = await Bun.file(builder.hostPath(`${big}/data`)).bytes();
    expect(data).toHaveLength(sizeBytes);
    expect(Bun.zstdCompressSync(data).length / sizeBytes).toBeCloseTo(0.75, 1);
  });

  test("keys sign closures", async () => {
    const key = await builder.generateKey("cache-1");
    const app = await builder.build("app", { name: "signed", version: "1" });
    await builder.sign(app, key);
    expect(key.publicKey).toMatch(/^cache-1:[A-Za-z0-9+/]{43}=$/);
    const verify = ["nix", "store", "verify", "--recursive", "--trusted-public-keys", key.publicKey, app];
    expect((await builder.exec(verify)).exitCode).toBe(0);
  });
});

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
      await using device = await deviceBetweenVersions();
      const paths = { "1": v1, "2": v2 };
      await setProfile(device, v2);
      expect(await switchTo(device, v2, row.action)).toMatchObject({ exitCode: 0 });
      expect(await stateOf(device)).toEqual({
        current: paths[row.current],
        bootDefault: paths[row.bootDefault],
        etcVersion: row.current,
        unit: row.unit,
      });
      expect(await device.link("/run/booted-system")).toBe(v1);
      expect(await device.link(SYSTEM_PROFILE)).toBe(v2);

      expect(await device.boot()).toBe(paths[row.bootDefault]);
      expect(await stateOf(device)).toMatchObject({ current: paths[row.bootDefault], unit: row.bootDefault });
      expect(await device.link("/run/booted-system")).toBe(paths[row.bootDefault]);
    },
  );

  test("prints what the real one prints, on the same streams", async () => {
    await using device = await deviceBetweenVersions();
    expect((await switchTo(device, v2, "dry-activate")).stderr).toBe(
      "would stop the following units: nuc.service\nwould activate the configuration...\nwould start the following units: nuc.service\n",
    );
    expect(await switchTo(device, v2, "test")).toMatchObject({
      stdout: "Checking switch inhibitors... done\nsetting up /etc...\n",
      stderr:
        "stopping the following units: nuc.service\nactivating the configuration...\nstarting the following units: nuc.service\n",
    });
  });

  test("the boot default follows the profile's generations: what is in none of them becomes no default", async () => {
    await using device = await deviceBetweenVersions();
    expect(await switchTo(device, v2, "boot")).toMatchObject({ exitCode: 0 });
    expect(await device.bootDefault()).toBe(v1);

    await setProfile(device, v2);
    await switchTo(device, v2, "boot");
    expect(await device.bootDefault()).toBe(v2);
    expect(readdirSync(device.hostPath("/boot/loader/entries")).sort()).toEqual([
      "nixos-generation-1.conf",
      "nixos-generation-2.conf",
    ]);

    await switchTo(device, v1, "boot");
    expect(await device.bootDefault()).toBe(v1);
    await device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--delete-generations", "1"]);
    await switchTo(device, v2, "boot");
    expect(readdirSync(device.hostPath("/boot/loader/entries"))).toEqual(["nixos-generation-2.conf"]);
  });

  test("the lock admits one at a time and goes with its holder", async () => {
    await using device = await deviceBetweenVersions();
    const hanging = await builder.build("system", {
      name: "nuc",
      version: "hanging",
      faults: [{ stage: "activate", kind: "hang" }],
    });
    await device.importFrom(builder, hanging);
    await using holder = device.spawn([`${hanging}/bin/switch-to-configuration`, "test"]);
    await holder.waitForLine(/stopping the following units/);
    for (const action of ["switch", "check", "dry-activate"]) {
      expect(await switchTo(device, v2, action)).toMatchObject({ exitCode: 11, stderr: "Could not acquire lock\n" });
    }
    holder.kill("SIGKILL");
    await holder.exited;
    expect(await switchTo(device, v2, "test")).toMatchObject({ exitCode: 0 });
    expect(await stateOf(device)).toMatchObject({ current: v2, unit: "2" });
  });

  test("refuses a wrong action, a user who is not root, and a machine that is not NixOS", async () => {
    await using device = await deviceBetweenVersions();
    const before = await stateOf(device);
    const program = `${v2}/bin/switch-to-configuration`;
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
    expect(await switchTo(device, v2, "switch")).toMatchObject({
      exitCode: 2,
      stderr: "This is not a NixOS installation!\n",
    });
    expect(await stateOf(device)).toEqual(before);
    expect(before.current).toBe(v1);
  });

  test("init interfaces that differ end with 100 before anything is touched, but after the boot loader", async () => {
    await using device = await deviceBetweenVersions();
    const other = await builder.build("system", { name: "nuc", version: "100", initInterfaceVersion: "systemd 4" });
    await device.importFrom(builder, other);
    await setProfile(device, other);
    expect(await switchTo(device, other, "switch")).toMatchObject({ exitCode: 100 });
    expect(await stateOf(device)).toEqual({ current: v1, bootDefault: other, etcVersion: "1", unit: "1" });
  });

  test("switch inhibitors refuse switch, test and check, not boot, and can be overridden", async () => {
    const build = (version: string, dbus: string) =>
      builder.build("system", { name: "nuc", version, switchInhibitors: { dbus, kernel: "6.1" } });
    const [old, next] = [await build("1", "dbus-1"), await build("2", "broker-36")];
    await using device = await newDevice();
    await device.install(builder, old);
    await device.importFrom(builder, next);
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

describe("units", () => {
  test("changed ones run the new version's program, unchanged ones keep their process, removed ones stop", async () => {
    const v1 = await builder.build("system", {
      name: "nuc",
      version: "1",
      units: [{ name: "changed.service" }, { name: "removed.service" }, { name: "same.service", version: "x" }],
    });
    const v2 = await builder.build("system", {
      name: "nuc",
      version: "2",
      units: [{ name: "added.service" }, { name: "changed.service" }, { name: "same.service", version: "x" }],
    });
    await using device = await newDevice();
    await device.install(builder, v1);
    await device.importFrom(builder, v2);
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
    const v1 = await builder.build("system", { name: "nuc", version: "1", units: units("1") });
    const v2 = await builder.build("system", { name: "nuc", version: "2", units: units("2").slice(1) });
    await using device = await newDevice();
    await device.install(builder, v1);
    await device.importFrom(builder, v2);
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
    await using device = await deviceBetweenVersions();
    const bad = await builder.build("system", {
      name: "nuc",
      version: "bad",
      units: [{ name: "bad.service", fails: true }, { name: "nuc.service" }],
    });
    await device.importFrom(builder, bad);
    expect(await switchTo(device, bad, "test")).toMatchObject({
      exitCode: 4,
      stderr: expect.stringContaining(
        "warning: the following units failed: bad.service\nbad.service bad: cannot start",
      ),
    });
    expect(readInside(device, "/run/units/failed")).toBe("bad.service");
    expect(await stateOf(device)).toMatchObject({ current: bad, unit: "bad" });
    expect(await switchTo(device, v1, "test")).toMatchObject({ exitCode: 0 });
    expect(readInside(device, "/run/units/failed")).toBeNull();
  });

  test("can be any program", async () => {
    const system = await builder.build("system", {
      name: "nuc",
      version: "1",
      units: [{ name: "own.service", exec: 'echo "$NIXOS_UNIT" > /run/own; exec sleep infinity' }],
    });
    await using device = await newDevice();
    await device.install(builder, system);
    expect(readInside(device, "/run/own")).toBe("nuc/own.service");
    expect(runningUnits(device)["own.service"]?.commandLine).toBe("sleep infinity");
  });
});

describe("faults chosen at build time", () => {
  async function addFaulty(device: Device, ...faults: Fault[]): Promise<string> {
    const system = await builder.build("system", { name: "nuc", version: "2", faults });
    await device.importFrom(builder, system);
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
    await using device = await deviceBetweenVersions();
    const system = await addFaulty(device, fault);
    await setProfile(device, system);
    const result = await switchTo(device, system, "switch");
    expect(result.exitCode ?? result.signal).toBe(exit);
    const name = (path: string | null) => (path === v1 ? "old" : path === system ? "new" : path);
    const state = await stateOf(device);
    expect([name(state.current), name(state.bootDefault)]).toEqual([current, bootDefault]);
    expect(state.unit === "1" ? "old" : state.unit === "2" ? "new" : state.unit).toBe(unit);
    if (fault.kind === "close-output") expect(result.stdout + result.stderr).toBe("");
  });

  test("print much", async () => {
    await using device = await deviceBetweenVersions();
    const lines = await addFaulty(device, { stage: "start", kind: "print-lines", argument: 5_000 });
    const result = await switchTo(device, lines, "check");
    expect(result.stdout).toContain("line 1 of 5000\n");
    expect(result.stdout.split("\n").filter((line) => line.startsWith("line "))).toHaveLength(5_000);
    const mebibytes = await addFaulty(device, { stage: "start", kind: "print-mebibytes", argument: 3 });
    expect((await switchTo(device, mebibytes, "check")).stdout.length).toBeGreaterThan(3 << 20);
  });

  test("hang until SIGTERM, or until SIGKILL", async () => {
    await using device = await deviceBetweenVersions();
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
    await using device = await deviceBetweenVersions();
    const system = await addFaulty(device, { stage: "init", kind: "fail", actions: ["init"] });
    await setProfile(device, system);
    expect(await switchTo(device, system, "switch")).toMatchObject({ exitCode: 0 });
    await expect(device.boot()).rejects.toThrow(/kernel panic/);
  });
});
