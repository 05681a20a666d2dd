/**
 * A foreign cache, filled by real Nix and signed by a key of its own, with the compiled binary: what only it has is
 * deployed without a push; with a wrong key or away it is refused before anything starts, with the reason. It is added
 * after the devices' first contact: one has pinned the coordinator's key, which vouches for it; the other has keys from its
 * configuration, of which one must.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { SigningKey } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { type StaticCache, startStaticCache } from "../support/static-cache.ts";

const PROFILE = "/nix/var/nix/profiles/hello";

let fleet: Fleet;
let foreign: StaticCache;
let device: Device;
let agent: SpawnedProcess;
let strict: SpawnedProcess;
let operatorKey: SigningKey;

const addForeign = async (publicKey: string) =>
  await fleet.expectRun(["cache", "add-foreign", "theirs", "--substituter", foreign.url, "--public-key", publicKey]);

const build = async (version: string) => await fleet.builder.build("profile", { name: "hello", version });

beforeAll(async () => {
  fleet = await createFleet("foreign");
  foreign = await startStaticCache(fleet.builder, "theirs-1");
  device = await fleet.addDevice("nuc");
  agent = await fleet.startAgent(device, { profile: "hello" });
  operatorKey = await fleet.builder.generateKey("operator-1");
  const trustedPublicKeys = [operatorKey.publicKey];
  strict = await fleet.startAgent(await fleet.addDevice("strict"), { profile: "hello", trustedPublicKeys });
  await addForeign(foreign.publicKey);
}, 90_000);

afterAll(async () => {
  await foreign[Symbol.asyncDispose]();
  await fleet[Symbol.asyncDispose]();
}, 30_000);

test("what only the foreign cache has is deployed, and our own cache never gets it", async () => {
  const path = await build("theirs");
  await foreign.add(path);
  await agent.waitForLine(/what the cache theirs serves may be signed by theirs-1:\S+ now: default-\S+ vouches for it/);
  const output = await fleet.expectRun(["activate", `nuc=${path}`, "--json"]);
  expect(rolloutResultSchema.parse(JSON.parse(output)).deployments).toMatchObject([{ state: "succeeded" }]);
  expect(await device.run([`${PROFILE}/bin/hello`])).toBe("hello theirs");
  expect(foreign.requests.some((name) => name.startsWith("/nar/"))).toBeTrue();
  const paths = await Array.fromAsync(new Bun.Glob("nars/**/*.nar.zst").scan(fleet.coordinator.dataDirectory));
  expect(paths).toEqual([]);
}, 60_000);

test("a device with keys from its configuration takes it once a key of those has vouched for it", async () => {
  const path = await build("theirs");
  await strict.waitForLine(/the cache theirs signs with a key that this device has not pinned \(theirs-1\)/);
  const refused = await fleet.run(["activate", `strict=${path}`]);
  expect([refused.exitCode, refused.stdout + refused.stderr]).toEqual([
    1,
    expect.stringContaining("none that is valid under the keys this device trusts (operator-1)"),
  ]);
  const vouch = ["cache", "vouch", "theirs", "--public-key", foreign.publicKey];
  await fleet.expectRun([...vouch, "--signing-key-file", operatorKey.secretKeyFile]);
  await strict.waitForLine(/may be signed by theirs-1:\S+ now: operator-1:\S+ vouches for it/);
  await fleet.expectRun(["activate", `strict=${path}`]);
}, 60_000);

describe("refused before anything starts", () => {
  test("where it is not", async () => {
    const path = await build("nowhere");
    const refused = await fleet.run(["activate", `nuc=${path}`]);
    expect([refused.exitCode, refused.stderr]).toEqual([
      1,
      expect.stringContaining(`${path} is in none of the caches default, theirs: push it first`),
    ]);
  }, 30_000);

  test("while the foreign cache is down: that is said, and it works when it is back, however slow", async () => {
    const path = await build("later");
    await foreign.add(path);
    foreign.mood = "fails";
    const refused = await fleet.run(["activate", `nuc=${path}`]);
    expect([refused.exitCode, refused.stderr]).toEqual([
      1,
      expect.stringContaining(`the cache theirs could not be asked for ${path}: it answered with status 503`),
    ]);
    expect(refused.stderr).not.toContain("push it first");
    foreign.mood = "is slow";
    await fleet.expectRun(["activate", `nuc=${path}`]);
    foreign.mood = "answers";
    expect(await device.run([`${PROFILE}/bin/hello`])).toBe("hello later");
  }, 60_000);

  test("where the key is not the one that it was added with", async () => {
    const other = await fleet.builder.generateKey("theirs-1-other");
    await addForeign(other.publicKey.replace("theirs-1-other", "theirs-1"));
    const path = await build("theirs");
    const refused = await fleet.run(["activate", `nuc=${path}`]);
    expect([refused.exitCode, refused.stderr]).toEqual([
      1,
      expect.stringContaining("a signature that names theirs-1, none that is valid under the keys it was added with"),
    ]);
    await addForeign(foreign.publicKey);
  }, 30_000);
});
