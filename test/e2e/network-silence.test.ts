/**
 * Slow lines, peers that vanish without a word, and agents that stay away, over IPv6. Deadlines of a minute and more are
 * waited for once, all at the same time; each by itself is tested with a clock that can be moved (docs/networks.md).
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { addBigPath } from "../support/closure.ts";
import { type FaultyNetwork, startFaultyNetwork } from "../support/faulty-network.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { waitFor } from "../support/wait-for.ts";

const PROFILE = "/nix/var/nix/profiles/payload";
const NAR = /^GET \/cache\/default\/nar\//;

let fleet: Fleet;
let network: FaultyNetwork;

beforeAll(async () => {
  fleet = await createFleet("silence", { host: "[::1]" });
  network = await startFaultyNetwork(fleet.coordinator.url);
}, 60_000);

afterAll(async () => {
  await network[Symbol.asyncDispose]();
  await fleet[Symbol.asyncDispose]();
}, 30_000);

test("`serve --listen [::1]:0`: push, activate and an agent over IPv6", async () => {
  expect(fleet.coordinator.url).toMatch(/^http:\/\/\[::1\]:\d+$/);
  const device = await fleet.addDevice("six");
  await fleet.startAgent(device, { profile: "payload" });
  const path = await addBigPath(fleet.builder, { name: "six", sizeBytes: 1_000 });
  await fleet.expectRun(["push", path]);
  await fleet.expectRun(["activate", `six=${path}`]);
  expect(await device.link(PROFILE)).toBe(path);
}, 60_000);

test.concurrent("one byte a second is slow, not broken; a network that vanishes is noticed within a minute, and all goes on", async () => {
  const device = await fleet.addDevice("far");
  const agent = await fleet.startAgent(device, { profile: "payload", url: network.url });
  const path = await addBigPath(fleet.builder, { name: "far", sizeBytes: 1_000 });
  await fleet.expectRun(["push", path]);
  network.slowDown(NAR);
  const activate = await fleet.start(["activate", `far=${path}`], { url: network.url });
  await waitFor("the first bytes of the download", () => network.slowBytes >= 5, {
    timeoutMs: 30_000,
    describe: () => `${agent.output()}\n${activate.output()}`,
  });
  const count = () => network.requests.filter((line) => NAR.test(line)).length;
  expect(count()).toBe(1);

  // Websocket, event stream and download, all in one moment. New connections would work.
  network.vanish();
  network.speedUp();
  const vanishedMs = performance.now();
  const printed = agent.lines.length;
  expect((await activate.exited).exitCode).toBe(0);
  const tookS = (performance.now() - vanishedMs) / 1000;
  expect(await device.link(PROFILE)).toBe(path);
  await agent.waitForLine(/connection lost: the coordinator was silent for 60 s/, { from: printed });
  await agent.waitForLine(/^connected to/, { from: printed });
  expect(count()).toBe(2);
  // 60 s, and a little for the way back; all three deadlines ran at the same time.
  expect(tookS).toBeGreaterThan(40);
  expect(tookS).toBeLessThan(85);
}, 150_000);

test.concurrent("activate waits for a silent agent only until it counts as offline, and then ends with 0 and says so", async () => {
  const device = await fleet.addDevice("away");
  const agent = await fleet.startAgent(device, { profile: "hello" });
  await agent.stop();
  const path = await fleet.builder.build("profile", { name: "hello", version: "1" });
  await fleet.expectRun(["push", path]);
  const refused = await fleet.run(["activate", `away=${path}`, "--require-online"]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("away");
  const result = await fleet.run(["activate", `away=${path}`], { timeoutMs: 110_000 });
  expect(result.exitCode).toBe(0);
  expect(`${result.stdout}${result.stderr}`).toContain("offline");
}, 150_000);
