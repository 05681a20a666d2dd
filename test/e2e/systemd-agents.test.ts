/**
 * Several agents on one machine, under systemd: that of the system and those of two plain profiles. One rollout reaches
 * all of them, and while the profiles are being proved the system's switch replaces every agent's program and restarts
 * its unit. Each deployment ends with its own truth, and nobody takes what is another's.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHolds } from "../support/holds.ts";
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
  const names = PROFILES.map((name, index) => `${name}=${first[index]}`);
  await fleet.expectRun(["activate", ...names]);

  const faults = [{ stage: "start", kind: "hold", argument: "switch", actions: ["test"] }] as const;
  const agent = { program: OTHER_PROGRAM };
  const system = await under.build({ version: "all-restart", profiles: PROFILES, agent, faults });
  const [toolsA, toolsB] = await Promise.all(
    PROFILES.map((name) => fleet.builder.build("profile", { name, version: "2" })),
  );
  const script = await fleet.builder.build("script", { name: "judge", text: SCRIPT });
  const platform = await fleet.builder.run(["nix-instantiate", "--eval", "--json", "--expr", "builtins.currentSystem"]);
  const spec = await fleet.builder.build("spec", {
    agents: { [NAME]: system, "tools-a": toolsA ?? "", "tools-b": toolsB ?? "" },
    rollbackScript: { [JSON.parse(platform)]: script },
  });
  await fleet.expectRun(["push", spec]);
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
  const text = activation.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
  const { deployments } = rolloutResultSchema.parse(JSON.parse(text.join("\n")));
  const ends = Object.fromEntries(deployments.map(({ agent: name, state, reason }) => [name, { state, reason }]));
  expect({ exitCode, ends }).toMatchObject({
    exitCode: 1,
    ends: {
      [NAME]: { state: "succeeded" },
      "tools-a": { state: "succeeded" },
      "tools-b": { state: "rolled-back", reason: expect.stringContaining("rollback script ended with code 7") },
    },
  });
  expect(await under.state()).toEqual({ profile: system, current: system, bootDefault: system });
  const links = PROFILES.map((name) => box.run(["readlink", "--canonicalize", `/nix/var/nix/profiles/${name}`]));
  expect(await Promise.all(links)).toEqual([toolsA ?? "", first[1] ?? ""]);
  for (const name of AGENTS) {
    const id = await mainProcess(name);
    expect(await box.run(["readlink", `/proc/${id}/exe`])).toBe(OTHER_PROGRAM);
  }
  await under.clean();
  for (const name of PROFILES) {
    const files = (await box.run(["ls", `/var/lib/nixdeploy/agents/${name}`])).split("\n");
    expect(files.filter((file) => file.startsWith("activation") && file !== "activation.lock")).toEqual([]);
  }
}, 90_000);

function mainProcess(name: string): Promise<string> {
  return under.box.unit(`nixdeploy-agent-${name}.service`, "MainPID");
}
