/** Agents that are away: the newest deployment waits for them. That nobody waits for ever: network-silence.test.ts. */
import { expect, test } from "bun:test";
import { createFleet } from "../support/fleet.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";

const PROFILE = "/nix/var/nix/profiles/hello";

test("an agent that was away takes the newest deployment only", async () => {
  await using fleet = await createFleet("offline");
  const device = await fleet.addDevice("away");
  const agent = await fleet.startAgent(device, { profile: "hello" });
  await agent.stop();

  const paths: string[] = [];
  const rollouts: string[] = [];
  for (const version of ["1", "2", "3"]) {
    const path = await fleet.builder.build("profile", { name: "hello", version });
    await fleet.expectRun(["push", path]);
    const output = await fleet.expectRun(["activate", `away=${path}`, "--async", "--json"]);
    const rollout = rolloutResultSchema.parse(JSON.parse(output));
    expect(rollout.deployments[0]?.state).toBe("queued");
    paths.push(path);
    rollouts.push(rollout.deployments[0]?.id ?? "");
  }
  expect(await device.link(PROFILE)).toBeNull();

  await fleet.startAgent(device, { profile: "hello", token: null });
  const newest = paths.at(-1) ?? "";
  await waitFor("the newest version on the device", async () => (await device.link(PROFILE)) === newest);
  // The log of the superseded ones says so, and the device never saw them.
  for (const path of paths.slice(0, -1)) {
    expect((await device.exec(["nix-store", "--check-validity", path])).exitCode).not.toBe(0);
  }
  const last = rollouts.at(-1) ?? "";
  await waitFor("the outcome", async () => (await fleet.run(["logs", last])).stdout.includes("succeeded"));
}, 90_000);
