/**
 * docs/getting-started.md from its first command to its last, with real Nix: a repository made from the template, two
 * machines installed from it, the workflow's pushes: one that installs, one that changes, one that breaks and goes back.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Device, SYSTEM_PROFILE } from "../support/device.ts";
import { createHomelab, type Homelab } from "../support/homelab.ts";

let homelab: Homelab;
let vps: Device;
let nuc: Device;
let secrets: Readonly<Record<string, string>>;

beforeAll(async () => {
  homelab = await createHomelab();
}, 60_000);
afterAll(() => homelab[Symbol.asyncDispose]());

const runs = async (device: Device) => [await device.link(SYSTEM_PROFILE), await device.link("/run/current-system")];

test("the repository, the tokens and the machines", async () => {
  await homelab.next("sh laptop");
  const [agentToken = "", push = "", activate = ""] = (await homelab.next("sh vps")).split("\n");
  expect([agentToken, push, activate].map((token) => token.split("_")[1])).toEqual(["agent", "push", "activate"]);
  secrets = { NIXDEPLOY_PUSH_TOKEN: push, NIXDEPLOY_ACTIVATE_TOKEN: activate };
  vps = await homelab.install("vps", agentToken);
  nuc = await homelab.install("nuc", agentToken);
  const agents = await homelab.next("sh vps");
  expect(agents).toMatch(/^nuc +online/m);
  expect(agents).toMatch(/^vps +online/m);
}, 120_000);

test("the first push deploys what is installed already", async () => {
  await homelab.next("sh laptop");
  const { exitCode, outputs, text } = await homelab.runWorkflow(secrets);
  expect({ exitCode, text }).toMatchObject({ exitCode: 0 });
  expect(outputs["outcome"]).toBe("succeeded");
}, 120_000);

test("a change reaches the machine that it is of", async () => {
  const before = await runs(vps);
  await homelab.next("nix machines/nuc.nix");
  const { exitCode, text } = await homelab.runWorkflow(secrets);
  expect({ exitCode, text }).toMatchObject({ exitCode: 0 });
  const changed = await homelab.toplevel("nuc");
  expect(await runs(nuc)).toEqual([changed, changed]);
  expect(await runs(vps)).toEqual(before);
}, 120_000);

test("what does not work fails the job, and the machine is back", async () => {
  const before = await runs(nuc);
  await homelab.next("nix machines/nuc.nix");
  const { exitCode, outputs, text } = await homelab.runWorkflow(secrets);
  expect({ exitCode, text }).toMatchObject({ exitCode: 1 });
  expect(outputs["failed-agents"]).toBe("nuc");
  expect(text).toContain("clock.service");
  expect(text).toContain("rolled-back");
  expect(await runs(nuc)).toEqual(before);
}, 120_000);
