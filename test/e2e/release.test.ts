/**
 * A release for real, of the one platform that is never this machine's: here, and again in another directory, signed
 * there by a key of the test. The same bytes must come out, and what a user is told to run must accept them.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import { runChecked } from "../support/processes.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";

const ROOT = join(import.meta.dir, "../..");
/** What a checkout has; the libraries come beside it, without those that only development needs. */
const SOURCES = ["src", "scripts", "docs", "build.ts", "package.json", "bun.lock", "tsconfig.json", "bunfig.toml"];
const DOCUMENTS = ["README.md", "CHANGELOG.md", "LICENSE"];
const NOT_NEEDED = ["@biomejs", "@oven", "@typescript", "bun", "bun-types", "typescript", ".bin", ".cache"];
const PLATFORM = process.arch === "x64" ? "linux-arm64" : "linux-x64";
const NAME = `nixdeploy-${NIXDEPLOY_VERSION}-${PLATFORM}`;
const ARCHIVE = `${NAME}.tar.gz`;
const TIMEOUT_MS = 110_000;

let temporary: TemporaryDirectory;
let here: string;
let elsewhere: string;
let output: string;

/** @returns what it printed */
async function release(root: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return await runChecked([process.execPath, "scripts/release.ts", ...args], { cwd: root, env, timeoutMs: TIMEOUT_MS });
}

async function copyCheckout(target: string): Promise<void> {
  await mkdir(join(target, "node_modules"), { recursive: true });
  for (const name of [...SOURCES, ...DOCUMENTS]) await cp(join(ROOT, name), join(target, name), { recursive: true });
  for (const name of await readdir(join(ROOT, "node_modules"))) {
    if (NOT_NEEDED.includes(name)) continue;
    await cp(join(ROOT, "node_modules", name), join(target, "node_modules", name), { recursive: true });
  }
  // The verified Bun of the other platform is not what differs between checkouts.
  await symlink(join(ROOT, ".toolchain"), join(target, ".toolchain"));
}

beforeAll(async () => {
  temporary = await createTemporaryDirectory("release");
  here = join(temporary.path, "here");
  elsewhere = join(temporary.path, "some/where/else");
  output = await release(ROOT, ["--unsigned", "--only", PLATFORM, "--out", here]);

  await copyCheckout(elsewhere);
  const key = generateKeyPairSync("ed25519", {
    privateKeyEncoding: { format: "pem", type: "pkcs8" },
    publicKeyEncoding: { format: "pem", type: "spki" },
  });
  await writeFile(join(elsewhere, "key.pem"), key.privateKey, { mode: 0o600 });
  await writeFile(join(elsewhere, "docs/release-key.pem"), key.publicKey);
  await release(elsewhere, ["--only", PLATFORM], { NIXDEPLOY_RELEASE_KEY_FILE: join(elsewhere, "key.pem") });
}, 2 * TIMEOUT_MS);

afterAll(async () => {
  await temporary[Symbol.asyncDispose]();
});

test("the same archive comes out of two directories, byte for byte", async () => {
  const [first, second] = await Promise.all([
    readFile(join(here, ARCHIVE)),
    readFile(join(elsewhere, "dist/release", ARCHIVE)),
  ]);
  expect(first.equals(second)).toBe(true);
});

test("sums and signature are what the install page's commands accept", async () => {
  const page = await readFile(join(ROOT, "docs/install.md"), "utf8");
  const commands = /^openssl pkeyutl [^\n]+\nsha256sum [^\n]+$/m.exec(page)?.[0] ?? "no commands";
  const folder = join(elsewhere, "dist/release");
  await cp(join(elsewhere, "docs/release-key.pem"), join(folder, "release-key.pem"));
  const said = await runChecked(["/bin/sh", "-euc", commands], { cwd: folder });
  expect(said.split("\n")).toEqual(["Signature Verified Successfully", `${ARCHIVE}: OK`]);
  await runChecked(["sha256sum", "--check", "--strict", "SHA256SUMS"], { cwd: here });
});

test("the archive holds the program and its documents", async () => {
  const listed = (await runChecked(["tar", "-tzf", ARCHIVE], { cwd: here })).split("\n");
  expect(listed).toEqual(["nixdeploy", "docs/install.md", ...DOCUMENTS].map((name) => `${NAME}/${name}`).sort());
});

test("what was tried, what was not, and that it is unsigned stands at the end", () => {
  expect(output.split("\n").slice(-2)).toEqual([
    expect.stringMatching(new RegExp(`^release: ${PLATFORM}: (tried, emulated by QEMU|NOT tried: .+)$`)),
    expect.stringMatching(/^release: .+ is complete, UNSIGNED$/),
  ]);
});
