/**
 * The package of nix/, really built by Nix, with a stand-in for nixpkgs' stdenv: its dependencies are what the hash in
 * nix/dependencies.json says, the program has the loader of that stdenv, and it runs.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { homedir } from "node:os";
import { join } from "node:path";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import { type Builder, createBuilder } from "../support/builder.ts";
import { ensureDebianPackages } from "../support/debian.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";

const ROOT = join(import.meta.dir, "../..");
const PKGS = `(import ${ROOT}/test/nix-language/stubs.nix { lib = import ${ROOT}/test/nix-language/lib.nix; }).pkgs`;

let directory: TemporaryDirectory;
let machine: Builder;

beforeAll(async () => {
  await ensureDebianPackages(["patchelf"]);
  directory = await createTemporaryDirectory("nix-package");
  machine = await createBuilder({ directory: directory.path });
}, 60_000);
afterAll(async () => {
  await machine[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

test("the program is built from the lock file, and keeps what makes it a program", async () => {
  const build = ["nix-build", "--no-out-link", "--expr", `${PKGS}.callPackage ${ROOT}/nix/package.nix { }`];
  // What npm has downloaded here before need not be downloaded again.
  const env = { npm_config_cache: join(homedir(), ".npm") };
  const program = `${await machine.run(build, { env, timeoutMs: 110_000 })}/bin/nixdeploy`;
  expect(await machine.run([program, "--version"])).toBe(`nixdeploy ${NIXDEPLOY_VERSION}`);
  expect(await machine.run(["patchelf", "--print-interpreter", program])).toMatch(/^\/nix\/store\/\w{32}-compiler\//);
}, 120_000);
