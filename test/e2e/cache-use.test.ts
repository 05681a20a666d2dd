/**
 * `nixdeploy cache use` with the compiled binary: real Nix reads the cache by what was written, through a daemon and as a
 * user; the files keep what was theirs, come out as they were, and show their token to nobody.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, chown, readFile, rename, stat, symlink, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";

const ANN = { name: "ann", id: 4_711 } as const;

let fleet: Fleet;
let path: string;
let device: Device;
let conf: string;
let netrc: string;
let untouched: string;

beforeAll(async () => {
  fleet = await createFleet("cache-use");
  path = await fleet.builder.build("app", { name: "tool", version: "1" });
  await fleet.expectRun(["push", path]);
  const nixConf = "trusted-users = root ann\n# the last line";
  device = await fleet.addDevice("reader", { users: [ANN], nixConf, withDaemon: false });
  [conf, netrc] = [join(device.directory, "etc-nix/nix.conf"), join(device.directory, "etc-nix/netrc")];
  untouched = await readFile(conf, "utf8");
}, 90_000);

afterAll(async () => await fleet[Symbol.asyncDispose](), 30_000);

const use = async (...words: readonly string[]) =>
  await fleet.run(["cache", "use", "default", ...words], { machine: device });
const tokensOf = async () =>
  (await fleet.expectRun(["token", "list"])).split("\n").filter((line) => line.includes("cache use"));
const modeOf = async (file: string) => ((await stat(file)).mode & 0o777).toString(8);

describe("for the whole machine", () => {
  test("--print shows it and writes nothing", async () => {
    const { exitCode, stdout } = await use("--print");
    expect([exitCode, stdout]).toEqual([
      0,
      expect.stringContaining(`extra-substituters = ${fleet.coordinator.url}/cache/default`),
    ]);
    expect(stdout).toContain("machine 127.0.0.1 login nixdeploy password nd_read_…");
    expect([await readFile(conf, "utf8"), await Bun.file(netrc).exists()]).toEqual([untouched, false]);
    expect(await tokensOf()).toEqual([]);
  });

  test("without a name it is the workspace's default cache; none is taken away without one", async () => {
    const without = await fleet.run(["cache", "use", "--print"], { machine: device });
    expect([without.exitCode, without.stdout]).toEqual([0, (await use("--print")).stdout]);
    const removing = await fleet.run(["cache", "use", "--remove"], { machine: device });
    expect(removing).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("cannot remove without a name") });
  });

  test("nix-daemon fetches from the cache by what was written; once more changes nothing", async () => {
    await writeFile(netrc, "machine elsewhere login a password b\n", { mode: 0o644 });
    const first = await use();
    expect([first.exitCode, first.stdout]).toEqual([0, ""]);
    expect(first.stderr).toContain(`changed: ${netrc}, ${conf}`);
    const written = [await readFile(conf, "utf8"), await readFile(netrc, "utf8")];
    expect(written[0]).toStartWith(`${untouched}\n\n# nixdeploy cache default at `);
    expect(written[1]).toMatch(
      /^machine elsewhere login a password b\nmachine 127\.0\.0\.1 login nixdeploy password nd_read_\S+\n$/,
    );
    expect([await modeOf(netrc), await modeOf(conf)]).toEqual(["600", "644"]);
    await device.startDaemon();
    await device.run(["nix-store", "--realise", path]);
    expect(await device.run([`${path}/bin/tool`])).toBe("tool 1");
    expect((await use()).stderr).toContain("nothing had to be changed");
    expect([await readFile(conf, "utf8"), await readFile(netrc, "utf8")]).toEqual(written);
    expect(await tokensOf()).toHaveLength(1);
  }, 60_000);

  test("another key, and a token that was revoked: the same command again", async () => {
    const [id = ""] = (await tokensOf())[0]?.split(" ") ?? [];
    await fleet.expectRun(["token", "revoke", id]);
    await fleet.expectRun(["cache", "rotate-key", "default"]);
    const before = await readFile(netrc, "utf8");
    expect((await use()).exitCode).toBe(0);
    const { publicKeys } = JSON.parse(await fleet.expectRun(["cache", "show", "default", "--json"]));
    expect(await readFile(conf, "utf8")).toContain(`extra-trusted-public-keys = ${publicKeys[0]}\n`);
    expect(await readFile(netrc, "utf8")).not.toBe(before);
    await chmod(netrc, 0o640);
    expect((await use()).stderr).toContain(`changed: ${netrc}`);
    expect(await modeOf(netrc)).toBe("600");
  }, 30_000);

  test("a private cache of another workspace at the same host is refused, a public one is not", async () => {
    await fleet.expectRun(["workspace", "create", "prod"]);
    const useProd = async () => await fleet.run(["cache", "use", "prod"], { machine: device });
    const refused = await useProd();
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("both are at 127.0.0.1")]);
    await fleet.expectRun(["cache", "set", "prod", "--public"]);
    expect((await useProd()).exitCode).toBe(0);
    expect((await readFile(conf, "utf8")).match(/^extra-substituters/gm)).toHaveLength(2);
    expect((await fleet.run(["cache", "use", "prod", "--remove"], { machine: device })).exitCode).toBe(0);
    expect(await readFile(netrc, "utf8")).toContain("login nixdeploy");
  }, 30_000);

  test("--remove leaves both files as they were", async () => {
    const { exitCode, stderr } = await use("--remove", "--url", fleet.coordinator.url);
    expect([exitCode, stderr]).toEqual([
      0,
      expect.stringContaining("its token is good still: nixdeploy token revoke "),
    ]);
    expect(await readFile(conf, "utf8")).toBe(`${untouched}\n`);
    expect(await readFile(netrc, "utf8")).toBe("machine elsewhere login a password b\n");
    expect((await use("--remove")).exitCode).toBe(1);
  });

  test("another entry for the host is not overwritten, unless it reads the cache", async () => {
    await writeFile(netrc, "machine 127.0.0.1 login me password secret\n", { mode: 0o600 });
    const refused = await use();
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("there is an entry already")]);
    expect(await readFile(conf, "utf8")).toBe(`${untouched}\n`);
    const mine = `machine 127.0.0.1 login me password ${await fleet.makeToken("read")}\n`;
    await writeFile(netrc, mine, { mode: 0o600 });
    expect((await use()).exitCode).toBe(0);
    expect(await readFile(netrc, "utf8")).toBe(mine);
  });

  test("files of somebody else stay theirs, and a public cache leaves the file of the tokens alone", async () => {
    expect((await use("--remove")).exitCode).toBe(0);
    await chmod(netrc, 0o640);
    for (const file of [netrc, conf]) await chown(file, ANN.id, ANN.id);
    const own = async () =>
      await Promise.all([netrc, conf].map(async (file) => [await modeOf(file), (await stat(file)).uid]));
    const useProd = async (...words: readonly string[]) =>
      (await fleet.run(["cache", "use", "prod", ...words], { machine: device })).exitCode;
    expect([await useProd(), await useProd("--remove")]).toEqual([0, 0]);
    expect(await own()).toEqual([
      ["640", ANN.id],
      ["644", ANN.id],
    ]);
    expect((await use()).exitCode).toBe(0);
    expect(await own()).toEqual([
      ["600", ANN.id],
      ["644", ANN.id],
    ]);
  });

  test("--remove takes away what is of the address that is given, and of no other that begins so", async () => {
    const before = await readFile(conf, "utf8");
    const { exitCode, stderr } = await use("--remove", "--url", fleet.coordinator.url.slice(0, -1));
    expect([exitCode, stderr]).toEqual([1, expect.stringContaining("cannot find lines of ours")]);
    expect(await readFile(conf, "utf8")).toBe(before);
    expect((await use("--remove", "--url", `${fleet.coordinator.url}/`)).exitCode).toBe(0);
  });

  test("the file of the tokens is the one that an included file names", async () => {
    await writeFile(join(device.directory, "etc-nix/more.conf"), "netrc-file = /etc/nix/other-netrc\n");
    await writeFile(conf, `${untouched}\ninclude more.conf\n`);
    expect((await use("--print")).stdout).toContain("# /etc/nix/other-netrc, mode 0600");
    await writeFile(conf, `${untouched}\n`);
  });

  test("a file of the tokens that is in the store, where everybody may read it, is refused", async () => {
    const tokens = await tokensOf();
    const store = join(device.directory, "nix/store/00000000000000000000000000000001-netrc");
    await writeFile(store, "");
    await rename(netrc, `${netrc}.mine`);
    await symlink("/nix/store/00000000000000000000000000000001-netrc", netrc);
    const { exitCode, stderr } = await use();
    expect([exitCode, stderr]).toEqual([
      1,
      expect.stringContaining("it is in the Nix store, which everybody may read"),
    ]);
    expect([await readFile(store, "utf8"), await tokensOf()]).toEqual(["", tokens]);
    await rename(`${netrc}.mine`, netrc);
  });

  test("a nix.conf that Nix makes: --nixos prints its lines and writes the token", async () => {
    const store = join(device.directory, "nix/store/00000000000000000000000000000000-nix.conf");
    await writeFile(store, untouched);
    await unlink(conf);
    await symlink("/nix/store/00000000000000000000000000000000-nix.conf", conf);
    const refused = await use();
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("--nixos prints the lines")]);
    await unlink(netrc);
    const { exitCode, stdout } = await use("--nixos");
    expect([exitCode, stdout]).toEqual([
      0,
      expect.stringMatching(/^nix\.settings = \{\n {2}extra-substituters = \[ "http/),
    ]);
    expect(stdout).not.toContain("nd_");
    expect(await readFile(store, "utf8")).toBe(untouched);
    expect([await readFile(netrc, "utf8"), await modeOf(netrc)]).toEqual([expect.stringContaining("nd_read_"), "600"]);
  });
});

describe("for a user", () => {
  test("whom the daemon trusts, it fetches from the cache; a token that may do more is not kept", async () => {
    const other = await fleet.builder.build("app", { name: "tool", version: "2" });
    await fleet.expectRun(["push", other]);
    const asAnn = { machine: device, user: ANN.name } as const;
    const push = await fleet.makeToken("push");
    const refused = await fleet.run(["cache", "use", "default"], { ...asAnn, token: push });
    expect([refused.exitCode, refused.stderr]).toEqual([2, expect.stringContaining("it is of kind push")]);
    const token = await fleet.makeToken("read");
    const { exitCode, stderr } = await fleet.run(["cache", "use", "default"], { ...asAnn, token });
    expect([exitCode, stderr]).toEqual([0, expect.not.stringContaining("does not trust this user")]);
    const own = join(device.directory, "homes/ann/.config/nix/netrc");
    expect(await readFile(own, "utf8")).toBe(`machine 127.0.0.1 login nixdeploy password ${token}\n`);
    await device.run(["nix-store", "--realise", other], { user: ANN.name });
    expect(await device.run([`${other}/bin/tool`])).toBe("tool 2");
  }, 60_000);
});
