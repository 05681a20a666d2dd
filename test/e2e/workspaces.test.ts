/**
 * Two workspaces of one coordinator, with the compiled binary: agents of the same name that never see each other's
 * deployments, tokens that see nothing of the other workspace, a second cache that agents and vanilla Nix read, and a
 * deletion that a kill does not stop.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet, type TokenKind } from "../support/fleet.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { cacheResultSchema, rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";

const PROFILE = "/nix/var/nix/profiles/hello";

let fleet: Fleet;
let devices: Readonly<Record<"default" | "prod", Device>>;
let agentInProd: SpawnedProcess;

async function tokenOf(kind: TokenKind, workspace: string): Promise<string> {
  return await fleet.expectRun(["token", "create", "--kind", kind, "--workspace", workspace]);
}

beforeAll(async () => {
  fleet = await createFleet("workspaces");
  await fleet.expectRun(["workspace", "create", "prod"]);
  // Before the device's first contact, at which it pins the keys of all caches.
  await fleet.expectRun(["cache", "create", "tools", "--workspace", "prod"]);
  devices = { default: await fleet.addDevice("one"), prod: await fleet.addDevice("two") };
  const agent = { name: "nuc", profile: "hello" };
  await fleet.startAgent(devices.default, agent);
  agentInProd = await fleet.startAgent(devices.prod, { ...agent, token: await tokenOf("agent", "prod") });
}, 90_000);

afterAll(async () => await fleet[Symbol.asyncDispose](), 30_000);

const deployed = async (args: readonly string[], token: string) =>
  rolloutResultSchema.parse(JSON.parse(await fleet.expectRun([...args, "--json"], { token }))).deployments;

test("each agent of the same name gets what its own workspace deploys", async () => {
  for (const workspace of ["default", "prod"] as const) {
    const path = await fleet.builder.build("profile", { name: "hello", version: workspace });
    // The token alone says where to.
    await fleet.expectRun(["push", path], { token: await tokenOf("push", workspace) });
    const [deployment] = await deployed(["activate", `nuc=${path}`], await tokenOf("activate", workspace));
    expect(deployment?.state).toBe("succeeded");
    expect(await devices[workspace].link(PROFILE)).toBe(path);
  }
  expect(await devices.default.run([`${PROFILE}/bin/hello`])).toBe("hello default");
  expect(await devices.prod.run([`${PROFILE}/bin/hello`])).toBe("hello prod");
}, 60_000);

describe("a token of one workspace", () => {
  test("sees nothing of the other, not even that it is there", async () => {
    const token = await tokenOf("admin", "default");
    for (const args of [["agents"], ["status"], ["workspace", "list"], ["cache", "list"], ["token", "list"]]) {
      const text = await fleet.expectRun([...args, "--json"], { token });
      expect([args, /prod|tools/.test(text)]).toEqual([args, false]);
    }
    const answers = async (words: readonly string[]) => {
      const results = [words, words.map((word) => word.replace("prod", "nowhere"))].map(async (args) => {
        const { exitCode, stdout, stderr } = await fleet.run(args, { token });
        return `${exitCode} ${stdout} ${stderr.replaceAll("nowhere", "prod")}`;
      });
      return await Promise.all(results);
    };
    for (const words of [
      ["workspace", "show", "prod"],
      ["cache", "show", "prod"],
      ["agents", "--workspace", "prod"],
      ["workspace", "delete", "prod", "--force"],
      ["workspace", "create", "prod"],
      ["token", "create", "--kind", "admin", "--workspace", "prod"],
    ]) {
      const [there, nowhere] = await answers(words);
      expect([words, there]).toEqual([words, nowhere]);
      expect(there).toStartWith("1 ");
    }
    const status = async (path: string) =>
      (await fetch(`${fleet.coordinator.url}${path}`, { headers: { authorization: `Bearer ${token}` } })).status;
    expect(await status("/cache/prod/nix-cache-info")).toBe(404);
    expect(await status("/cache/nowhere/nix-cache-info")).toBe(404);
  }, 60_000);
});

describe("a second cache", () => {
  let path: string;

  test("is where agents find what the default lacks", async () => {
    path = await fleet.builder.build("profile", { name: "hello", version: "tools" });
    await fleet.expectRun(["push", path, "--cache", "tools"], { token: await tokenOf("push", "prod") });
    const [deployment] = await deployed(["activate", `nuc=${path}`], await tokenOf("activate", "prod"));
    expect([deployment?.state, deployment?.reason]).toEqual(["succeeded", deployment?.reason ?? null]);
    expect(await devices.prod.link(PROFILE)).toBe(path);
    const refused = await fleet.run(["activate", `nuc=${path}`], { token: await tokenOf("activate", "default") });
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("is not in the cache default")]);
  }, 60_000);

  test("is read by vanilla Nix under its own key", async () => {
    const shown = cacheResultSchema.parse(JSON.parse(await fleet.expectRun(["cache", "show", "tools", "--json"])));
    const device = await fleet.addDevice("vanilla");
    const netrc = join(device.directory, "netrc");
    const password = await tokenOf("read", "prod");
    await writeFile(netrc, `machine 127.0.0.1\nlogin anyone\npassword ${password}\n`, { mode: 0o600 });
    const options = ["--option", "trusted-public-keys", shown.publicKeys.join(" "), "--option", "netrc-file", netrc];
    await device.run(["nix", "copy", "--from", shown.url, path, ...options]);
    expect(await device.run([`${path}/bin/hello`])).toBe("hello tools");
  }, 60_000);
});

test("deleting by force goes on after a kill, and leaves the device as it is", async () => {
  const countFiles = async () =>
    (await Array.fromAsync(new Bun.Glob("nars/*/*.nar.zst").scan(fleet.coordinator.dataDirectory))).length;
  const before = await countFiles();
  const refused = await fleet.run(["workspace", "delete", "prod"]);
  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("1 agent is bound to it (nuc)")]);
  const deleted = await fleet.run(["workspace", "delete", "prod", "--force"]);
  await fleet.coordinator.killHard();
  expect([deleted.exitCode, deleted.stderr]).toEqual([0, expect.stringContaining("1 agent forgotten")]);
  await agentInProd.waitForLine(/connection lost|cannot log in/, { timeoutMs: 30_000 });
  await fleet.coordinator.restart();
  expect((await fleet.run(["workspace", "show", "prod"])).exitCode).toBe(1);
  await agentInProd.waitForLine(/the agent token is unknown, expired or revoked/, { timeoutMs: 60_000 });
  expect(await devices.prod.run([`${PROFILE}/bin/hello`])).toBe("hello tools");
  await waitFor("files that only it had are gone", async () => (await countFiles()) < before);
}, 120_000);
