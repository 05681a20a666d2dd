/**
 * `nixdeploy local` and reboots, with modelled boot loaders: what is started at the machine reboots into the new system and
 * proves itself without any coordinator; and what was booted on trial is decided on before anything else is begun.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { FixtureOptions } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import { BINARY, createFleet, type Fleet } from "../support/fleet.ts";
import { waitFor } from "../support/wait-for.ts";

const APP = "app.service";
const LONG_MS = 60_000;

let fleet: Fleet;
beforeAll(async () => {
  fleet = await createFleet("local-reboots");
}, 60_000);
afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

type System = FixtureOptions["system"];
type Bench = {
  readonly device: Device;
  readonly probe: ActivationProbe;
  readonly before: string;
  readonly after: string;
};

/** A device that has both systems, whose agent has been admitted and cannot reach the coordinator any more. */
async function createBench(name: string, bootLoader: NonNullable<System["bootLoader"]>): Promise<Bench> {
  const base = { name, units: [{ name: APP }], bootLoader };
  const before = await fleet.builder.build("system", { ...base, version: "0" });
  const after = await fleet.builder.build("system", { ...base, version: "1", kernelVersion: "6.12" });
  const device = await fleet.addDevice(name, before);
  await device.importFrom(fleet.builder, after);
  const agent = await fleet.startAgent(device);
  expect((await agent.stop()).exitCode).toBe(0);
  await startAgent(device);
  return { device, probe: createActivationProbe(device, { agent: name, unit: APP }), before, after };
}

const startAgent = (device: Device) =>
  fleet.startAgent(device, { url: "http://127.0.0.1:9", token: null, awaitConnection: false });

async function startServices(device: Device): Promise<void> {
  await device.startDaemon();
  await startAgent(device);
}

/** For good: all that names a system names this one, and nobody is at work. */
async function awaitRuns({ device, probe }: Bench, system: string): Promise<void> {
  const isThere = async () => {
    const { permanent, running } = await probe.sides();
    return permanent === system && running === system && (await probe.stage()) !== "confirming";
  };
  await waitFor(`${system} to be permanent`, isThere, { timeoutMs: LONG_MS });
  await waitFor("nobody to be at work", () => probe.supervisors().length === 0, { timeoutMs: LONG_MS });
  expect((await device.loaderVariables()).oneShot).toBeNull();
}

test("--reboot reboots into it, and what cannot fall back only with --allow-unproven-boot", async () => {
  const bench = await createBench("careful", "grub");
  const { device, before, after } = bench;
  const refused = await device.exec([BINARY, "local", "activate", "--reboot", after], { timeoutMs: LONG_MS });
  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("--allow-unproven-boot")]);
  await awaitRuns(bench, before);
  const command = device.spawn([BINARY, "local", "activate", "--reboot", "--allow-unproven-boot", after]);
  expect(await device.awaitReboot(command.output)).toBe(after);
  await startServices(device);
  await awaitRuns(bench, after);
}, 90_000);

test("a system that was booted on trial is decided on before a rollback begins", async () => {
  const bench = await createBench("patient", "systemd-boot");
  const { device, before, after } = bench;
  const switched = await device.exec([BINARY, "local", "activate", after], { timeoutMs: LONG_MS });
  expect([switched.exitCode, switched.stdout]).toEqual([0, expect.stringContaining("new kernel")]);
  expect(await device.bootDefault()).toBe(before);
  expect(await device.boot()).toBe(after);
  await device.startDaemon();
  // Without an agent: the command sees to it itself.
  const back = await device.exec([BINARY, "local", "rollback", "--to", before], { timeoutMs: LONG_MS });
  expect([back.exitCode, back.stderr]).toEqual([0, expect.stringContaining("waiting for the end of the trial")]);
  // Its kernel is another than the booted one's again, so the next reboot tries it in its turn.
  expect((await bench.probe.sides()).running).toBe(before);
  expect(await device.boot()).toBe(before);
  await startServices(device);
  await awaitRuns(bench, before);
}, 90_000);
