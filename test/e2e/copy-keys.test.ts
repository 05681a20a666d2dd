/**
 * Signing in `nixdeploy copy`: a key that is made where the closure is, whose public half the other side comes to trust after
 * somebody said yes, in a nix.conf that is a plain file; what happens where it is not; and that the secret stays.
 */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { chmod, chown, copyFile, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ENTER_KEY_SCRIPT } from "../../src/client/copy/trust.ts";
import { type Builder, createBuilder } from "../support/builder.ts";
import { addClosure } from "../support/closure.ts";
import { createDevice, type Device } from "../support/device.ts";
import { BINARY } from "../support/fleet.ts";
import type { NixDaemon } from "../support/nix-daemon.ts";
import { ensureNixOf } from "../support/nix-versions.ts";
import { type SshServer, startSshServer } from "../support/ssh-server.ts";
import { prepareSudo } from "../support/sudo.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

const MALLORY = { name: "mallory", id: 64_002 };
const BOB = { name: "bob", id: 64_003 };
const KEY_FILE = "/var/lib/nixdeploy/copy/signing-key";

let stack: AsyncDisposableStack;
let builder: Builder;
let nuc: Device;
let daemon: NixDaemon;
let ssh: SshServer;
let conf: string;
/** As it was when the machine was made. */
let original: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const directory = stack.use(await createTemporaryDirectory("copy-keys")).path;
  builder = stack.use(await createBuilder({ directory: join(directory, "builder") }));
  const options = { name: "nuc", directory: join(directory, "nuc"), users: [MALLORY, BOB] };
  // It says whom it trusts, and it trusts root alone.
  nuc = stack.use(await createDevice({ ...options, nix: await ensureNixOf("sid") }));
  daemon = await nuc.startDaemon();
  await prepareSudo(nuc, { free: ["bob"] });
  ssh = stack.use(await startSshServer(nuc, { users: ["mallory", "bob"] }));
  conf = join(nuc.directory, "etc-nix/nix.conf");
  original = await readFile(conf, "utf8");
}, 120_000);
afterAll(async () => {
  await stack[Symbol.asyncDispose]();
}, 30_000);
beforeEach(async () => {
  await restoreConf();
});

async function restoreConf(): Promise<void> {
  // It may be a link to a file that must stay as it is.
  await writeFile(`${conf}.test`, original);
  await rename(`${conf}.test`, conf);
}

let count = 0;
async function copyNew(user: string, flags: readonly string[] = []) {
  count += 1;
  const path = await builder.build("app", { name: `signed-${count}`, version: "1" });
  const result = await builder.exec([BINARY, "copy", "--to", ssh.address(user), path, ...flags], {
    env: ssh.client,
    timeoutMs: 60_000,
  });
  const isThere = (await nuc.exec(["nix-store", "--check-validity", path])).exitCode === 0;
  return { ...result, path, isThere };
}

const readPublicKey = () => builder.run(["sh", "-c", `nix key convert-secret-to-public < ${KEY_FILE}`]);

test("with --yes the key is made here, trusted there, and asked for once", async () => {
  const first = await copyNew("root", ["--yes"]);
  expect(first).toMatchObject({ exitCode: 0, isThere: true });
  expect(first.stderr).toContain(`made a key to sign with, which stays here: ${KEY_FILE}`);
  expect(first.stderr).toContain("trusts the key builder-copy-1 from now on");
  expect((await stat(builder.hostPath(KEY_FILE))).mode & 0o777).toBe(0o600);
  const line = `extra-trusted-public-keys = ${await readPublicKey()}`;
  expect(await readFile(conf, "utf8")).toBe(`${original}\n# added by nixdeploy copy\n${line}\n`);
  expect(await nuc.run(["nix", "path-info", "--sigs", first.path])).toContain("builder-copy-1:");

  const second = await copyNew("root");
  expect(second).toMatchObject({ exitCode: 0, isThere: true });
  expect(second.stderr).not.toContain("key");
  expect((await readFile(conf, "utf8")).split("extra-trusted-public-keys")).toHaveLength(2);

  // Whom the daemon does not trust needs no trust any more, once it has read its configuration.
  await daemon[Symbol.asyncDispose]();
  daemon = await nuc.startDaemon();
  expect(await copyNew("mallory")).toMatchObject({ exitCode: 0, isThere: true });

  // The secret was never over there.
  const secret = (await readFile(builder.hostPath(KEY_FILE), "utf8")).split(":")[1] ?? "none";
  expect(await nuc.exec(["grep", "-rqsF", secret, "/var/lib", "/run", nuc.directory])).toMatchObject({ exitCode: 1 });
}, 90_000);

test("without anybody to ask nothing is written: root's word is enough, and it is said", async () => {
  const result = await copyNew("root");
  expect(result).toMatchObject({ exitCode: 0, isThere: true });
  expect(result.stderr).toContain("its nix.conf does not have the key builder-copy-1; it takes root's word");
  expect(await readFile(conf, "utf8")).toBe(original);
});

test("a nix.conf that somebody else makes (NixOS) is left alone, --yes or not", async () => {
  await rename(conf, `${conf}.made`);
  await symlink(`${conf}.made`, conf);
  expect(await copyNew("root", ["--yes"])).toMatchObject({ exitCode: 0, isThere: true });
  await daemon[Symbol.asyncDispose]();
  daemon = await nuc.startDaemon();
  const refused = await copyNew("mallory", ["--yes"]);
  expect(refused).toMatchObject({ exitCode: 1, isThere: false });
  expect(refused.stderr).toContain("does not trust the key builder-copy-1, and not mallory either");
  expect(refused.stderr).toContain(`extra-trusted-public-keys = ${await readPublicKey()}`);
  expect(refused.stderr).toMatch(/ {2}- 1\. Add .*\n {2}- 2\. /);
  expect(await readFile(`${conf}.made`, "utf8")).toBe(original);
}, 60_000);

test("who may use sudo without a password comes in as root; who may not is told what to do", async () => {
  await daemon[Symbol.asyncDispose]();
  daemon = await nuc.startDaemon();
  expect(await copyNew("bob")).toMatchObject({ exitCode: 0, isThere: true });
  expect(await copyNew("mallory")).toMatchObject({ exitCode: 1, isThere: false });
  expect(await readFile(conf, "utf8")).toBe(original);
  // And with a yes, sudo writes the line.
  expect(await copyNew("bob", ["--yes"])).toMatchObject({ exitCode: 0 });
  expect(await readFile(conf, "utf8")).toContain("builder-copy-1:");
}, 60_000);

test("--no-sign makes and exchanges nothing", async () => {
  const result = await copyNew("root", ["--no-sign", "--yes"]);
  expect(result).toMatchObject({ exitCode: 0, isThere: true });
  expect(await nuc.run(["nix", "path-info", "--sigs", result.path])).not.toContain("builder-copy-1");
  const refused = await copyNew("mallory", ["--no-sign"]);
  expect(refused).toMatchObject({ exitCode: 1, isThere: false });
  expect(refused.stderr).toContain("1. Leave --no-sign out");
  expect(await readFile(conf, "utf8")).toBe(original);
});

test("a key of one's own is used as it is; one that others may read is refused", async () => {
  const key = await builder.generateKey("team-1");
  const result = await copyNew("root", ["--yes", "--signing-key-file", key.secretKeyFile]);
  expect(result).toMatchObject({ exitCode: 0 });
  expect(await readFile(conf, "utf8")).toContain(key.publicKey);
  await builder.run(["chmod", "644", KEY_FILE]);
  const loose = await copyNew("root");
  await builder.run(["chmod", "600", KEY_FILE]);
  expect({ exitCode: loose.exitCode, stderr: loose.stderr }).toEqual({
    exitCode: 1,
    stderr: expect.stringContaining(`cannot use the signing key ${KEY_FILE}: others may read it`),
  });
});

test("many who add a key at once write over nobody's line", async () => {
  const lines = Array.from({ length: 20 }, (_, index) => `extra-trusted-public-keys = at-once-${index}:AAAA`);
  const ends = await Promise.all(lines.map((line) => nuc.exec(["sh", "-c", ENTER_KEY_SCRIPT, "script", conf, line])));
  expect(ends.map(({ exitCode }) => exitCode)).toEqual(lines.map(() => 0));
  const text = await readFile(conf, "utf8");
  expect(text).toStartWith(original);
  expect(lines.filter((line) => !text.includes(`\n${line}\n`))).toEqual([]);
  expect((await readdir(dirname(conf))).filter((name) => /^nix\.conf\.(?!made$)/.test(name))).toEqual([]);
});

test("where an installer keeps nix.conf, the line goes into the file beside it that is the user's", async () => {
  await writeFile(conf, `${original}!include nix.custom.conf\n`);
  const result = await copyNew("root", ["--yes"]);
  expect(result).toMatchObject({ exitCode: 0, isThere: true });
  expect(await readFile(conf, "utf8")).toBe(`${original}!include nix.custom.conf\n`);
  const custom = join(dirname(conf), "nix.custom.conf");
  expect(await readFile(custom, "utf8")).toContain("extra-trusted-public-keys = builder-copy-1:");
  expect((await stat(custom)).mode & 0o777).toBe(0o644);
  await rm(custom);
});

test("from a host: who may use sudo here without a password takes the path in as root; another is told", async () => {
  const directory = join(dirname(nuc.directory), "desk");
  await using desk = await createDevice({ name: "desk", directory, users: [MALLORY, BOB] });
  await desk.startDaemon();
  await prepareSudo(desk, { free: ["bob"] });
  const top = await addClosure(nuc, { name: "from", pathCount: 3, sizeBytes: 30_000 });
  const take = async ({ name, id }: typeof BOB) => {
    // What ssh needs, where this user sees it.
    const [key, hosts, config] = ["key", "known_hosts", "config"].map((file) => join(directory, `${name}-${file}`));
    await copyFile(join(nuc.directory, "sshd/client_key"), String(key));
    await chmod(String(key), 0o600);
    await chown(String(key), id, id);
    await copyFile(join(nuc.directory, "sshd/known_hosts"), String(hosts));
    await writeFile(String(config), `UserKnownHostsFile ${hosts}\nIdentityFile ${key}\nIdentitiesOnly yes\n`);
    return await desk.exec([BINARY, "copy", "--from", ssh.address("root"), top], {
      ...{ user: name, timeoutMs: 60_000, env: { NIX_SSHOPTS: `-F ${config}` } },
    });
  };
  const refused = await take(MALLORY);
  expect({ exitCode: refused.exitCode, stderr: refused.stderr }).toEqual({
    exitCode: 1,
    stderr: expect.stringContaining("the Nix daemon of this machine does not trust the key nuc-copy-1"),
  });
  expect(await take(BOB)).toMatchObject({ exitCode: 0, stdout: `${top}\n` });
  expect(await desk.run(["nix-store", "--check-validity", top])).toBe("");
}, 60_000);
