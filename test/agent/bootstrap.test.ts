/** A bootstrap: when its agent runs, when it is out of the way, and when somebody else is the agent. */
import { describe, expect, test } from "bun:test";
import {
  type AgentProcess,
  BOOTSTRAP_START,
  type BootstrapLook,
  type BootstrapMemory,
  runBootstrap,
  stepBootstrap,
} from "../../src/agent/bootstrap.ts";
import { silentLogger } from "../../src/log.ts";
import { createVirtualClock } from "../support/virtual-clock.ts";

const AGENT = { kind: "agent", unit: "nixdeploy-agent-nuc.service" } as const;
const SUPERVISOR = { kind: "supervisor" } as const;
const recordAt = (
  stage: "checking" | "activating" | "confirming" | "undoing",
  prover: typeof AGENT | typeof SUPERVISOR,
) => ({
  ...{ stage, prover, outcome: null },
});
const finished = (outcome: "succeeded" | "rolled-back", prover: typeof AGENT | typeof SUPERVISOR = AGENT) => ({
  ...{ stage: "finished" as const, prover, outcome },
});

describe("a look", () => {
  const seen: BootstrapMemory = { hasSeenActivation: true, givesWayUntilMs: null };
  const waiting: BootstrapMemory = { hasSeenActivation: true, givesWayUntilMs: 5_000 };
  type Case = readonly [what: string, memory: BootstrapMemory, look: Partial<BootstrapLook>, wanted: string];
  const cases: readonly Case[] = [
    ["at the start", BOOTSTRAP_START, {}, "run"],
    ["while nothing happens", BOOTSTRAP_START, { isRunning: true, isHeld: true }, "run"],
    ["somebody else is the agent already", BOOTSTRAP_START, { isHeld: true }, "over"],
    ["nothing is touched yet", BOOTSTRAP_START, { record: recordAt("checking", AGENT), isRunning: true }, "run"],
    ["it is made live with a unit", seen, { record: recordAt("activating", AGENT), isRunning: true }, "stop"],
    ["the unit's agent is awaited", seen, { record: recordAt("confirming", AGENT) }, "stop"],
    [
      "the unit's agent has the lock, but is not proved",
      seen,
      { record: recordAt("confirming", AGENT), isHeld: true },
      "stop",
    ],
    ["it is undone", seen, { record: recordAt("undoing", AGENT) }, "stop"],
    ["it is found in the middle at the start", BOOTSTRAP_START, { record: recordAt("confirming", AGENT) }, "stop"],
    ["it was undone", seen, { record: finished("rolled-back") }, "run"],
    ["it succeeded, and its agent starts", seen, { record: finished("succeeded") }, "stop"],
    ["it succeeded, and its agent is there", seen, { record: finished("succeeded"), isHeld: true }, "over"],
    ["it was reported and forgotten", seen, { isHeld: true }, "over"],
    ["the unit's agent is between two starts", waiting, { nowMs: 4_000 }, "stop"],
    ["the unit's agent does not come", waiting, { nowMs: 5_000 }, "run"],
    ["without a unit it goes on", seen, { record: recordAt("confirming", SUPERVISOR), isRunning: true }, "run"],
    [
      "without a unit our agent reports first",
      seen,
      { record: finished("succeeded", SUPERVISOR), isRunning: true },
      "run",
    ],
    ["and then gives way", seen, { isRunning: true, isHeld: true, nowMs: 1_000 }, "stop"],
  ];
  for (const [what, memory, look, wanted] of cases) {
    test(`${what}: ${wanted}`, () => {
      expect(stepBootstrap(memory, { record: null, isRunning: false, isHeld: false, nowMs: 0, ...look }).what).toBe(
        wanted as "run",
      );
    });
  }
});

/** A machine whose state directory one process at a time may hold. */
function createScene() {
  const clock = createVirtualClock();
  const scene = { record: null as BootstrapLook["record"], otherHolds: false, starts: 0, stops: [] as string[] };
  let end: ((end: Awaited<AgentProcess["exited"]>) => void) | null = null;
  const leave = (code: number | null, why: string) => {
    end?.({ code, why });
    end = null;
  };
  const stopping = new AbortController();
  const run = (timeoutMs = 600_000) =>
    runBootstrap({
      ...{ timeoutMs, clock, log: silentLogger, signal: stopping.signal },
      readRecord: async () => scene.record,
      isHeld: () => scene.otherHolds || end !== null,
      startAgent: () => {
        scene.starts += 1;
        const { promise, resolve } = Promise.withResolvers<Awaited<AgentProcess["exited"]>>();
        end = resolve;
        const leaveBy = (how: string) => () => {
          scene.stops.push(how);
          leave(null, how);
        };
        return { exited: promise, kill: leaveBy("killed"), stop: leaveBy("stopped") };
      },
    });
  const wait = (ms: number) => clock.sleep(ms, new AbortController().signal);
  return { clock, scene, run, wait, leave, stop: () => stopping.abort(new Error("SIGTERM")) };
}

describe("a bootstrap", () => {
  test("gives way to the unit's agent, and ends when that is proved", async () => {
    const { scene, run, wait } = createScene();
    const running = run();
    await wait(5_000);
    scene.record = recordAt("activating", AGENT);
    await wait(1_000);
    expect(scene).toMatchObject({ starts: 1, stops: ["killed"] });
    scene.otherHolds = true;
    scene.record = recordAt("confirming", AGENT);
    await wait(30_000);
    scene.record = null;
    await running;
    expect(scene.starts).toBe(1);
  });

  test("is no news to the agent of one that was killed: that ends, and this one goes on", async () => {
    const { scene, run, wait, stop } = createScene();
    scene.otherHolds = true;
    const running = run();
    await wait(1_000);
    scene.otherHolds = false;
    await wait(5_000);
    expect(scene.starts).toBe(1);
    stop();
    await expect(running).rejects.toThrow("SIGTERM");
  });

  test("goes on after an undo, at once", async () => {
    const { scene, run, wait } = createScene();
    const running = run();
    await wait(1_000);
    scene.record = recordAt("activating", AGENT);
    await wait(60_000);
    scene.record = finished("rolled-back");
    await wait(1_000);
    expect(scene.starts).toBe(2);
    scene.record = null;
    await wait(60_000);
    expect(scene.stops).toEqual(["killed"]);
    scene.record = recordAt("activating", AGENT);
    await wait(1_000);
    scene.record = finished("succeeded");
    await wait(6_000);
    scene.otherHolds = true;
    await running;
    expect(scene.starts).toBe(2);
  });

  test("without units, asks after each activation whether there is somebody else", async () => {
    const { scene, run, wait } = createScene();
    const running = run();
    await wait(1_000);
    scene.record = recordAt("confirming", SUPERVISOR);
    await wait(1_000);
    scene.record = null;
    await wait(1_000);
    expect(scene.stops).toEqual(["killed"]);
    await wait(30_000);
    expect(scene.starts).toBe(2);
    scene.otherHolds = true;
    scene.record = recordAt("confirming", SUPERVISOR);
    await wait(1_000);
    scene.record = null;
    await running;
  });

  test("ends in time, and stops its agent", async () => {
    const { scene, run } = createScene();
    await expect(run(60_000)).rejects.toMatchObject({
      ...{ kind: "unreachable", message: expect.stringContaining("has taken over within 60 s") },
    });
    expect(scene.stops).toEqual(["stopped"]);
  });

  test("ends with its agent's own failure", async () => {
    const { run, wait, leave } = createScene();
    const failure = run().catch((error: unknown) => error);
    await wait(1_000);
    leave(77, "ended with code 77");
    expect(await failure).toMatchObject({ kind: "denied" });
  });

  test("that finds an agent starts none", async () => {
    const { scene, run } = createScene();
    scene.otherHolds = true;
    await run();
    expect(scene.starts).toBe(0);
  });

  test("says goodbye when it is told to stop", async () => {
    const { scene, run, wait, stop } = createScene();
    const failure = run().catch((error: unknown) => error);
    await wait(1_000);
    stop();
    expect(String(await failure)).toContain("SIGTERM");
    expect(scene.stops).toEqual(["stopped"]);
  });
});
