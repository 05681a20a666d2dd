/**
 * A NixOS host that runs a specialisation: it keeps it, whoever is killed meanwhile, goes back to it, and is told by name
 * when a new system does not have it. Profile and boot loader name the system itself throughout.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { FixtureOptions } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { createHolds } from "../support/holds.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";

const GAMING = { gaming: { kernelParams: "loglevel=1" }, quiet: {} };

let fleet: Fleet;
let nuc: Device;
let probe: ActivationProbe;
let before: Built;
let versions = 0;

type Built = { readonly system: string; readonly gaming: string; readonly version: string };

beforeAll(async () => {
  fleet = await createFleet("specialisations");
  before = await build();
  nuc = await fleet.addDevice("nuc", before.system);
  probe = createActivationProbe(nuc, { agent: "nuc", unit: "nuc.service" });
  await nuc.run([`${before.system}/specialisation/gaming/bin/switch-to-configuration`, "test"]);
  await fleet.startAgent(nuc);
  await expectGaming(before);
}, 60_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

async function build(options: Partial<FixtureOptions["system"]> = {}): Promise<Built> {
  const version = `${versions}`;
  versions += 1;
  const system = await fleet.builder.build("system", { name: "nuc", version, specialisations: GAMING, ...options });
  const gaming = await fleet.builder.run(["readlink", `${system}/specialisation/gaming`]).catch(() => "none");
  await fleet.expectRun(["push", system]);
  return { system, gaming, version };
}

async function deploy({ system }: Built, flags: readonly string[] = []) {
  const result = await fleet.run(["activate", `nuc=${system}`, "--json", ...flags]);
  const [deployment] = rolloutResultSchema.parse(JSON.parse(result.stdout)).deployments;
  if (deployment === undefined) throw new Error(result.stdout);
  return deployment;
}

async function expectGaming({ system, gaming, version }: Built): Promise<void> {
  expect(await probe.sides()).toEqual({ permanent: system, running: gaming, unit: `${version}-gaming` });
}

test("a switch makes the new system's specialisation live, and the system itself permanent", async () => {
  const next = await build();
  const deployment = await deploy(next);
  // Its own kernel parameters are no news: what a reboot boots is the system itself.
  expect([deployment.state, deployment.reason]).toEqual([
    "succeeded",
    `${next.system} is live in its specialisation gaming.`,
  ]);
  await expectGaming(next);
  before = next;
}, 60_000);

test("a dry run asks the specialisation's script, and changes nothing", async () => {
  const [unit, next] = [await probe.unitProcess(), await build()];
  expect(await deploy(next, ["--mode", "dry-activate"])).toMatchObject({ state: "succeeded" });
  const log = await fleet.expectRun(["logs", "nuc"]);
  expect(log).toContain(`$ ${next.system}/specialisation/gaming/bin/switch-to-configuration dry-activate`);
  await expectGaming(before);
  expect(await probe.unitProcess()).toBe(unit);
}, 60_000);

test("a system without it is refused by its name, and nothing is touched", async () => {
  const unit = await probe.unitProcess();
  const without = await build({ specialisations: { quiet: {} } });
  const { state, reason } = await deploy(without);
  expect([state, reason]).toEqual([
    "failed",
    `Cannot activate ${without.system}: this machine runs the specialisation gaming, which the new system does not have.`,
  ]);
  await expectGaming(before);
  expect(await probe.unitProcess()).toBe(unit);
}, 60_000);

test.each(["check", "test"] as const)(
  "its own %s that fails leaves the machine in the old one",
  async (action) => {
    const faults = [{ stage: "start", kind: "exit", argument: 3, actions: [action] }] as const;
    const bad = await build({ specialisations: { gaming: { faults } } });
    expect((await deploy(bad)).state).toBe(action === "check" ? "failed" : "rolled-back");
    await expectGaming(before);
  },
  60_000,
);

test("a proof that fails brings the specialisation back, and a full /boot the profile, too", async () => {
  const script = await fleet.builder.build("script", { name: "no", text: "#!/bin/sh\nexit 7\n" });
  await fleet.expectRun(["push", script]);
  const unproved = await build();
  const spec = `${fleet.directory}/spec.json`;
  const platform = process.arch === "arm64" ? "aarch64-linux" : "x86_64-linux";
  await Bun.write(spec, JSON.stringify({ agents: { nuc: unproved.system }, rollbackScript: { [platform]: script } }));
  const refused = await fleet.run(["activate", spec, "--json"]);
  expect(rolloutResultSchema.parse(JSON.parse(refused.stdout)).deployments[0]).toMatchObject({ state: "rolled-back" });
  await expectGaming(before);

  const faults = [{ stage: "boot-loader", kind: "fail", actions: ["boot"] }] as const;
  expect(await deploy(await build({ faults }))).toMatchObject({ state: "rolled-back" });
  await expectGaming(before);
}, 60_000);

test("it is kept when supervisor and agent are killed in the middle of the switch", async () => {
  const holds = createHolds(nuc);
  const faults = [{ stage: "activate", kind: "hold", argument: "switch", actions: ["test"] }] as const;
  const next = await build({ specialisations: { gaming: { faults } } });
  await holds.set("switch");
  const activation = await fleet.start(["activate", `nuc=${next.system}`]);
  await holds.reached("switch");
  for (const id of agents()) process.kill(id, "SIGKILL");
  for (const id of probe.supervisors()) process.kill(id, "SIGKILL");
  await waitFor("both to be gone", () => agents().length + probe.supervisors().length, { until: (left) => left === 0 });
  await fleet.startAgent(nuc, { token: null });
  await holds.releaseAll();
  expect((await activation.exited).exitCode).toBe(0);
  await expectGaming(next);
  before = next;
}, 60_000);

test("a test of it is not permanent, and what is deployed on top of it keeps it, too", async () => {
  const tried = await build();
  expect(await deploy(tried, ["--mode", "test"])).toMatchObject({ state: "succeeded" });
  expect(await probe.sides()).toEqual({
    permanent: before.system,
    running: tried.gaming,
    unit: `${tried.version}-gaming`,
  });
  const next = await build();
  expect(await deploy(next)).toMatchObject({ state: "succeeded" });
  await expectGaming(next);
  before = next;
}, 60_000);

test("a reboot brings the system itself, and from then on there is none to keep", async () => {
  expect(await nuc.boot()).toBe(before.system);
  await nuc.startDaemon();
  await fleet.startAgent(nuc, { token: null });
  const next = await build({ specialisations: {} });
  expect(await deploy(next)).toMatchObject({ state: "succeeded" });
  expect(await probe.sides()).toEqual({ permanent: next.system, running: next.system, unit: next.version });
}, 60_000);

function agents(): number[] {
  return nuc.processes().filter((id) => {
    try {
      return readFileSync(`/proc/${id}/cmdline`, "utf8").split("\0")[1] === "agent";
    } catch {
      return false; // It has ended.
    }
  });
}
