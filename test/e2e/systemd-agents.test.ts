/**
 * Several agents on one machine, under systemd: that of the system and those of two plain profiles. One rollout reaches
 * all of them, and while the profiles are being proved the system's switch replaces every agent's program and restarts
 * its unit. Each deployment ends with its own truth, and nobody takes what is another's.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHolds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { createSystemdFleet, NAME, OTHER_PROGRAM, type SystemdFleet } from "../support/systemd-fleet.ts";
import { waitFor } from "../support/wait-for.ts";

const PROFILES = ["tools-a", "tools-b"] as const;
const AGENTS = [NAME, ...PROFILES];

let under: SystemdFleet;

beforeAll(async () => {
  under = await createSystemdFleet("agents");
  const system = await under.build({ version: "with-profiles", profiles: PROFILES });
  expect(await under.deploy(system)).toMatchObject({ state: "succeeded" });
  await waitFor("all agents to be known", () => under.fleet.expectRun(["agents", "--json"]), {
    until: (text) => AGENTS.every((name) => text.includes(`"${name}"`)),
  });
}, 120_000);
afterAll(() => under[Symbol.asyncDispose]());

/** Lets tools-a pass and tools-b fail, but neither before it is told to. */
const SCRIPT = `#!/bin/sh
case $NIXDEPLOY_NEW_PATH in
  *tools-a*) name=tools-a; code=0 ;;
  *tools-b*) name=tools-b; code=7 ;;
  *) exit 0 ;;
esac
: > /run/hold/$name.reached
while [ -e /run/hold/$name ]; do sleep 0.05; done
exit $code
`;

test("a switch that restarts every agent of the machine leaves each deployment its own end", async () => {
  const { fleet, box } = under;
  const holds = createHolds(box);
  const first = await Promise.all(PROFILES.map((name) => fleet.builder.build("profile", { name, version: "1" })));
  for (const path of first) await fleet.expectRun(["push", path]);
  await fleet.expectRun(["activate", ...PROFILES.map((name, index) => `${name}=${first[index]}`)]);

  const system = await buildHeldSystem("all-restart");
  const spec = await buildSpec({ version: "2", system, script: await buildScript() });
  for (const name of ["switch", ...PROFILES]) await holds.set(name);
  const activation = await fleet.start(["activate", spec, "--json"]);
  for (const name of ["switch", ...PROFILES]) await holds.reached(name, activation.output);
  const before = await Promise.all(AGENTS.map(mainProcess));
  await holds.release("switch");
  for (const [index, name] of AGENTS.entries()) {
    await waitFor(`another agent ${name}`, () => mainProcess(name), {
      until: (id) => id !== "0" && id !== before[index],
      describe: activation.output,
    });
  }
  for (const name of PROFILES) await holds.release(name);
  const { exitCode } = await activation.exited;
  expect({ exitCode, ends: readEnds(activation) }).toMatchObject({
    exitCode: 1,
    ends: {
      [NAME]: { state: "succeeded" },
      "tools-a": { state: "succeeded" },
      "tools-b": { state: "rolled-back", reason: expect.stringContaining("rollback script ended with code 7") },
    },
  });
  expect(await under.state()).toEqual({ profile: system, current: system, bootDefault: system });
  const [toolsA, toolsB] = await Promise.all(PROFILES.map(readProfile));
  expect(toolsA).toEndWith("-tools-a-profile-2");
  expect(toolsB).toBe(first[1] ?? "");
  for (const name of AGENTS) {
    expect(await box.run(["readlink", `/proc/${await mainProcess(name)}/exe`])).toBe(OTHER_PROGRAM);
  }
  await expectClean();
}, 90_000);

test("a power cut while all of them are in the middle puts each back on what it was", async () => {
  const { fleet, box } = under;
  const holds = createHolds(box);
  const before = await under.state();
  const links = () => Promise.all(PROFILES.map(readProfile));
  const profilesBefore = await links();
  const spec = await buildSpec({ version: "3", system: await buildHeldSystem("cut"), script: await buildScript() });
  for (const name of ["switch", ...PROFILES]) await holds.set(name);
  const activation = await fleet.start(["activate", spec, "--json"]);
  for (const name of ["switch", ...PROFILES]) await holds.reached(name, activation.output);
  await box.powerCut();
  await box.boot();
  expect((await activation.exited).exitCode).toBe(1);
  const ends = readEnds(activation);
  for (const name of AGENTS) {
    expect({ name, ...ends[name] }).toMatchObject({ name, state: "rolled-back" });
    expect(ends[name]?.reason).toContain("rebooted before the new version had proved itself");
  }
  expect(await under.state()).toEqual(before);
  expect(await links()).toEqual(profilesBefore);
  await expectClean();
}, 90_000);

function mainProcess(name: string): Promise<string> {
  return under.box.unit(`nixdeploy-agent-${name}.service`, "MainPID");
}

function readProfile(name: string): Promise<string> {
  return under.box.run(["readlink", "--canonicalize", `/nix/var/nix/profiles/${name}`]);
}

/** Its switch waits, once it is told to, before it does anything; then it replaces the program of all agents. */
function buildHeldSystem(version: string): Promise<string> {
  const faults = [{ stage: "start", kind: "hold", argument: "switch", actions: ["test"] }] as const;
  return under.build({ version, profiles: PROFILES, agent: { program: OTHER_PROGRAM }, faults });
}

function buildScript(): Promise<string> {
  return under.fleet.builder.build("script", { name: "judge", text: SCRIPT });
}

/** For all agents: a system, and profiles of a version. Pushed. */
async function buildSpec(of: { readonly version: string; readonly system: string; readonly script: string }) {
  const { builder, expectRun } = under.fleet;
  const profiles: [string, string][] = [];
  for (const name of PROFILES) profiles.push([name, await builder.build("profile", { name, version: of.version })]);
  const platform = await builder.run(["nix-instantiate", "--eval", "--json", "--expr", "builtins.currentSystem"]);
  const spec = await builder.build("spec", {
    agents: { [NAME]: of.system, ...Object.fromEntries(profiles) },
    rollbackScript: { [JSON.parse(platform)]: of.script },
  });
  await expectRun(["push", spec]);
  return spec;
}

function readEnds(activation: SpawnedProcess) {
  const text = activation.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
  const { deployments } = rolloutResultSchema.parse(JSON.parse(text.join("\n")));
  return Object.fromEntries(deployments.map(({ agent: name, state, reason }) => [name, { state, reason }]));
}

async function expectClean(): Promise<void> {
  await under.clean();
  for (const name of PROFILES) {
    const files = (await under.box.run(["ls", `/var/lib/nixdeploy/agents/${name}`])).split("\n");
    expect(files.filter((file) => file.startsWith("activation") && file !== "activation.lock")).toEqual([]);
  }
}
