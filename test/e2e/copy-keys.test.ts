/**
 * Signing in `nixdeploy copy`: a key that is made where the closure is, whose public half the other side comes to trust after
 * somebody said yes, in a nix.conf that is a plain file; what happens where it is not; and that the secret stays.
 */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Builder, createBuilder } from "../support/builder.ts";
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
