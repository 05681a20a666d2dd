/** What must be refused is refused, with a message that says what and what to do, and nothing has changed. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdir, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { tokenResultSchema } from "../support/results.ts";

let fleet: Fleet;

beforeAll(async () => {
  fleet = await createFleet("refusals");
}, 30_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

const PROFILE = "/nix/var/nix/profiles/hello";

test("a closure that is not signed by a key the device trusts", async () => {
  const device = await fleet.addDevice("strict");
  const { publicKey } = await fleet.builder.generateKey("somebody-else-1");
  await fleet.startAgent(device, { profile: "hello", trustedPublicKeys: [publicKey] });
  const path = await fleet.builder.build("profile", { name: "hello", version: "1" });
  await fleet.expectRun(["push", path]);

  const refused = await fleet.run(["activate", `strict=${path}`]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stdout).toContain("failed");
  expect(`${refused.stdout}${refused.stderr}`).toMatch(/sign(ed|ature)/);
  expect(await device.link(PROFILE)).toBeNull();
  expect((await device.exec(["nix-store", "--check-validity", path])).exitCode).not.toBe(0);
}, 60_000);

test("a closure signed by the pusher's key, which the device trusts, and not only by the coordinator's", async () => {
  const device = await fleet.addDevice("pinned");
  const key = await fleet.builder.generateKey("team-1");
  await fleet.startAgent(device, { profile: "hello", trustedPublicKeys: [key.publicKey] });
  const path = await fleet.builder.build("profile", { name: "signed", version: "1" });
  await fleet.expectRun(["push", path, "--signing-key-file", key.secretKeyFile]);
  await fleet.expectRun(["activate", `pinned=${path}`]);
  expect(await device.link(PROFILE)).toBe(path);
}, 60_000);

test("a NAR that the coordinator's disk lost a part of", async () => {
  const device = await fleet.addDevice("unlucky");
  await fleet.startAgent(device, { profile: "hello" });
  const nars = join(fleet.coordinator.dataDirectory, "nars");
  const before = new Set(await listNars(nars));
  const path = await fleet.builder.build("profile", { name: "unlucky", version: "1" });
  await fleet.expectRun(["push", path]);
  const fresh = (await listNars(nars)).filter((file) => !before.has(file));
  expect(fresh.length).toBeGreaterThan(0);
  for (const file of fresh) await truncate(file, (await stat(file)).size - 5);

  const refused = await fleet.run(["activate", `unlucky=${path}`]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stdout).toContain("failed");
  expect(await device.link(PROFILE)).toBeNull();
  expect((await device.exec(["nix-store", "--check-validity", path])).exitCode).not.toBe(0);
}, 60_000);

test("a token that was revoked", async () => {
  const made = await fleet.expectRun(["token", "create", "--kind", "push", "--json"]);
  const { id, token } = tokenResultSchema.parse(JSON.parse(made));
  const path = await fleet.builder.build("app", { name: "tool", version: "1" });
  await fleet.expectRun(["push", path], { token });
  await fleet.expectRun(["token", "revoke", id]);
  const refused = await fleet.run(["push", path], { token });
  expect(refused.exitCode).toBe(77);
  expect(refused.stderr).toContain("token");
  expect(`${refused.stdout}${refused.stderr}`).not.toContain(token);
});

test("a token that may not do this", async () => {
  const token = await fleet.makeToken("read");
  const path = await fleet.builder.build("app", { name: "other-tool", version: "1" });
  const refused = await fleet.run(["push", path], { token });
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("cannot");
});

test("an agent whose token is wrong ends at once and says so", async () => {
  const device = await fleet.addDevice("impostor");
  const token = await fleet.makeToken("read");
  const agent = await fleet.startAgent(device, { token, awaitConnection: false });
  expect((await agent.exited).exitCode).toBe(77);
  expect(agent.output()).toContain("token");
});

test("a spec with an unknown agent and an absent path: both named at once, nothing started", async () => {
  const device = await fleet.addDevice("known");
  await fleet.startAgent(device, { profile: "hello" });
  const path = await fleet.builder.build("profile", { name: "hello", version: "5" });
  await fleet.expectRun(["push", path]);
  const absent = "/nix/store/00000000000000000000000000000000-not-pushed";

  const refused = await fleet.run(["activate", `known=${path}`, `nobody=${path}`, `strict=${absent}`]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("nobody");
  expect(refused.stderr).toContain(absent);
  expect(await device.link(PROFILE)).toBeNull();
  const agents: unknown = JSON.parse(await fleet.expectRun(["agents", "--json"]));
  expect(agents).toMatchObject({
    agents: expect.arrayContaining([expect.objectContaining({ name: "known", deployment: null })]),
  });
}, 60_000);

async function listNars(folder: string): Promise<readonly string[]> {
  const files: string[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() && entry.name.endsWith(".nar.zst")) files.push(join(entry.parentPath, entry.name));
  }
  return files;
}
