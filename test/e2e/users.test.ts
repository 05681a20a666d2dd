/**
 * Agents of people who are not root, with a daemon of each suite: one whom the daemon trusts, and one whom it does not,
 * who must get by with the daemon's own keys and is told how.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { appendFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Device } from "../support/device.ts";
import { BINARY, createFleet, type Fleet } from "../support/fleet.ts";
import type { NixDaemon } from "../support/nix-daemon.ts";
import { ensureNixOf, NIX_SUITES } from "../support/nix-versions.ts";
import { rolloutResultSchema } from "../support/results.ts";

const ALICE = { name: "alice", id: 64_001 };
const MALLORY = { name: "mallory", id: 64_002 };

let fleet: Fleet;
/** Versions 1 and 2 of a profile, in the cache. */
let profiles: readonly string[];

beforeAll(async () => {
  fleet = await createFleet("users");
  const build = (version: string) => fleet.builder.build("profile", { name: "hello", version });
  profiles = [await build("1"), await build("2")];
  await fleet.expectRun(["push", ...profiles]);
}, 60_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

async function activate(agent: string, storePath: string | undefined) {
  const result = await fleet.run(["activate", `${agent}=${storePath}`, "--json"]);
  const [deployment] = rolloutResultSchema.parse(JSON.parse(result.stdout)).deployments;
  return { exitCode: result.exitCode, state: deployment?.state, reason: deployment?.reason ?? "" };
}

for (const suite of NIX_SUITES) {
  describe(`with the daemon of ${suite}`, () => {
    let device: Device;
    let daemon: NixDaemon;
    const profileOf = (user: string) => `${device.environmentOf(user)["XDG_STATE_HOME"]}/nix/profiles/tools`;

    beforeAll(async () => {
      device = await fleet.addDevice(suite, {
        nix: await ensureNixOf(suite),
        users: [ALICE, MALLORY],
        nixConf: "trusted-users = root alice\n",
        withDaemon: false,
      });
      daemon = await device.startDaemon();
      for (const { name } of [ALICE, MALLORY]) {
        await fleet.startAgent(device, { name: `${suite}-${name}`, profile: "tools", user: name });
      }
    }, 60_000);

    test("one whom it does not trust is refused, untouched, and told which line nix.conf lacks", async () => {
      const { exitCode, state, reason } = await activate(`${suite}-mallory`, profiles[0]);
      expect({ exitCode, state }).toEqual({ exitCode: 1, state: "failed" });
      expect(reason).toContain("no signature by a key that the Nix daemon trusts");
      expect(await device.link(profileOf("mallory"))).toBeNull();

      // A trusted one needs no key in nix.conf.
      const trusted = await activate(`${suite}-alice`, profiles[0]);
      expect(trusted).toMatchObject({ exitCode: 0, state: "succeeded" });
      expect(await device.link(profileOf("alice"))).toBe(String(profiles[0]));

      // And who does as the message says is through.
      const [, line] = /`(extra-trusted-public-keys = \S+)`/.exec(reason) ?? [];
      expect(line).toBeDefined();
      await appendFile(join(device.directory, "etc-nix/nix.conf"), `${line}\n`);
      await daemon[Symbol.asyncDispose]();
      daemon = await device.startDaemon();
      expect(await activate(`${suite}-mallory`, profiles[1])).toMatchObject({ exitCode: 0, state: "succeeded" });
      expect(await device.link(profileOf("mallory"))).toBe(String(profiles[1]));
    }, 60_000);

    test("both programs run, outlive a garbage collection, and all files are where they belong", async () => {
      await device.run(["nix-store", "--gc"]);
      for (const [index, user] of [ALICE, MALLORY].entries()) {
        const program = `${profileOf(user.name)}/bin/hello`;
        expect(await device.run([program], { user: user.name })).toBe(`hello ${index + 1}`);
        const state = `${device.environmentOf(user.name)["XDG_STATE_HOME"]}/nixdeploy/agents/${suite}-${user.name}`;
        const { uid, mode } = await stat(device.hostPath(state));
        expect({ uid, mode: mode & 0o777 }).toEqual({ uid: user.id, mode: 0o700 });
      }
      expect(await device.run(["ls", "/var/lib/nixdeploy"])).toBe("");
    });

    test("one whom it does not trust may push", async () => {
      const user = "mallory";
      await device.run(["/bin/sh", "-c", `echo ${suite} > "$HOME/notes"`], { user });
      const home = device.environmentOf(user)["HOME"];
      const path = await device.run(["nix-store", "--add", `${home}/notes`], { user });
      const env = { NIXDEPLOY_URL: fleet.coordinator.url, NIXDEPLOY_TOKEN: await fleet.makeToken("push") };
      expect(JSON.parse(await device.run([BINARY, "push", path, "--json"], { user, env }))).toMatchObject({
        uploaded: 1,
      });
    });

    test("when it is gone both are told to start it, and no store is made in a home", async () => {
      await daemon[Symbol.asyncDispose]();
      for (const { name } of [ALICE, MALLORY]) {
        const before = await device.link(profileOf(name));
        const { exitCode, state, reason } = await activate(`${suite}-${name}`, profiles[1]);
        expect({ exitCode, state }).toEqual({ exitCode: 1, state: "failed" });
        expect(reason).toContain("Start nix-daemon on this machine");
        expect(await device.link(profileOf(name))).toBe(String(before));
        const home = device.environmentOf(name)["HOME"];
        expect(await device.run(["find", `${home}`, "-path", "*/nix/root"])).toBe("");
      }
    }, 60_000);
  });
}
