/**
 * `nixdeploy agent --bootstrap` under systemd: on a machine whose system has no agent, started by hand, it takes a system
 * that has one, gives way to its unit, and ends; after an undo it goes on.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import type { FixtureUnit } from "../support/builder.ts";
import {
  AGENT_UNIT,
  createSystemdFleet,
  ENVIRONMENT_FILE,
  NAME,
  PROGRAM,
  type SystemdFleet,
} from "../support/systemd-fleet.ts";
import { waitFor } from "../support/wait-for.ts";

const BROKEN: FixtureUnit = { name: "broken.service", fails: true };

let under: SystemdFleet;
let stock: string;

beforeAll(async () => {
  under = await createSystemdFleet("bootstrap");
  // A machine as somebody else installed it.
  stock = await under.build({ version: "stock", agent: null, hasUndoUnit: false });
  expect(await under.deploy(stock, ["--allow-agent-removal"])).toMatchObject({ state: "succeeded" });
  await under.clean();
  expect(await under.box.unit(AGENT_UNIT, "ActiveState")).toBe("inactive");
}, 120_000);
afterAll(() => under[Symbol.asyncDispose]());

/** In no unit, as from a shell. */
function bootstrap(timeout: string) {
  const command = `set -a; . ${ENVIRONMENT_FILE}; exec ${PROGRAM} agent --name ${NAME} --bootstrap --timeout ${timeout}`;
  return under.box.exec(["/bin/sh", "-c", command], { timeoutMs: 110_000 });
}

test("a bootstrap that nobody deploys to ends in time, and leaves nobody behind", async () => {
  const { exitCode, stderr } = await bootstrap("2s");
  expect(exitCode).toBe(75);
  expect(stderr).toContain("no agent of the machine's own has taken over within 2 s");
  expect(await under.box.run(["/bin/sh", "-c", "pgrep -x nixdeploy || true"])).toBe("");
}, 60_000);

test("one that is killed takes its agent along, and the next one goes on", async () => {
  const { box } = under;
  const isAnyRunning = async () => (await box.run(["/bin/sh", "-c", "pgrep -x nixdeploy || true"])) !== "";
  const killed = bootstrap("100s");
  await waitFor("its agent to run", () => box.run(["/bin/sh", "-c", "pgrep -c -x nixdeploy || true"]), {
    until: (count) => count === "2",
  });
  // Meanwhile there is one, and no second.
  const second = await bootstrap("2s");
  expect([second.exitCode, second.stderr]).toEqual([1, expect.stringContaining("another one goes on")]);
  await box.run(["/bin/sh", "-c", "kill -KILL $(pgrep -o -x nixdeploy)"]);
  await killed;
  await waitFor("its agent to end", async () => !(await isAnyRunning()));
  expect((await bootstrap("2s")).exitCode).toBe(75);
}, 60_000);

test("it goes on after an undo, and ends when the unit's agent has taken over", async () => {
  const { box } = under;
  const running = bootstrap("100s");
  const undone = await under.deploy(await under.build({ version: "broken", units: [BROKEN] }));
  expect(undone).toMatchObject({ state: "rolled-back", reason: expect.stringContaining("broken.service") });
  expect(await under.state()).toEqual({ profile: stock, current: stock, bootDefault: stock });

  const system = await under.build({ version: "with-agent" });
  expect(await under.deploy(system)).toMatchObject({ state: "succeeded" });
  const { exitCode, stderr } = await running;
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  expect(stderr).toContain(`the machine's own agent ${NAME} has taken over`);
  expect(await under.state()).toEqual({ profile: system, current: system, bootDefault: system });
  await waitFor("the unit's agent to be active", () => box.unit(AGENT_UNIT, "ActiveState"), {
    until: (state) => state === "active",
  });
  // Once more, as a script that is run again does: there is nothing to do.
  expect((await bootstrap("30s")).exitCode).toBe(0);
}, 120_000);
