/**
 * Activations that take effect by a reboot, with modelled boot loaders (boot-firmware.ts; grub-editenv is GRUB's own): the
 * new system is tried for one boot, and either proves itself and is the default, or the machine is back on the old one,
 * whoever pulls the plug meanwhile. The variables of the boot loader are in the end what they were.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { Fault, FixtureOptions } from "../support/builder.ts";
import { ensureDebianPackages } from "../support/debian.ts";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { type Gate, startGate } from "../support/gate.ts";
import { createHolds, type Holds } from "../support/holds.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";

const APP = "app.service";
const PANICS: Fault = { stage: "init", kind: "fail", actions: ["init"] };

let fleet: Fleet;
let gate: Gate;
let count = 0;

beforeAll(async () => {
  await ensureDebianPackages(["grub-common"]);
  fleet = await createFleet("reboots");
  gate = await startGate(fleet.coordinator.url);
}, 120_000);
afterAll(async () => {
  await gate[Symbol.asyncDispose]();
  await fleet[Symbol.asyncDispose]();
}, 30_000);

type Loader = NonNullable<FixtureOptions["system"]["bootLoader"]>;
type SystemChanges = Partial<FixtureOptions["system"]>;
type Deployment = {
  readonly state: string;
  readonly reason: string | null;
};

type Lane = AsyncDisposable & {
  readonly device: Device;
  readonly holds: Holds;
  readonly probe: ActivationProbe;
  readonly oldSystem: string;
  readonly newSystem: string;
  /** Its end is awaited later. */
  start(flags: readonly string[]): Promise<{ readonly output: () => string; readonly end: () => Promise<Deployment> }>;
  /** The way of a machine that has booted: daemon and agent. */
  startServices(): Promise<void>;
  /** All that names a system names this one, and nothing is left of the way there. */
  expectRuns(system: string, booted?: string): Promise<void>;
};

async function createLane(loader: Loader, change: SystemChanges = {}, common: SystemChanges = {}): Promise<Lane> {
  count += 1;
  const name = `reboots${count}`;
  const base = { name, units: [{ name: APP }], bootLoader: loader, ...common };
  const oldSystem = await fleet.builder.build("system", { ...base, version: "0" });
  const newSystem = await fleet.builder.build("system", { ...base, version: "1", kernelVersion: "6.12", ...change });
  await fleet.expectRun(["push", newSystem]);
  const device = await fleet.addDevice(name, oldSystem);
  await fleet.startAgent(device, { url: gate.url });
  const before = await device.loaderVariables();
  const probe = createActivationProbe(device, { agent: name, unit: APP });
  return {
    ...{ device, probe, oldSystem, newSystem, holds: createHolds(device) },
    async start(flags) {
      const activation = await fleet.start(["activate", `${name}=${newSystem}`, "--json", ...flags]);
      const end = async () => {
        await activation.exited;
        const text = activation.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
        const [deployment] = rolloutResultSchema.parse(JSON.parse(text.join("\n"))).deployments;
        if (deployment === undefined) throw new Error(`no deployment:\n${activation.output()}`);
        return deployment;
      };
      return { output: activation.output, end };
    },
    async startServices() {
      await device.startDaemon();
      await fleet.startAgent(device, { url: gate.url, token: null, awaitConnection: gate.isOpen });
    },
    async expectRuns(system, booted = system) {
      const unit = system === oldSystem ? "0" : "1";
      expect(await probe.sides()).toEqual({ permanent: system, running: system, unit });
      expect(await device.link("/run/booted-system")).toBe(booted);
      expect(await device.loaderVariables()).toEqual(before);
    },
    [Symbol.asyncDispose]: () => device[Symbol.asyncDispose](),
  };
}

describe.each(["systemd-boot", "grub-saved"] as const)("--reboot with %s", (loader) => {
  test("boots the new system once, and makes it the default when it has proved itself", async () => {
    await using lane = await createLane(loader);
    const { device, oldSystem, newSystem } = lane;
    const { end, output } = await lane.start(["--reboot"]);
    expect(await device.awaitReboot(output)).toBe(newSystem);
    // It has not proved itself yet.
    expect(await device.bootDefault()).toBe(oldSystem);
    expect((await device.loaderVariables()).oneShot).toBeNull();
    await lane.startServices();
    expect(await end()).toMatchObject({ state: "succeeded", reason: `${newSystem} is live, after a reboot.` });
    expect(output()).toMatch(/: activating\n[\s\S]*: rebooting\n[\s\S]*: confirming\n/);
    await lane.expectRuns(newSystem);
    expect(await device.boot()).toBe(newSystem);
  }, 90_000);

  test("comes back to the old system at the next reset, when the new kernel never comes up", async () => {
    await using lane = await createLane(loader, { faults: [PANICS] });
    const { device, oldSystem } = lane;
    const { end, output } = await lane.start(["--reboot"]);
    await expect(device.awaitReboot(output)).rejects.toThrow("kernel panic");
    expect(await device.boot()).toBe(oldSystem);
    await lane.startServices();
    const { state, reason } = await end();
    expect({ state, reason }).toEqual({ state: "rolled-back", reason: expect.stringContaining("did not come up") });
    await lane.expectRuns(oldSystem);
    expect(await device.boot()).toBe(oldSystem);
  }, 90_000);

  test("reboots into the old system, when the new one does not prove itself", async () => {
    await using lane = await createLane(loader);
    const { device, oldSystem, newSystem } = lane;
    const { end, output } = await lane.start(["--reboot", "--confirm-window", "2s"]);
    expect(await device.awaitReboot(output)).toBe(newSystem);
    gate.shut();
    await lane.startServices();
    expect(await device.awaitReboot(output)).toBe(oldSystem);
    gate.open();
    await lane.startServices();
    const { state, reason } = await end();
    expect({ state, reason }).toEqual({ state: "rolled-back", reason: expect.stringContaining("within 2 s") });
    await lane.expectRuns(oldSystem);
  }, 90_000);
});

describe("a boot loader that cannot fall back", () => {
  test("is not rebooted with, unless that is asked for by name", async () => {
    await using lane = await createLane("grub");
    const { device, oldSystem, newSystem } = lane;
    const refused = await (await lane.start(["--reboot"])).end();
    expect(refused).toMatchObject({ state: "failed", reason: expect.stringContaining("--allow-unproven-boot") });
    await lane.expectRuns(oldSystem);
    const { end, output } = await lane.start(["--reboot", "--allow-unproven-boot"]);
    expect(await device.awaitReboot(output)).toBe(newSystem);
    await lane.startServices();
    expect(await end()).toMatchObject({ state: "succeeded" });
    await lane.expectRuns(newSystem);
  }, 90_000);
});

describe("a switch to another kernel", () => {
  const FLAGS = ["--mode", "switch"];

  test("is live at once, and is the default when the next reboot has proved it", async () => {
    await using lane = await createLane("systemd-boot");
    const { device, oldSystem, newSystem } = lane;
    const { state, reason } = await (await lane.start(FLAGS)).end();
    expect({ state, reason }).toEqual({ state: "succeeded", reason: expect.stringContaining("new kernel, initrd") });
    expect(await device.bootDefault()).toBe(oldSystem);
    expect(await device.boot()).toBe(newSystem);
    await lane.startServices();
    await waitFor("it to be the default", () => device.bootDefault(), { until: (system) => system === newSystem });
    await lane.expectRuns(newSystem);
    expect(await device.boot()).toBe(newSystem);
  }, 90_000);

  test("goes back by itself, when the next reboot finds a kernel that hangs", async () => {
    await using lane = await createLane("systemd-boot", { faults: [PANICS] });
    const { device, oldSystem } = lane;
    expect(await (await lane.start(FLAGS)).end()).toMatchObject({ state: "succeeded" });
    await expect(device.boot()).rejects.toThrow("kernel panic");
    expect(await device.boot()).toBe(oldSystem);
    await lane.startServices();
    await waitFor("the profile to be the old one", () => lane.probe.sides(), {
      until: ({ permanent }) => permanent === oldSystem,
    });
    await waitFor("the variables to be as before", () => device.loaderVariables(), {
      until: (variables) => variables.default === null,
    });
    await lane.expectRuns(oldSystem);
  }, 90_000);
});

describe("what must not change while the system runs", () => {
  const INHIBITED = { switchInhibitors: { dbus: "broker" } };
  const BEFORE = { switchInhibitors: { dbus: "dbus" } };

  test("is refused by its name, and reboots where that is the policy", async () => {
    await using lane = await createLane("systemd-boot", INHIBITED, BEFORE);
    const { device, oldSystem, newSystem } = lane;
    const refused = await (await lane.start([])).end();
    expect(refused).toMatchObject({ state: "failed", reason: expect.stringContaining("(dbus)") });
    await lane.expectRuns(oldSystem);
    const { end, output } = await lane.start(["--inhibitors", "reboot"]);
    expect(await device.awaitReboot(output)).toBe(newSystem);
    await lane.startServices();
    expect(await end()).toMatchObject({ state: "succeeded" });
    await lane.expectRuns(newSystem);
  }, 90_000);

  test("code 100 reboots where that is the policy", async () => {
    await using lane = await createLane("systemd-boot", { initInterfaceVersion: "systemd 4" });
    const { device, newSystem } = lane;
    const { end, output } = await lane.start(["--inhibitors", "reboot"]);
    expect(await device.awaitReboot(output)).toBe(newSystem);
    await lane.startServices();
    expect(await end()).toMatchObject({ state: "succeeded" });
    await lane.expectRuns(newSystem);
  }, 90_000);
});

type Cut = {
  readonly title: string;
  /** The script stays here. */
  readonly hold: "boot" | "boot-done";
};

const CUTS: readonly Cut[] = [
  { title: "before the entry is installed", hold: "boot" },
  { title: "when it is installed, and not tried yet", hold: "boot-done" },
];

test.each(CUTS)(
  "the power goes %s: the old system boots",
  async ({ hold }) => {
    const faults: Fault[] = [
      { stage: "boot-loader", kind: "hold", argument: "boot", actions: ["boot"] },
      { stage: "boot-loader-done", kind: "hold", argument: "boot-done", actions: ["boot"] },
    ];
    await using lane = await createLane("systemd-boot", { faults });
    const { device, holds, oldSystem } = lane;
    await holds.set(hold);
    const { end, output } = await lane.start(["--reboot"]);
    await holds.reached(hold, output);
    expect(await lane.probe.stage()).toBe("arming");
    await device.powerOff();
    expect(await device.boot()).toBe(oldSystem);
    await lane.startServices();
    expect(await end()).toMatchObject({ state: "rolled-back" });
    await lane.expectRuns(oldSystem);
  },
  90_000,
);

test("the power goes while the proof is awaited: the old system boots", async () => {
  await using lane = await createLane("systemd-boot");
  const { device, oldSystem, newSystem } = lane;
  const { end, output } = await lane.start(["--reboot"]);
  expect(await device.awaitReboot(output)).toBe(newSystem);
  gate.shut();
  await lane.startServices();
  await waitFor("the proof to be awaited", () => lane.probe.stage(), { until: (stage) => stage === "confirming" });
  await device.powerOff();
  gate.open();
  expect(await device.boot()).toBe(oldSystem);
  await lane.startServices();
  expect(await end()).toMatchObject({ state: "rolled-back" });
  await lane.expectRuns(oldSystem);
}, 90_000);
