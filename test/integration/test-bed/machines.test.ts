/** The test bed's machines, which share nothing, and what is built for them. Whatever is proved with them is worth no more. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { queryClosure } from "../../support/builder.ts";
import { addBigPath, addClosure } from "../../support/closure.ts";
import { createDevice } from "../../support/device.ts";
import { spawnProcess } from "../../support/processes.ts";
import { waitFor } from "../../support/wait-for.ts";

import { openTestBed, type TestBed } from "./bed.ts";

setDefaultTimeout(30_000);

let bed: TestBed;

beforeAll(async () => {
  bed = await openTestBed();
});
afterAll(() => bed[Symbol.asyncDispose]());

describe("machines", () => {
  test("have their own store, running system, boot partition and name, and leave the host's alone", async () => {
    const hostRun = readdirSync("/run").sort();
    await using device = await bed.newDevice("kiosk");
    const app = await bed.builder.build("app", { name: "hello", version: "1" });
    expect(await bed.builder.run([`${app}/bin/hello`])).toBe("hello 1");
    expect(existsSync(device.hostPath(app))).toBe(false);
    expect(existsSync(app)).toBe(false);

    await device.importFrom(bed.builder, app);
    expect(await device.run([`${app}/bin/hello`])).toBe("hello 1");
    expect(await queryClosure(device, app)).toEqual(await bed.builder.closure(app));
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
    const options = { name: "nuc", directory: bed.directory.join("same-disk") };
    const app = await bed.builder.build("app", { name: "hello", version: "1" });
    await using first = await createDevice(options);
    await first.importFrom(bed.builder, app);
    await first[Symbol.asyncDispose]();
    await using second = await createDevice(options);
    expect(await second.run([`${app}/bin/hello`])).toBe("hello 1");
  });

  test("run a real nix-daemon, require signatures, and ask no substituter", async () => {
    await using device = await bed.newDevice();
    await using daemon = await device.startDaemon();
    expect(existsSync(daemon.hostSocketPath)).toBe(true);
    const ping = await device.exec(["nix", "store", "ping"], { env: { NIX_REMOTE: "daemon" } });
    expect(ping).toMatchObject({ exitCode: 0, stderr: expect.stringContaining("daemon") });
    const config = await device.run(["nix", "show-config"]);
    expect(config).toContain("require-sigs = true");
    expect(config).toMatch(/^substituters = ?$/m);
  });

  test("lose everything that runs inside at a power cut, orphans and own sessions too", async () => {
    await using device = await bed.newDevice();
    await using daemon = await device.startDaemon();
    await device.run(["/bin/sh", "-c", "echo here > /run/state; (setsid sleep 600 </dev/null >/dev/null 2>&1 &)"]);
    expect(device.processes().length).toBeGreaterThanOrEqual(2);
    await device.powerOff();
    expect(device.processes()).toEqual([]);
    expect(readdirSync(device.hostPath("/run"))).toEqual([]);
    expect((await daemon.process.exited).signal).toBe("SIGKILL");
  });

  test("end when the test process is killed", async () => {
    const path = bed.directory.join("orphaned");
    const program = `
      import { createDevice } from ${JSON.stringify(join(import.meta.dir, "../../support/device.ts"))};
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
    await using device = await bed.newDevice();
    await expect(device.run(["/bin/sh", "-c", "echo why >&2; exit 5"])).rejects.toThrow(/exit code 5.*why/s);
    expect(await device.run(["pwd"], { cwd: "/nix/store" })).toBe("/nix/store");
    expect(await device.run(["cat"], { input: "given" })).toBe("given");
  });
});

describe("fixtures", () => {
  test("versions of an app share what did not change", async () => {
    const closures = await Promise.all(
      ["1", "2"].map(async (version) =>
        bed.builder.closure(await bed.builder.build("app", { name: "hello", version })),
      ),
    );
    const [first = [], second = []] = closures.map((closure) => closure.map((path) => path.storePath));
    expect(first).toHaveLength(4);
    expect(first.filter((path) => second.includes(path)).map((path) => path.slice(44))).toEqual(["hello-base"]);
  });

  test("a profile is no system, and a spec refers to what it names", async () => {
    const profile = await bed.builder.build("profile", { name: "tools", version: "3" });
    const app = await bed.builder.build("app", { name: "hello", version: "1" });
    const spec = await bed.builder.build("spec", { agents: { nuc: profile, kiosk: app } });
    expect(await bed.builder.run([`${profile}/bin/tools`])).toBe("tools 3");
    expect(readdirSync(bed.builder.hostPath(profile)).sort()).toEqual(["bin", "share"]);
    expect(await Bun.file(bed.builder.hostPath(spec)).json()).toEqual({ agents: { kiosk: app, nuc: profile } });
    const references = (await bed.builder.closure(spec)).at(-1)?.references;
    expect(references).toEqual([app, profile].sort());
  });

  test("a system has the entries of a real toplevel", async () => {
    const system = await bed.builder.build("system", { name: "nuc", version: "1" });
    expect(readdirSync(bed.builder.hostPath(system)).sort()).toEqual(
      // biome-ignore format: one list
      ["activate", "bin", "dry-activate", "etc", "firmware", "init", "init-interface-version", "initrd", "kernel", "kernel-modules",
       "kernel-params", "nixos-version", "specialisation", "sw", "system", "systemd"],
    );
  });

  test("generated closures are valid, repeatable and as large as asked", async () => {
    await using device = await bed.newDevice();
    const options = { name: "wide", pathCount: 100, sizeBytes: 2_000_000 };
    const top = await addClosure(bed.builder, options);
    expect(await addClosure(device, options)).toBe(top);
    const closure = await bed.builder.closure(top);
    expect(closure).toHaveLength(100);
    expect(await queryClosure(device, top)).toEqual(closure);
    await bed.builder.run(["nix-store", "--verify-path", ...closure.map((path) => path.storePath)]);
    const size = closure.reduce((sum, path) => sum + path.narSizeBytes, 0);
    expect(size).toBeWithin(2_000_000, 2_300_000);

    const changed = await bed.builder.closure(
      await addClosure(bed.builder, { ...options, version: "2", changedShare: 0.1 }),
    );
    const known = new Set(closure.map((path) => path.storePath));
    expect(changed.filter((path) => !known.has(path.storePath))).toHaveLength(10);
  });

  test("a big path compresses as much as asked", async () => {
    const sizeBytes = 4_000_000;
    const big = await addBigPath(bed.builder, { name: "half", sizeBytes, incompressibleShare: 0.5 });
    const data = await Bun.file(bed.builder.hostPath(`${big}/data`)).bytes();
    expect(data).toHaveLength(sizeBytes);
    expect(Bun.zstdCompressSync(data).length / sizeBytes).toBeCloseTo(0.75, 1);
  });

  test("keys sign closures", async () => {
    const key = await bed.builder.generateKey("cache-1");
    const app = await bed.builder.build("app", { name: "signed", version: "1" });
    await bed.builder.sign(app, key);
    expect(key.publicKey).toMatch(/^cache-1:[A-Za-z0-9+/]{43}=$/);
    const verify = ["nix", "store", "verify", "--recursive", "--trusted-public-keys", key.publicKey, app];
    expect((await bed.builder.exec(verify)).exitCode).toBe(0);
  });
});
