/**
 * The main job, with the compiled binary and real Nix: push, activate version 1, activate version 2; a plain profile and
 * a NixOS-like system, on devices whose stores are not the builder's.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type Device, SYSTEM_PROFILE } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { rolloutResultSchema } from "../support/results.ts";

let fleet: Fleet;
let laptop: Device;
let nuc: Device;
const PROFILE = "/nix/var/nix/profiles/hello";

beforeAll(async () => {
  fleet = await createFleet("first-light");
  laptop = await fleet.addDevice("laptop");
  nuc = await fleet.addDevice("nuc", await fleet.builder.build("system", { name: "nuc", version: "0" }));
  await fleet.startAgent(laptop, { profile: "hello" });
  await fleet.startAgent(nuc);
}, 60_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

describe("two versions reach two devices", () => {
  for (const version of ["1", "2"]) {
    test(`version ${version}`, async () => {
      const profile = await fleet.builder.build("profile", { name: "hello", version });
      const system = await fleet.builder.build("system", { name: "nuc", version });
      const spec = await fleet.builder.build("spec", { agents: { laptop: profile, nuc: system } });
      await fleet.expectRun(["push", spec]);

      const result = await fleet.run(["activate", spec, "--json"]);
      expect(result.exitCode).toBe(0);
      const rollout = rolloutResultSchema.parse(JSON.parse(result.stdout));
      expect(rollout.deployments.map(({ agent, state, storePath }) => ({ agent, state, storePath }))).toEqual([
        { agent: "laptop", state: "succeeded", storePath: profile },
        { agent: "nuc", state: "succeeded", storePath: system },
      ]);
      // The log of the switch came along live.
      expect(result.stderr).toContain("nuc | ");
      expect(result.stderr).toContain("activating the configuration...");

      // The profiles moved, and the programs run from the devices' own stores.
      expect(await laptop.link(PROFILE)).toBe(profile);
      expect(await laptop.run([`${PROFILE}/bin/hello`])).toBe(`hello ${version}`);
      expect(await nuc.link(SYSTEM_PROFILE)).toBe(system);
      expect(await nuc.link("/run/current-system")).toBe(system);
      expect(await nuc.bootDefault()).toBe(system);
      expect(await Bun.file(nuc.hostPath("/run/units/nuc.service.version")).text()).toContain(version);
    }, 60_000);
  }

  test("agents and status show what runs", async () => {
    const agents: unknown = JSON.parse(await fleet.expectRun(["agents", "--json"]));
    expect(agents).toMatchObject({
      agents: [
        { name: "laptop", contact: "online", profile: PROFILE, deployment: { state: "succeeded" } },
        { name: "nuc", contact: "online", profile: SYSTEM_PROFILE, deployment: { state: "succeeded" } },
      ],
    });
    expect(await fleet.expectRun(["status"])).toContain("nuc");
  });

  test("logs shows the stored log of an agent's last deployment", async () => {
    expect(await fleet.expectRun(["logs", "nuc"])).toContain("activating the configuration...");
  });

  test("the second push of a closure has nothing to do", async () => {
    const profile = await fleet.builder.build("profile", { name: "hello", version: "2" });
    expect(JSON.parse(await fleet.expectRun(["push", profile, "--json"]))).toMatchObject({ uploaded: 0 });
  });
});

test("a system whose units fail is undone, or kept and called degraded when that is asked for", async () => {
  const before = await nuc.link(SYSTEM_PROFILE);
  const units = [{ name: "nuc.service" }, { name: "broken.service", fails: true }];
  const system = await fleet.builder.build("system", { name: "nuc", version: "3", units });
  await fleet.expectRun(["push", system]);
  const undone = await fleet.run(["activate", `nuc=${system}`]);
  expect(undone.exitCode).toBe(1);
  expect(undone.stdout).toContain("rolled back");
  expect(await nuc.link(SYSTEM_PROFILE)).toBe(before);
  expect(await nuc.link("/run/current-system")).toBe(before);
  expect(await nuc.bootDefault()).toBe(before);

  const kept = await fleet.run(["activate", `nuc=${system}`, "--on-unit-failure", "keep", "--retry"]);
  expect(kept.exitCode).toBe(1);
  expect(kept.stdout).toContain("degraded");
  expect(await nuc.link("/run/current-system")).toBe(system);
}, 60_000);

test("a system that refuses before it touches anything leaves profile and system as they were", async () => {
  const before = await nuc.link(SYSTEM_PROFILE);
  const current = await nuc.link("/run/current-system");
  const faults = [{ stage: "pre-switch-check", kind: "fail" } as const];
  const system = await fleet.builder.build("system", { name: "nuc", version: "4", faults });
  await fleet.expectRun(["push", system]);
  const result = await fleet.run(["activate", `nuc=${system}`]);
  expect(result.exitCode).toBe(1);
  expect(result.stdout).toContain("failed");
  expect(await nuc.link(SYSTEM_PROFILE)).toBe(before);
  expect(await nuc.link("/run/current-system")).toBe(current);
}, 60_000);
