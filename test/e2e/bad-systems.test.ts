/**
 * Systems and rollback scripts that cannot work, and a device that cannot take them: each is told apart by its message,
 * and what can be seen beforehand is refused before anything is touched.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { FixtureOptions } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { rolloutResultSchema } from "../support/results.ts";

const UNIT = "nuc.service";
const ABSENT = "/nix/store/00000000000000000000000000000000-never-pushed";

let fleet: Fleet;
let nuc: Device;
let probe: ActivationProbe;
let oldSystem: string;
let versions = 0;

beforeAll(async () => {
  fleet = await createFleet("bad-systems");
  oldSystem = await fleet.builder.build("system", { name: "nuc", version: "0" });
  nuc = await fleet.addDevice("nuc", oldSystem);
  probe = createActivationProbe(nuc, { agent: "nuc", unit: UNIT });
  await fleet.startAgent(nuc);
}, 60_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

const PROGRAMS = [
  ["missing", "could not be started (there is no such file or directory)"],
  ["not-executable", "could not be started (permission denied)"],
  ["foreign", "it is no program that this system can execute"],
] as const;

test.each(PROGRAMS)(
  "a switch script that is %s",
  async (switchProgram, message) => {
    for (const mode of ["switch", "dry-activate"] as const) {
      const { state, reason } = await deploy({ switchProgram }, { flags: ["--mode", mode] });
      expect([state, reason]).toEqual(["failed", expect.stringContaining(message)]);
      expect(reason).toMatch(/switch-to-configuration/i);
    }
  },
  60_000,
);

test("a system for another platform", async () => {
  const [here, elsewhere] =
    process.arch === "arm64" ? ["aarch64-linux", "x86_64-linux"] : ["x86_64-linux", "aarch64-linux"];
  for (const mode of ["switch", "boot", "test", "dry-activate"]) {
    const { state, reason } = await deploy({ system: elsewhere }, { flags: ["--mode", mode] });
    expect([state, reason]).toEqual([
      "failed",
      expect.stringMatching(
        new RegExp(
          `^Cannot activate /nix/store/\\S+: it is a system for ${elsewhere}, and this machine is ${here}\\.$`,
        ),
      ),
    ]);
  }
}, 60_000);

test("a profile directory that is not writable", async () => {
  const directory = "/nix/var/nix/profiles";
  await nuc.run(["mount", "--no-mtab", "--bind", directory, directory]);
  await nuc.run(["mount", "--no-mtab", "-o", "remount,bind,ro", directory]);
  try {
    const { state, reason } = await deploy({});
    expect([state, reason]).toEqual(["failed", `The profile directory ${directory} is not writable.`]);
  } finally {
    await nuc.run(["umount", "--no-mtab", directory]);
  }
}, 60_000);

test("a rollback script that is no executable file", async () => {
  const script = await fleet.builder.build("script", { name: "data", text: "{}\n", executable: false });
  const { state, reason } = await deploy({}, { script });
  expect([state, reason]).toEqual(["failed", `The rollback script ${script} is not an executable file.`]);
}, 60_000);

test("a rollback script that this machine cannot run", async () => {
  const script = await fleet.builder.build("script", { name: "no-program", text: "\x7fELF\n" });
  const { state, reason } = await deploy({}, { script, isTouched: true });
  expect(state).toBe("rolled-back");
  expect(reason).toContain("he rollback script could not be started");
}, 60_000);

test("a rollback script that never ends", async () => {
  const script = await fleet.builder.build("script", { name: "endless", text: "#!/bin/sh\nexec sleep infinity\n" });
  const { state, reason } = await deploy({}, { script, flags: ["--confirm-window", "3s"], isTouched: true });
  expect(state).toBe("rolled-back");
  expect(reason).toMatch(/rollback script did not end within \d s and was stopped/);
}, 60_000);

test("a rollback script that was never pushed", async () => {
  const { system, spec } = await prepare({}, ABSENT);
  const refused = await fleet.run(["activate", spec]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain(ABSENT);
  expect(await probe.sides()).toEqual({ permanent: oldSystem, running: oldSystem, unit: "0" });
  expect((await nuc.exec(["nix-store", "--check-validity", system])).exitCode).not.toBe(0);
}, 60_000);

test("a path that lies in the store and is not valid there is fetched, not trusted", async () => {
  const { system, spec } = await prepare({}, null);
  const script = `${system}/bin/switch-to-configuration`;
  await nuc.run(["mkdir", "-p", `${system}/bin`]);
  await nuc.run(["/bin/sh", "-euc", 'printf "#!/bin/sh\\necho wrong\\n" > "$0"; chmod +x "$0"', script]);
  await fleet.expectRun(["activate", spec]);
  expect(await probe.sides()).toEqual({ permanent: system, running: system, unit: `${versions}` });
  expect(await nuc.run(["nix-store", "--verify-path", system])).toBe("");
}, 60_000);

type DeployOptions = { readonly script?: string; readonly flags?: readonly string[]; readonly isTouched?: boolean };

/** Deploys a system that must not stay; the device must be where it was, and its unit never touched unless told so. */
async function deploy(
  options: Partial<FixtureOptions["system"]>,
  { script, flags = [], isTouched = false }: DeployOptions = {},
): Promise<{ readonly state: string; readonly reason: string | null }> {
  const { spec } = await prepare(options, script ?? null);
  if (script !== undefined) await fleet.expectRun(["push", script]);
  const unitBefore = await probe.unitProcess();
  const result = await fleet.run(["activate", spec, "--json", ...flags]);
  expect(result.exitCode).toBe(1);
  const [deployment] = rolloutResultSchema.parse(JSON.parse(result.stdout)).deployments;
  if (deployment === undefined) throw new Error(result.stdout);
  expect(await probe.sides()).toEqual({ permanent: oldSystem, running: oldSystem, unit: "0" });
  if (!isTouched) expect(await probe.unitProcess()).toBe(unitBefore);
  return deployment;
}

async function prepare(options: Partial<FixtureOptions["system"]>, script: string | null) {
  versions += 1;
  const system = await fleet.builder.build("system", { name: "nuc", version: `${versions}`, ...options });
  await fleet.expectRun(["push", system]);
  const spec = join(fleet.directory, `spec-${versions}.json`);
  const platform = process.arch === "arm64" ? "aarch64-linux" : "x86_64-linux";
  const rollbackScript = script === null ? {} : { [platform]: script };
  await writeFile(spec, JSON.stringify({ agents: { nuc: system }, rollbackScript }));
  return { system, spec };
}
