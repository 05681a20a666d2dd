/** What somebody does to a machine by hand is seen from the coordinator: drift, and that it wants a reboot. */
import { expect, test } from "bun:test";
import { agentListSchema } from "../../src/api/agents.ts";
import { type Device, SYSTEM_PROFILE } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { waitFor } from "../support/wait-for.ts";

type Listed = ReturnType<typeof agentListSchema.parse>["agents"][number];

/** The agent looks every 10 s; the rest is for a machine that is busy. */
const SEEN_WITHIN_MS = 40_000;

async function listed(fleet: Fleet): Promise<Listed> {
  const [agent] = agentListSchema.parse(JSON.parse(await fleet.expectRun(["agents", "--json"]))).agents;
  if (agent === undefined) throw new Error("no agent is listed");
  return agent;
}

async function seen(fleet: Fleet, what: string, until: (agent: Listed) => boolean): Promise<Listed> {
  return await waitFor(what, () => listed(fleet), { timeoutMs: SEEN_WITHIN_MS, intervalMs: 500, until });
}

async function switchByHand(device: Device, system: string): Promise<void> {
  await device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", system]);
  await device.run([`${system}/bin/switch-to-configuration`, "switch"]);
}

test("a manual nixos-rebuild is drift, seen while nothing is deployed, until it is put right", async () => {
  await using fleet = await createFleet("machine-state");
  const build = (version: string, kernelVersion = "6.1") =>
    fleet.builder.build("system", { name: "nuc", version, kernelVersion });
  const [installed, deployed, byHand] = [await build("1"), await build("2"), await build("3", "6.6")];
  const device = await fleet.addDevice("nuc", installed);
  await fleet.startAgent(device);
  await device.importFrom(fleet.builder, byHand);
  expect(await listed(fleet)).toMatchObject({ drift: null, currentPath: installed, rebootNeeded: [] });

  await fleet.expectRun(["push", deployed]);
  await fleet.expectRun(["activate", `nuc=${deployed}`]);
  await seen(fleet, "the deployed system", (agent) => agent.currentPath === deployed && agent.profilePath === deployed);
  expect(await listed(fleet)).toMatchObject({ drift: null });

  await switchByHand(device, byHand);
  const drifted = await seen(fleet, "the drift", ({ drift }) => drift?.current === byHand && drift.profile === byHand);
  expect(drifted).toMatchObject({
    drift: { expected: deployed, profile: byHand, current: byHand },
    rebootNeeded: ["kernel", "initrd", "modules"],
    bootedPath: installed,
  });
  const shown = await fleet.expectRun(["agents"]);
  expect(shown).toMatch(/drift: not nixos-system-nuc-2; reboot needed: new kernel, initrd, modules$/m);

  await fleet.expectRun(["activate", `nuc=${deployed}`]);
  const right = await seen(fleet, "the end of it", (agent) => agent.currentPath === deployed && agent.drift === null);
  expect(right.rebootNeeded).toEqual([]);

  await fleet.expectRun(["activate", `nuc=${deployed}`, "--mode", "dry-activate"]);
  await fleet.expectRun(["push", installed]);
  await fleet.expectRun(["activate", `nuc=${installed}`, "--mode", "test"]);
  const tried = await seen(fleet, "the test", ({ currentPath }) => currentPath === installed);
  expect(tried).toMatchObject({ drift: null, profilePath: deployed });
}, 120_000);
