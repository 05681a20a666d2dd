/**
 * When everything else is down: `nixdeploy local` at the machine, beside its agent or without one, killed at the worst
 * moments, and the coordinator that hears of it later.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { z } from "zod";
import { agentListSchema } from "../../src/api/agents.ts";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { FixtureOptions } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import { BINARY, createFleet, type Fleet } from "../support/fleet.ts";
import { createHolds, type Holds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";

const APP = "app.service";
const ALICE = { name: "alice", id: 64_001 };

let fleet: Fleet;
let device: Device;
let probe: ActivationProbe;
let holds: Holds;
let agent: SpawnedProcess;
/** What the device runs when a test begins. */
let before: string;

beforeAll(async () => {
  fleet = await createFleet("local");
  before = await build("0");
  device = await fleet.addDevice("nuc", { installed: before, users: [ALICE] });
  probe = createActivationProbe(device, { agent: "nuc", unit: APP });
  holds = createHolds(device);
  agent = await fleet.startAgent(device);
}, 60_000);
afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

/** A system that has been brought to the device by hand. */
async function build(version: string, more: Partial<FixtureOptions["system"]> = {}): Promise<string> {
  const units = more.units ?? [{ name: APP, version }];
  return await fleet.builder.build("system", { name: "nuc", version, ...more, units });
}

async function bring(version: string, more: Partial<FixtureOptions["system"]> = {}): Promise<string> {
  const system = await build(version, more);
  await device.importFrom(fleet.builder, system);
  return system;
}

const local = (...words: readonly string[]) => device.exec([BINARY, "local", ...words], { timeoutMs: 60_000 });
const startLocal = (...words: readonly string[]) => device.spawn([BINARY, "local", ...words]);

async function expectRuns(system: string): Promise<void> {
  const { permanent, running } = await probe.sides();
  expect({ permanent, running }).toEqual({ permanent: system, running: system });
  await waitFor("nobody to be at work", async () => probe.supervisors().length === 0 && (await probe.stage()) === null);
  before = system;
}

/** The coordinator's view of the device's latest deployment, once it is this one and over. */
async function waitUntilTold(storePath: string, state: string): Promise<void> {
  let known = "";
  await waitFor(
    `the coordinator to know ${state} ${storePath}`,
    async () => {
      const { agents } = agentListSchema.parse(JSON.parse(await fleet.expectRun(["agents", "--json"])));
      const latest = agents.find(({ name }) => name === "nuc")?.deployment;
      known = JSON.stringify(latest);
      return latest?.storePath === storePath && latest.state === state && latest.startedOnDevice;
    },
    { timeoutMs: 30_000, describe: () => `the coordinator knows ${known}\nthe agent says:\n${agent.output()}` },
  );
}

test("with the coordinator away it succeeds, and the coordinator hears of it when it is back", async () => {
  const system = await bring("1");
  await fleet.coordinator.killHard();
  const result = await local("activate", system);
  expect(result.stderr).toContain(`agent nuc: ${system}`);
  expect(result.stdout).toContain(`${system}/bin/switch-to-configuration test`);
  expect(result.stdout).toContain(`succeeded: ${system} is live`);
  expect(result.exitCode).toBe(0);
  await expectRuns(system);

  await fleet.coordinator.restart();
  await waitUntilTold(system, "succeeded");
  expect(await fleet.expectRun(["agents"])).toContain("(started on the device)");
  const log = await fleet.expectRun(["logs", "nuc"]);
  expect(log).toContain("started on this device by root: nixdeploy local activate");
  expect(log).toContain("nuc: succeeded");
}, 60_000);

test("a system whose units fail is undone, exit code 1, and the coordinator, connected, hears of it at once", async () => {
  const broken = await bring("2", { units: [{ name: "broken.service", fails: true }] });
  const old = before;
  const result = await local("activate", broken);
  expect(result.exitCode).toBe(1);
  expect(result.stdout).toContain("rolled-back: ");
  expect(result.stderr).toContain("the activation ended rolled-back");
  await expectRuns(old);
  await waitUntilTold(broken, "rolled-back");
}, 60_000);

const statusSchema = z.object({
  agent: z.string().nullable(),
  agentRuns: z.boolean(),
  generation: z.number().nullable(),
  profilePath: z.string().nullable(),
  generations: z.array(z.object({ number: z.number(), storePath: z.string() })),
  activation: z.object({ stage: z.string(), isSupervised: z.boolean(), startedOnDevice: z.boolean() }).nullable(),
  lastOutcome: z.object({ outcome: z.string() }).nullable(),
});
const readStatus = async () => statusSchema.parse(JSON.parse((await local("status", "--json")).stdout));

test("rolls back to what the profile named before, or to a generation that is named", async () => {
  const { generations } = await readStatus();
  const [first] = generations;
  if (first === undefined) throw new Error("the profile has no generations");
  expect((await local("rollback")).exitCode).toBe(0);
  await expectRuns(first.storePath);
  const present = generations.at(-1);
  const forth = await local("rollback", "--to", String(present?.number), "--json");
  expect(forth.exitCode).toBe(0);
  expect(JSON.parse(forth.stdout)).toMatchObject({ outcome: "succeeded", storePath: present?.storePath });
  await expectRuns(String(present?.storePath));
  const absent = await local("rollback", "--to", "999");
  expect([absent.exitCode, absent.stderr]).toEqual([1, expect.stringContaining("it has no generation 999")]);
  expect(await readStatus()).toMatchObject({ agent: "nuc", agentRuns: true, profilePath: before, activation: null });
}, 90_000);

test("says what is wrong with a path, and touches nothing", async () => {
  const elsewhere = await build("nowhere");
  const absent = await local("activate", elsewhere);
  expect([absent.exitCode, absent.stderr]).toEqual([
    1,
    expect.stringContaining("this machine's store does not have it"),
  ]);
  const profile = await fleet.builder.build("profile", { name: "tools", version: "1" });
  await device.importFrom(fleet.builder, profile);
  const wrong = await local("activate", profile);
  expect([wrong.exitCode, wrong.stderr]).toEqual([1, expect.stringContaining("takes only NixOS or nix-darwin")]);
  await expectRuns(before);
}, 60_000);

test("killed by kill -9, the command leaves a supervisor that finishes", async () => {
  const system = await bring("3", { faults: [{ stage: "activate", kind: "hold", argument: "three" }] });
  await holds.set("three");
  const command = startLocal("activate", system);
  await holds.reached("three");
  command.kill("SIGKILL");
  await command.exited;
  expect(await readStatus()).toMatchObject({
    activation: { stage: "activating", isSupervised: true, startedOnDevice: true },
  });
  // Meanwhile it is nobody else's turn.
  const busy = await local("activate", system);
  expect([busy.exitCode, busy.stderr]).toEqual([1, expect.stringContaining("the agent is at work on deployment")]);
  await holds.release("three");
  await waitUntilTold(system, "succeeded");
  await expectRuns(system);
}, 90_000);

test("with command and supervisor killed, the agent starts another supervisor", async () => {
  const system = await bring("4", { faults: [{ stage: "activate", kind: "hold", argument: "four" }] });
  await holds.set("four");
  const command = startLocal("activate", system);
  await holds.reached("four");
  command.kill("SIGKILL");
  await command.exited;
  for (const id of probe.supervisors()) process.kill(id, "SIGKILL");
  await waitFor("another supervisor", () => probe.supervisors().length > 0, { timeoutMs: 20_000 });
  await holds.release("four");
  await waitUntilTold(system, "succeeded");
  await expectRuns(system);
}, 90_000);

test("with all three killed, the next command starts another supervisor, and waits for it", async () => {
  const old = before;
  const system = await bring("5", { faults: [{ stage: "activate", kind: "hold", argument: "five" }] });
  agent.kill("SIGKILL");
  await agent.exited;
  await holds.set("five");
  const command = startLocal("activate", system);
  await holds.reached("five");
  command.kill("SIGKILL");
  await command.exited;
  for (const id of probe.supervisors()) process.kill(id, "SIGKILL");
  await waitFor("no supervisor", () => probe.supervisors().length === 0);
  expect((await readStatus()).activation).toMatchObject({ isSupervised: false });
  const next = startLocal("rollback", "--to", old, "--wait");
  await waitFor("another supervisor", () => probe.supervisors().length > 0, { timeoutMs: 20_000 });
  await holds.release("five");
  expect((await next.exited).exitCode).toBe(0);
  await expectRuns(old);
  agent = await fleet.startAgent(device, { token: null });
  await waitUntilTold(old, "succeeded");
}, 90_000);

test("an offer that comes meanwhile waits for its turn, and what it goes back to is what was activated by hand", async () => {
  const byHand = await bring("6", { faults: [{ stage: "activate", kind: "hold", argument: "six" }] });
  const offered = await build("7");
  await fleet.expectRun(["push", offered]);
  await holds.set("six");
  const command = startLocal("activate", byHand);
  await holds.reached("six");
  const activate = await fleet.start(["activate", `nuc=${offered}`, "--json"]);
  await activate.waitForLine(/waiting for deployment \w{16}, which was started on this device/, { timeoutMs: 30_000 });
  await holds.release("six");
  expect((await command.exited).exitCode).toBe(0);
  expect((await activate.exited).exitCode).toBe(0);
  const text = activate.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
  const [deployment] = rolloutResultSchema.parse(JSON.parse(text.join("\n"))).deployments;
  expect(deployment).toMatchObject({ state: "succeeded", previousPath: byHand });
  await expectRuns(offered);
}, 90_000);

test("while the agent activates, the command says so, or waits", async () => {
  const offered = await build("8", { faults: [{ stage: "activate", kind: "hold", argument: "eight" }] });
  const byHand = await bring("9");
  await fleet.expectRun(["push", offered]);
  await holds.set("eight");
  const activate = await fleet.start(["activate", `nuc=${offered}`, "--json"]);
  await holds.reached("eight");
  const busy = await local("activate", byHand);
  expect([busy.exitCode, busy.stderr]).toEqual([1, expect.stringContaining("the agent is at work on deployment")]);
  const waiting = startLocal("activate", byHand, "--wait");
  await waiting.waitForLine(/waiting for deployment/, { timeoutMs: 20_000 });
  await holds.release("eight");
  expect((await activate.exited).exitCode).toBe(0);
  expect((await waiting.exited).exitCode).toBe(0);
  await expectRuns(byHand);
  await waitUntilTold(byHand, "succeeded");
}, 90_000);

test("a user's own profile, without any agent, and back", async () => {
  const versions = ["1", "2"].map((version) => fleet.builder.build("profile", { name: "hello", version }));
  const [one = "", two = ""] = await Promise.all(versions);
  for (const path of [one, two]) await device.importFrom(fleet.builder, path);
  const profile = `${device.environmentOf("alice")["XDG_STATE_HOME"]}/nix/profiles/tools`;
  const run = (...words: readonly string[]) =>
    device.exec([BINARY, "local", ...words, "--profile", "tools"], { user: "alice", timeoutMs: 60_000 });
  expect((await run("activate", one)).exitCode).toBe(0);
  expect((await run("activate", two)).exitCode).toBe(0);
  expect(await device.link(profile)).toBe(two);
  await device.run(["nix-store", "--gc"]);
  const back = await run("rollback");
  expect([back.exitCode, back.stdout]).toEqual([0, expect.stringContaining(`${one} is live`)]);
  expect(await device.link(profile)).toBe(one);
  expect((await run("status")).stdout).toContain("agent:        none");
  const root = `/var/lib/nixdeploy/agents/nuc`;
  const denied = await run("activate", one, "--state-dir", root);
  expect(denied.exitCode).not.toBe(0);
}, 60_000);
