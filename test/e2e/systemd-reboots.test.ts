/**
 * Reboots where systemd is PID 1: `systemctl reboot` by the supervisor's unit, the undo unit of whichever system came up,
 * and the proof by the agent as that system starts it. Firmware and systemd-boot are modelled (boot-firmware.ts).
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { AGENT_UNIT, createSystemdFleet, type SystemdFleet } from "../support/systemd-fleet.ts";

let under: SystemdFleet;
let before: string;

beforeAll(async () => {
  under = await createSystemdFleet("systemd-reboots", { bootLoader: "systemd-boot" });
  before = under.installed;
}, 90_000);
afterAll(() => under[Symbol.asyncDispose]());

async function expectRuns(system: string): Promise<void> {
  await under.clean();
  expect(await under.state()).toEqual({ profile: system, current: system, bootDefault: system });
  expect(await under.box.run(["readlink", "--canonicalize", "/run/booted-system"])).toBe(system);
  expect(await under.box.unit(AGENT_UNIT, "ActiveState")).toBe("active");
}

test("--reboot: the new system's agent proves it, and it is the default", async () => {
  const system = await under.build({ version: "2", kernelVersion: "6.12" });
  const end = await under.start(system, ["--reboot"]);
  await under.box.awaitReboot();
  expect(await end()).toMatchObject({ state: "succeeded", reason: `${system} is live, after a reboot.` });
  await expectRuns(system);
  before = system;
}, 120_000);

test("--reboot: without a proof the machine reboots once more, into the old system", async () => {
  const agent = { flags: ["--url", "http://127.0.0.1:9"] };
  const system = await under.build({ version: "deaf", kernelVersion: "6.13", agent });
  const end = await under.start(system, ["--reboot", "--confirm-window", "3s"]);
  await under.box.awaitReboot();
  await under.box.awaitReboot();
  expect(await end()).toMatchObject({ state: "rolled-back" });
  await expectRuns(before);
}, 120_000);
