/**
 * `nixdeploy copy` with what comes after the closure: profiles, and systems by their own script or by the engine that is
 * sent along. Each verb of nix-deploy once each way; what fails, and what shuts us out, is undone. Rows of docs/copy.md.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { type Builder, createBuilder, type FixtureOptions } from "../support/builder.ts";
import { createDevice, type Device, SYSTEM_PROFILE } from "../support/device.ts";
import { BINARY } from "../support/fleet.ts";
import { createHolds, type Holds } from "../support/holds.ts";
import { type SshServer, startSshServer } from "../support/ssh-server.ts";
import { prepareSudo } from "../support/sudo.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { waitFor } from "../support/wait-for.ts";

const ALICE = { name: "alice", id: 64_001 };
const BOB = { name: "bob", id: 64_002 };

let stack: AsyncDisposableStack;
let directory: string;
let builder: Builder;
let nuc: Device;
let ssh: SshServer;
let holds: Holds;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  directory = stack.use(await createTemporaryDirectory("copy-systems")).path;
  builder = stack.use(await createBuilder({ directory: join(directory, "builder") }));
  const options = { name: "nuc", directory: join(directory, "nuc"), users: [ALICE, BOB] };
  nuc = stack.use(await createDevice({ ...options, nixConf: "trusted-users = root alice bob\n" }));
  await nuc.install(builder, await build("0"));
  await nuc.startDaemon();
  holds = createHolds(nuc);
  await prepareSudo(nuc, { free: ["bob"], asked: { users: ["alice"], password: "open-sesame" } });
  ssh = stack.use(await startSshServer(nuc, { users: ["alice", "bob"] }));
}, 240_000);
afterAll(async () => {
  await stack[Symbol.asyncDispose]();
}, 30_000);

async function build(version: string, more: Partial<FixtureOptions["system"]> = {}): Promise<string> {
  return await builder.build("system", { name: "nuc", version, ...more });
}

const copy = (words: readonly string[], user = "root") =>
  builder.exec([BINARY, "copy", "--no-compress", "--json", "--to", ssh.address(user), ...words], {
    timeoutMs: 90_000,
    env: ssh.client,
  });
const systemSchema = z.object({ outcome: z.string(), reason: z.string(), by: z.string() });
const resultSchema = z.object({
  hosts: z.array(z.object({ profile: z.string().nullable(), system: systemSchema.nullable() })),
});
const systemOf = (stdout: string) => resultSchema.parse(JSON.parse(stdout)).hosts[0]?.system ?? null;
const sides = async () => ({
  profile: await nuc.link(SYSTEM_PROFILE),
  running: await nuc.link("/run/current-system"),
  boots: await nuc.bootDefault(),
});
const all = (system: string) => ({ profile: system, running: system, boots: system });

describe("a profile", () => {
  test("of root, by root; of a user, by that user; of root, by a user who may use sudo", async () => {
    const [first, second] = [
      await builder.build("profile", { name: "tools", version: "1" }),
      await builder.build("profile", { name: "tools", version: "2" }),
    ];
    expect(await copy([first, "--profile", "tools"])).toMatchObject({ exitCode: 0 });
    expect(await nuc.link("/nix/var/nix/profiles/tools")).toBe(first);
    expect(await copy([first, "--profile", "tools"], "alice")).toMatchObject({ exitCode: 0 });
    expect(await nuc.link(`${nuc.environmentOf("alice")["XDG_STATE_HOME"]}/nix/profiles/tools`)).toBe(first);
    expect(await copy([second, "--profile", "/nix/var/nix/profiles/tools"], "bob")).toMatchObject({ exitCode: 0 });
    expect(await nuc.link("/nix/var/nix/profiles/tools")).toBe(second);
    await nuc.run(["nix-store", "--gc"]);
    await nuc.run(["nix-store", "--check-validity", first, second]);
  }, 60_000);

  test("of root is refused to a user whom sudo asks, with things to try", async () => {
    const path = await builder.build("profile", { name: "tools", version: "3" });
    const { exitCode, stderr } = await copy([path, "--profile", "/nix/var/nix/profiles/tools"], "alice");
    expect(exitCode).toBe(77);
    expect(stderr).toContain("sudo wants the password of alice, for which nobody can be asked here");
    expect(stderr).toContain("1. Log in as root: ssh://root@127.0.0.1");
  });

  test("of root, by a user who types his password, which nobody sees; a wrong one is said", async () => {
    const path = await builder.build("profile", { name: "tools", version: "5" });
    const type = async (password: string) => {
      const words = ["--to", ssh.address("alice"), path, "--profile", "/nix/var/nix/profiles/typed"];
      const command = [BINARY, "copy", "--no-compress", "--no-sign", ...words].join(" ");
      return await builder.exec(["script", "-qec", command, "/dev/null"], { input: `${password}\n`, env: ssh.client });
    };
    const wrong = await type("let-me-in");
    expect(wrong.exitCode).toBe(77);
    expect(wrong.stdout).toContain("cannot become root on alice@127.0.0.1");
    const right = await type("open-sesame");
    expect(right.stdout).toContain("Password of alice on alice@127.0.0.1");
    expect(right.exitCode).toBe(0);
    expect(await nuc.link("/nix/var/nix/profiles/typed")).toBe(path);
  }, 60_000);

  test("an interrupt ends the question for a password at once", async () => {
    const path = await builder.build("profile", { name: "tools", version: "6" });
    const words = ["--to", ssh.address("alice"), path, "--profile", "/nix/var/nix/profiles/never"];
    const command = [BINARY, "copy", "--no-compress", "--no-sign", ...words].join(" ");
    // Ctrl-C when the question is there, and then nothing, until all is over.
    const typing = `{ until grep -q "Password of" "$0"; do sleep 0.1; done; printf "\\003"; until [ -e "$0.over" ]; do sleep 0.1; done; }`;
    const line = `${typing} | { script -qefc "$1" "$0"; echo "code $?"; : > "$0.over"; }`;
    const typed = join(directory, "typed");
    const ran = await builder.exec(["sh", "-c", `: > "$0"; ${line}`, typed, command], { env: ssh.client });
    expect(ran.stdout).toContain("Password of alice on alice@127.0.0.1");
    expect(ran.stdout).toEndWith("code 130\n");
  }, 90_000);

  test("`system` takes no other type", async () => {
    const path = await builder.build("profile", { name: "tools", version: "4" });
    const { exitCode, stderr } = await copy([path, "--profile", "system"]);
    expect({ exitCode, stderr }).toEqual({
      exitCode: 1,
      stderr: expect.stringContaining("takes only NixOS or nix-darwin"),
    });
  });
});

for (const { by, flags } of [
  { by: "switch-to-configuration", flags: [] },
  { by: "nixdeploy", flags: ["--send-binary"] },
] as const) {
  describe(`a system, by ${by}`, () => {
    const units = (name: string) => [{ name: `${name}.service` }];
    let before: string;
    beforeAll(async () => {
      // Sending the program takes a while, which no wait below should have to know.
      expect(await copy([await build("0"), "--dry-activate", ...flags])).toMatchObject({ exitCode: 0 });
    }, 120_000);
    beforeEach(async () => {
      before = String(await nuc.link("/run/current-system"));
    });

    test("one that shuts us out is undone over there, and we are told when we get in again", async () => {
      const faults = [{ stage: "activate", kind: "hold", argument: by }] as const;
      const system = await build(`${by}-shut`, { units: units("web"), faults });
      await holds.set(by);
      const words = [system, "--switch", "--confirm-window", "8s", ...flags];
      const command = builder.spawn([BINARY, "copy", "--no-compress", "--to", ssh.address("root"), ...words], {
        env: ssh.client,
      });
      await holds.reached(by);
      await ssh.stop();
      await holds.release(by);
      for (const running of [system, before]) {
        await waitFor(`${running} to run`, async () => (await sides()).running === running, {
          timeoutMs: 60_000,
          describe: command.output,
        });
      }
      await ssh.start();
      expect(await command.exited).toMatchObject({ exitCode: 1 });
      expect(command.output()).toContain("it ended rolled-back");
      expect(await sides()).toEqual(all(before));
    }, 120_000);

    test("one that cannot become the default is undone: profile, boot loader and what runs", async () => {
      const faults = [{ stage: "boot-loader", kind: "fail", actions: ["boot"] }] as const;
      const system = await build(`${by}-unbootable`, { units: units("web"), faults });
      const { exitCode, stdout } = await copy([system, "--switch", ...flags]);
      expect({ exitCode, system: systemOf(stdout) }).toMatchObject({
        exitCode: 1,
        system: { by, outcome: "rolled-back" },
      });
      expect(await sides()).toEqual(all(before));
    }, 120_000);

    // What the script does by itself, verb by verb, is in copy-verbs.test.ts.
    if (by === "switch-to-configuration") return;

    test("--dry-activate and --test move no profile", async () => {
      const system = await build(`${by}-test`, { units: units("web") });
      const dry = await copy([system, "--dry-activate", ...flags]);
      expect({ exitCode: dry.exitCode, system: systemOf(dry.stdout) }).toMatchObject({
        exitCode: 0,
        system: { by, outcome: "succeeded" },
      });
      expect(await sides()).toEqual(all(before));
      const tested = await copy([system, "--test", ...flags]);
      expect({ exitCode: tested.exitCode, system: systemOf(tested.stdout) }).toMatchObject({
        exitCode: 0,
        system: { by, outcome: "succeeded" },
      });
      expect(await sides()).toEqual({ profile: before, running: system, boots: before });
    }, 90_000);

    test("--switch makes it live and the default, --boot only the default", async () => {
      const [live, next] = [
        await build(`${by}-1`, { units: units("web") }),
        await build(`${by}-2`, { units: units("web") }),
      ];
      const switched = await copy([live, "--switch", ...flags]);
      expect(switched.stderr).toContain("switch-to-configuration");
      expect({ exitCode: switched.exitCode, system: systemOf(switched.stdout) }).toMatchObject({
        exitCode: 0,
        system: { by, outcome: "succeeded" },
      });
      expect(await sides()).toEqual(all(live));
      expect(await copy([next, "--boot", ...flags])).toMatchObject({ exitCode: 0 });
      expect(await sides()).toEqual({ profile: next, running: live, boots: next });
      expect(await copy([live, "--switch", ...flags])).toMatchObject({ exitCode: 0 });
    }, 120_000);

    test("units that fail (code 4): it goes back, or stays with --on-unit-failure keep", async () => {
      const broken = await build(`${by}-broken`, { units: [{ name: "broken.service", fails: true }] });
      const undone = await copy([broken, "--switch", ...flags]);
      expect({ exitCode: undone.exitCode, system: systemOf(undone.stdout) }).toMatchObject({
        exitCode: 1,
        system: { by, outcome: "rolled-back" },
      });
      expect(undone.stderr).toContain(`cannot activate on ${ssh.name("root")}: it ended rolled-back: `);
      expect(await sides()).toEqual(all(before));
      const kept = await copy([broken, "--switch", "--on-unit-failure", "keep", ...flags]);
      expect({ exitCode: kept.exitCode, system: systemOf(kept.stdout) }).toMatchObject({
        exitCode: 1,
        system: { by, outcome: "degraded" },
      });
      expect(await sides()).toEqual(all(broken));
      const good = await build(`${by}-good`, { units: units("web") });
      expect(await copy([good, "--switch", ...flags])).toMatchObject({ exitCode: 0 });
    }, 120_000);
  });
}

test("what is no system is refused, and nothing is touched", async () => {
  const before = await sides();
  const path = await builder.build("profile", { name: "none", version: "1" });
  const { exitCode, stderr } = await copy([path, "--switch"]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 1, stderr: expect.stringContaining("it is no NixOS system") });
  expect(await sides()).toEqual(before);
});

test("--reboot without a way back is refused unless it is asked for by name", async () => {
  const before = await sides();
  const system = await build("rebooted");
  const { exitCode, stderr } = await copy([system, "--reboot"]);
  expect({ exitCode, stderr }).toEqual({
    exitCode: 1,
    stderr: expect.stringContaining("nobody over there could go back if it does not come up"),
  });
  expect(stderr).toContain("3. Reboot all the same: --allow-unproven-boot");
  expect(await sides()).toEqual(before);
  // Said before anything is copied.
  expect(await nuc.link(system)).toBeNull();
});

test("a nixdeploy in the store is sent as a store path, which is kept over there", async () => {
  const folder = join(directory, "nixdeploy-packaged");
  await mkdir(join(folder, "bin"), { recursive: true });
  await copyFile(BINARY, join(folder, "bin/nixdeploy"));
  const own = await builder.run(["nix-store", "--add", folder]);
  const system = await build("by-store-path");
  const words = ["--no-compress", "--json", "--to", ssh.address("root"), system, "--switch", "--send-binary"];
  const ran = await builder.exec([`${own}/bin/nixdeploy`, "copy", ...words], { timeoutMs: 90_000, env: ssh.client });
  expect({ exitCode: ran.exitCode, system: systemOf(ran.stdout) }).toMatchObject({
    ...{ exitCode: 0, system: { by: "nixdeploy", outcome: "succeeded" } },
  });
  expect(ran.stderr).not.toContain("sending nixdeploy");
  expect(await sides()).toEqual(all(system));
  const link = `/var/lib/nixdeploy/bin/nixdeploy-${own.slice("/nix/store/".length)}`;
  expect(await nuc.run(["nix-store", "--query", "--roots", own])).toContain(link);
}, 120_000);

test("--reboot by the engine tries it for one boot, in which we must get in again", async () => {
  const base = { bootLoader: "systemd-boot", units: [{ name: "web.service" }] } as const;
  await using pi = await createDevice({ name: "pi", directory: join(directory, "pi") });
  const before = await build("trial-0", base);
  await pi.install(builder, before);
  await using server = await startSshServer(pi);
  const reboot = (system: string, ...flags: readonly string[]) =>
    builder.spawn(
      [
        BINARY,
        ...["copy", "--no-compress", "--send-binary", "--to", server.address("root"), system, "--reboot", ...flags],
        // A busy machine comes back late; undone for that, it would wait for a reboot that nobody here makes.
        ...["--confirm-window", "3m"],
      ],
      { env: server.client },
    );
  const comeUp = async () => {
    await pi.run(["mkdir", "-p", "/run/sshd"]);
    await server.start();
  };
  const good = await build("trial-1", { ...base, kernelVersion: "6.12" });
  // The program, first: sending it takes a while.
  const words = ["--no-compress", "--send-binary", "--to", server.address("root"), good, "--dry-activate"];
  await builder.run([BINARY, "copy", ...words], { env: server.client, timeoutMs: 120_000 });
  const command = reboot(good);
  expect(await pi.awaitReboot(command.output)).toBe(good);
  // Until the proof the old one is what any other boot brings.
  expect(await pi.bootDefault()).toBe(before);
  await comeUp();
  const ended = () => command.output().includes("succeeded: ");
  await waitFor("the copy to say how it ended", ended, { timeoutMs: 120_000, describe: command.output });
  expect(await command.exited).toMatchObject({ exitCode: 0 });
  expect([await pi.link(SYSTEM_PROFILE), await pi.bootDefault()]).toEqual([good, good]);
}, 240_000);
