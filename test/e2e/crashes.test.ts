/** kill -9 of either side at the worst moments: nothing acknowledged is lost, and it goes on. */
import { expect, test } from "bun:test";
import { addBigPath } from "../support/closure.ts";
import { createFleet } from "../support/fleet.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { startSlowProxy } from "../support/slow-proxy.ts";
import { waitFor } from "../support/wait-for.ts";

const PROFILE = "/nix/var/nix/profiles/payload";
const MEBIBYTE = 1024 * 1024;

test("the coordinator is killed between push and activate", async () => {
  await using fleet = await createFleet("crash-idle");
  const device = await fleet.addDevice("laptop");
  await fleet.startAgent(device, { profile: "payload" });
  const path = await fleet.builder.build("profile", { name: "payload", version: "1" });
  await fleet.expectRun(["push", path]);

  await fleet.coordinator.killHard();
  await fleet.coordinator.restart();

  const output = await fleet.expectRun(["activate", `laptop=${path}`, "--json"]);
  expect(rolloutResultSchema.parse(JSON.parse(output)).deployments[0]?.state).toBe("succeeded");
  expect(await device.link(PROFILE)).toBe(path);
}, 90_000);

test("the coordinator is killed during a fetch; agent and activate go on with it", async () => {
  await using fleet = await createFleet("crash-coordinator");
  await using proxy = await startSlowProxy({ targetUrl: fleet.coordinator.url, bytesPerSecond: 8 * MEBIBYTE });
  const device = await fleet.addDevice("laptop");
  await fleet.startAgent(device, { profile: "payload", url: proxy.url });
  const path = await addBigPath(fleet.builder, { name: "payload", sizeBytes: 24 * MEBIBYTE });
  await fleet.expectRun(["push", path]);

  const activate = await fleet.start(["activate", `laptop=${path}`, "--json"]);
  await waitFor("a part of the download", () => proxy.downBytes > 2 * MEBIBYTE, { timeoutMs: 30_000 });
  await fleet.coordinator.killHard();
  const before = proxy.downBytes;
  await fleet.coordinator.restart();
  proxy.setBytesPerSecond(256 * MEBIBYTE);

  expect((await activate.exited).exitCode).toBe(0);
  expect(await device.link(PROFILE)).toBe(path);
  // It went on where it was cut: what came down in all is not much more than the file once.
  expect(before).toBeLessThan(24 * MEBIBYTE);
  expect(proxy.downBytes).toBeLessThan(34 * MEBIBYTE);
}, 120_000);

test("the agent is killed during a fetch; its next start finishes the deployment", async () => {
  await using fleet = await createFleet("crash-agent");
  await using proxy = await startSlowProxy({ targetUrl: fleet.coordinator.url, bytesPerSecond: 8 * MEBIBYTE });
  const device = await fleet.addDevice("laptop");
  const agent = await fleet.startAgent(device, { profile: "payload", url: proxy.url });
  const path = await addBigPath(fleet.builder, { name: "payload", sizeBytes: 24 * MEBIBYTE });
  await fleet.expectRun(["push", path]);

  const activate = await fleet.start(["activate", `laptop=${path}`, "--json"]);
  await waitFor("a part of the download", () => proxy.downBytes > 2 * MEBIBYTE, { timeoutMs: 30_000 });
  agent.kill("SIGKILL");
  await agent.exited;
  expect((await device.exec(["nix-store", "--check-validity", path])).exitCode).not.toBe(0);
  proxy.setBytesPerSecond(256 * MEBIBYTE);

  await fleet.startAgent(device, { profile: "payload", url: proxy.url, token: null });
  expect((await activate.exited).exitCode).toBe(0);
  expect(await device.link(PROFILE)).toBe(path);
  await device.run(["nix-store", "--verify-path", path]);
}, 120_000);
