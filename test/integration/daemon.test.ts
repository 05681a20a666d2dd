/**
 * The daemon client against real daemons: closures are built in one machine's store and copied, by our client alone,
 * into another's. Everything runs with the Nix of each suite on either side, over the socket and over
 * `nix-daemon --stdio`. Who may do what is in `daemon-access.test.ts`.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFile, symlink, writeFile } from "node:fs/promises";
import type { DaemonConnection } from "../../src/nix/daemon/connection.ts";
import { DaemonError } from "../../src/nix/daemon/daemon-error.ts";
import { narHashFromDigest } from "../../src/nix/hash.ts";
import type { PathInfo } from "../../src/nix/path-info.ts";
import { parseStorePath, type StorePath } from "../../src/nix/store-path.ts";
import { openDaemonSession, type Via } from "../support/daemon-session.ts";
import { createMachine, type Machine } from "../support/machine.ts";
import { type NixDaemon, startNixDaemon } from "../support/nix-daemon.ts";
import { ensureNixOf, NIX_PAIRS } from "../support/nix-versions.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const MIB = 1024 * 1024;
const BIG_FILE_BYTES = 128 * MIB;
/** What a garbage-collected process may hold of a stream at any time; measured 25 to 45 MiB, whatever the size. */
const HELD_MAX_BYTES = 64 * MIB;

/** lib ← app (refers to itself too) ← top; and one big path. `salt` makes paths that no other test has. */
const FIXTURE = `
{ salt }: let
  build = name: script: derivation {
    inherit name salt;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-euc" script ];
    PATH = "/usr/bin:/bin";
  };
  lib = build "lib" "mkdir $out; echo $salt > $out/data; ln -s data $out/link";
  app = build "app" "mkdir -p $out/bin; echo \\"#!/bin/sh\\ncat \${lib}/data; echo $out\\" > $out/bin/app; chmod +x $out/bin/app; : > $out/empty";
in {
  inherit lib app;
  top = build "top" "echo \${app} > $out";
  big = build "big" "mkdir $out; head -c ${BIG_FILE_BYTES} /dev/urandom > $out/big";
}
`;

let directory: TemporaryDirectory;
let builder: Machine;
let device: Machine;
let daemons: readonly NixDaemon[];

beforeAll(async () => {
  directory = await createTemporaryDirectory("daemon");
  await writeFile(directory.join("fixture.nix"), FIXTURE);
});

afterAll(async () => {
  await directory[Symbol.asyncDispose]();
});

/** Makes builder and device. The device trusts the builder's key, which is in the file secret-key. */
async function setUp(pair: (typeof NIX_PAIRS)[number]): Promise<void> {
  const folder = (name: string) => directory.join(`${pair.builder}-${pair.device}`, name);
  builder = await createMachine({
    name: "builder",
    directory: folder("builder"),
    nix: await ensureNixOf(pair.builder),
  });
  const keys = [folder("secret-key"), folder("public-key")];
  await builder.run(["nix-store", "--generate-binary-cache-key", "test-1", ...keys]);
  device = await createMachine({
    name: "device",
    directory: folder("device"),
    nix: await ensureNixOf(pair.device),
    nixConf: `trusted-public-keys = ${await readFile(folder("public-key"), "utf8")}\n`,
  });
  daemons = [await startNixDaemon(builder), await startNixDaemon(device)];
}

async function tearDown(): Promise<void> {
  for (const daemon of daemons) await daemon[Symbol.asyncDispose]();
  for (const machine of [builder, device]) await machine[Symbol.asyncDispose]();
}

const connect = (machine: Machine, via: Via) => openDaemonSession(machine, { via });

/** Builds an attribute of the fixture and returns its closure, references first. */
async function build(attribute: string, salt: string): Promise<StorePath[]> {
  const command = [
    "nix-build",
    "--no-out-link",
    directory.join("fixture.nix"),
    "-A",
    attribute,
    "--argstr",
    "salt",
    salt,
  ];
  const path = await builder.run(command);
  return (await builder.run(["nix-store", "--query", "--requisites", path])).split("\n").map(parseStorePath);
}

async function infoOf(connection: DaemonConnection, path: StorePath): Promise<PathInfo> {
  const info = await connection.queryPathInfo(path);
  if (info === null) throw new Error(`${path} is not valid`);
  return info;
}

async function copy(from: DaemonConnection, to: DaemonConnection, path: StorePath): Promise<void> {
  const info = await infoOf(from, path);
  await to.addToStoreNar({ info, nar: from.narFromPath(path), checkSignatures: false });
}

async function collectGarbage(): Promise<void> {
  await device.run(["nix-store", "--gc"]);
}

for (const pair of NIX_PAIRS) {
  describe(`built by ${pair.builder}'s Nix, copied to ${pair.device}'s`, () => {
    beforeAll(() => setUp(pair));
    afterAll(tearDown);
    describe.each<Via>(["socket", "stdio"])("over %s", (via) => {
      test("opens a session", async () => {
        for (const machine of [builder, device]) {
          await using connection = await connect(machine, via);
          expect(connection.protocolVersion).toMatch(/^1\.3[4-8]$/);
          expect(connection.nixVersion).toBe(machine.nix.version);
        }
      });

      test("copies a closure from one store into another", async () => {
        const paths = await build("top", `copy ${via}`);
        expect(paths).toHaveLength(3);
        await using from = await connect(builder, via);
        await using to = await connect(device, via);
        await to.addTempRoots(paths);
        expect((await to.queryValidPaths(paths)).size).toBe(0);
        for (const path of paths) await copy(from, to, path);
        expect([...(await to.queryValidPaths(paths))]).toEqual(paths);
        for (const path of paths) {
          expect(await to.queryPathInfo(path)).toEqual(await from.queryPathInfo(path));
          await device.run(["nix-store", "--verify-path", path]);
        }
        const [lib, app] = paths;
        expect(await device.run([`${app}/bin/app`])).toBe(`copy ${via}\n${app}`);
        expect((await to.queryPathInfo(parseStorePath(String(app))))?.references).toEqual(
          [lib, app].map(String).sort().map(parseStorePath),
        );
      });

      test("gives a NAR whose hash and size are the recorded ones", async () => {
        const [path] = await build("lib", `hash ${via}`);
        if (path === undefined) throw new Error("nothing built");
        await using connection = await connect(builder, via);
        const info = await infoOf(connection, path);
        const hash = createHash("sha256");
        let sizeBytes = 0;
        for await (const chunk of connection.narFromPath(path)) {
          hash.update(chunk);
          sizeBytes += chunk.length;
        }
        expect({ narHash: narHashFromDigest(hash.digest()), sizeBytes }).toEqual({
          narHash: info.narHash,
          sizeBytes: info.narSizeBytes,
        });
        expect(info.deriver).toEndWith("-lib.drv");
      });

      test("adding a path again changes nothing", async () => {
        const [path] = await build("lib", `again ${via}`);
        if (path === undefined) throw new Error("nothing built");
        await using from = await connect(builder, via);
        await using to = await connect(device, via);
        await copy(from, to, path);
        await copy(from, to, path);
        expect((await to.queryValidPaths([path])).size).toBe(1);
      });

      test("a wrong hash, a missing reference and a broken source are refused, and the connection stays usable", async () => {
        const [lib, app] = await build("app", `refuse ${via}`);
        if (lib === undefined || app === undefined) throw new Error("nothing built");
        await using from = await connect(builder, via);
        await using to = await connect(device, via);
        const info = await infoOf(from, lib);
        const wrong = { ...info, narHash: narHashFromDigest(new Uint8Array(32)) };
        const addWrong = to.addToStoreNar({ info: wrong, nar: from.narFromPath(lib), checkSignatures: false });
        await expect(addWrong).rejects.toThrow(/cannot add \S+-lib to the Nix store: hash mismatch importing path/);

        const orphan = to.addToStoreNar({
          info: await infoOf(from, app),
          nar: from.narFromPath(app),
          checkSignatures: false,
        });
        await expect(orphan).rejects.toBeInstanceOf(DaemonError);

        async function* broken() {
          yield new Uint8Array(8);
          throw new Error("download broke");
        }
        await expect(to.addToStoreNar({ info, nar: broken(), checkSignatures: false })).rejects.toThrow(
          "download broke",
        );

        expect((await to.queryValidPaths([lib, app])).size).toBe(0);
        await copy(from, to, lib);
        await copy(from, to, app);
        expect((await to.queryValidPaths([lib, app])).size).toBe(2);
      });

      test("checks signatures when asked to", async () => {
        const [path] = await build("lib", `signature ${via}`);
        if (path === undefined) throw new Error("nothing built");
        await using from = await connect(builder, via);
        await using to = await connect(device, via);
        const unsigned = await infoOf(from, path);
        const refused = await to
          .addToStoreNar({ info: unsigned, nar: from.narFromPath(path), checkSignatures: true })
          .catch((error: unknown) => error);
        expect(refused).toMatchObject({ hint: expect.stringContaining("trusted-public-keys") });

        await builder.run(["nix", "store", "sign", "--key-file", `${builder.directory}/../secret-key`, path]);
        const signed = await infoOf(from, path);
        expect(signed.signatures).toEqual([expect.stringMatching(/^test-1:/)]);
        await to.addToStoreNar({ info: signed, nar: from.narFromPath(path), checkSignatures: true });
        expect((await to.queryPathInfo(path))?.signatures).toEqual(signed.signatures);
      });

      test("holds 3000 temporary roots", async () => {
        const hash = (index: number) => index.toString().padStart(32, "0");
        const paths = Array.from({ length: 3_000 }, (_, index) => parseStorePath(`/nix/store/${hash(index)}-root`));
        await using connection = await connect(device, via);
        await connection.addTempRoots(paths);
        expect((await connection.queryValidPaths(paths)).size).toBe(0);
      });

      test("garbage collection leaves temporary roots alone while the connection is open", async () => {
        const paths = await build("top", `roots ${via}`);
        await using from = await connect(builder, via);
        await using probe = await connect(device, via);
        {
          await using to = await connect(device, via);
          await to.addTempRoots(paths);
          for (const path of paths) await copy(from, to, path);
          await collectGarbage();
          expect((await probe.queryValidPaths(paths)).size).toBe(paths.length);
        }
        await waitFor("the daemon to let go of its roots", async () => {
          await collectGarbage();
          return (await probe.queryValidPaths(paths)).size === 0;
        });
      });

      test("an indirect root keeps a closure after the connection has ended", async () => {
        const paths = await build("top", `indirect ${via}`);
        const link = device.hostPath(`/var/lib/nixdeploy/root-${via}`);
        {
          await using from = await connect(builder, via);
          await using to = await connect(device, via);
          for (const path of paths) await copy(from, to, path);
          await symlink(String(paths.at(-1)), link);
          await to.addIndirectRoot(`/var/lib/nixdeploy/root-${via}`);
        }
        await collectGarbage();
        await using to = await connect(device, via);
        expect((await to.queryValidPaths(paths)).size).toBe(paths.length);
      });

      test("copies 128 MiB in flat memory", async () => {
        const [path] = await build("big", `big ${via}`);
        if (path === undefined) throw new Error("nothing built");
        await using from = await connect(builder, via);
        await using to = await connect(device, via);
        const grownBytes = await peakGrowthBytes(() => copy(from, to, path));
        expect((await to.queryValidPaths([path])).size).toBe(1);
        expect(grownBytes).toBeLessThan(HELD_MAX_BYTES);
      });
    });
  });
}

/** How far this process's resident memory rose above where it began, at its highest. */
async function peakGrowthBytes(work: () => Promise<void>): Promise<number> {
  Bun.gc(true);
  await writeFile("/proc/self/clear_refs", "5");
  const before = await statusBytes("VmRSS");
  await work();
  return (await statusBytes("VmHWM")) - before;
}

async function statusBytes(field: string): Promise<number> {
  const status = await readFile("/proc/self/status", "utf8");
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]) * 1024;
}
