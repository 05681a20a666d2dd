/** Vanilla Nix reads our cache, with signature checks on: `nix copy --from` and `nix-store -r`, private and public. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { cacheResultSchema } from "../support/results.ts";

let fleet: Fleet;
let cacheUrl: string;
let publicKey: string;
let system: string;
let profile: string;

beforeAll(async () => {
  fleet = await createFleet("vanilla-nix");
  const shown = cacheResultSchema.parse(JSON.parse(await fleet.expectRun(["cache", "show", "default", "--json"])));
  cacheUrl = shown.url;
  publicKey = shown.publicKeys[0] ?? "";
  expect(shown.public).toBe(false);
  system = await fleet.builder.build("system", { name: "nuc", version: "1" });
  profile = await fleet.builder.build("profile", { name: "hello", version: "1" });
  await fleet.expectRun(["push", system, profile]);
}, 60_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

/** nix.conf requires signatures; the key is what makes ours count. */
function trusting(key: string): readonly string[] {
  return ["--option", "trusted-public-keys", key];
}

async function writeNetrc(device: Device, password: string): Promise<readonly string[]> {
  const file = join(device.directory, "netrc");
  await writeFile(file, `machine 127.0.0.1\nlogin anyone\npassword ${password}\n`, { mode: 0o600 });
  return ["--option", "netrc-file", file];
}

test("a private cache answers nobody without a credential", async () => {
  expect((await fetch(`${cacheUrl}/nix-cache-info`)).status).toBe(401);
  const device = await fleet.addDevice("stranger");
  const result = await device.exec(["nix", "copy", "--from", cacheUrl, profile, ...trusting(publicKey)]);
  expect(result.exitCode).not.toBe(0);
  expect((await device.exec(["nix-store", "--check-validity", profile])).exitCode).not.toBe(0);
});

test("nix copy from the private cache, with a read token in netrc", async () => {
  const device = await fleet.addDevice("copier");
  const netrc = await writeNetrc(device, await fleet.makeToken("read"));
  await device.run(["nix", "copy", "--from", cacheUrl, system, ...trusting(publicKey), ...netrc]);
  await device.run(["nix-store", "--verify", "--check-contents"]);
  expect(await fleet.builder.run(["nix-store", "-qR", system])).toBe(await device.run(["nix-store", "-qR", system]));
});

test("nix-store -r through the daemon, with a read token in netrc", async () => {
  const device = await fleet.addDevice("realiser");
  const netrc = await writeNetrc(device, await fleet.makeToken("read"));
  const options = ["--option", "substituters", cacheUrl, ...trusting(publicKey), ...netrc];
  await device.run(["nix-store", "-r", profile, ...options], { env: { NIX_REMOTE: "daemon" } });
  expect(await device.run([`${profile}/bin/hello`])).toBe("hello 1");
});

test("without our key Nix refuses what we serve", async () => {
  const device = await fleet.addDevice("distrustful");
  const netrc = await writeNetrc(device, await fleet.makeToken("read"));
  const result = await device.exec(["nix", "copy", "--from", cacheUrl, profile, ...netrc]);
  expect(result.exitCode).not.toBe(0);
  expect(result.stderr).toContain("signature");
});

test("a public cache needs no credential, and becomes private again", async () => {
  await fleet.expectRun(["cache", "set", "default", "--public"]);
  const device = await fleet.addDevice("public-reader");
  await device.run(["nix", "copy", "--from", cacheUrl, profile, ...trusting(publicKey)]);
  const other = await fleet.addDevice("public-realiser");
  await other.run(["nix-store", "-r", system, "--option", "substituters", cacheUrl, ...trusting(publicKey)]);
  await fleet.expectRun(["cache", "set", "default", "--private"]);
  expect((await fetch(`${cacheUrl}/nix-cache-info`)).status).toBe(401);
});
