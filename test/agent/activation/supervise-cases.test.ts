/** What a supervisor does about one thing at a time: exit codes, cancels, the agent's unit, clocks, its own kind. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type ActivationRecord,
  CANCEL_FILE_NAME,
  readRecord,
  removeRecord,
  requestCancel,
  writeRecord,
} from "../../../src/agent/activation/record.ts";
import { discardDeployment } from "../../../src/agent/journal/deployment-folder.ts";
import { exited } from "./model-machine.ts";
import { NEW, OLD, SCRIPT } from "./records.ts";
import { createSimulation, expectTruth, type Simulation } from "./simulation.ts";

const DAY_MS = 24 * 60 * 60_000;
const POLICY = { onUnitFailure: "rollback", confirmWindowMs: 60_000, activationTimeoutMs: 60_000 } as const;
const AGENT = { kind: "agent", unit: "nixdeploy-agent-nuc.service" } as const;

/** Kills a supervisor right before the first step with this name. */
async function killBefore(simulation: Simulation, name: string): Promise<void> {
  expect((await simulation.supervise({ killBefore: name })).end).toBe("killed");
}

describe("the outcome", () => {
  test("of a script that says no has its code, and says where the machine is", async () => {
    await using simulation = await createSimulation({ rollbackScript: SCRIPT });
    simulation.machine.exits = { script: [exited(7)] };
    await simulation.supervise();
    expect(await simulation.settle()).toMatchObject({
      outcome: "rolled-back",
      exitCode: 7,
      reason: `The rollback script ended with code 7; the machine is back on ${OLD}.`,
      previousPath: OLD,
      fetchedBytes: 123,
      phaseMs: { activating: expect.any(Number), confirming: expect.any(Number), "rolling-back": expect.any(Number) },
    });
    const phases = (await simulation.readEntries()).flatMap((entry) => (entry.type === "phase" ? [entry.phase] : []));
    expect(phases).toEqual(["activating", "confirming", "rolling-back"]);
  });

  test("is awaited for as long as is on record, which its phase tells the coordinator", async () => {
    await using simulation = await createSimulation({ policy: { ...POLICY, confirmWindowMs: 300_000 } });
    await simulation.supervise();
    await simulation.settle();
    const told = (await simulation.readEntries()).filter((entry) => entry.type === "phase");
    expect(told.at(-1)).toMatchObject({ phase: "confirming", confirmWindowMs: 300_000 });
  });

  test("of units that fail, where the policy is to keep them, is degraded", async () => {
    await using simulation = await createSimulation({ policy: { ...POLICY, onUnitFailure: "keep" } });
    simulation.machine.exits = { "new test": [exited(4)] };
    await simulation.supervise();
    const outcome = await simulation.settle();
    expect(outcome).toMatchObject({ outcome: "degraded", exitCode: 4 });
    expect(outcome.reason).toContain("some units failed, and the policy is to keep it");
    const { profile, current, bootDefault } = simulation.machine;
    expect([profile, current, bootDefault]).toEqual([NEW, NEW, NEW]);
  });

  test("of a way back that fails three times is degraded, and says both reasons", async () => {
    await using simulation = await createSimulation();
    simulation.machine.exits = { "new test": [exited(1)], "old test": [exited(1)] };
    await simulation.supervise();
    const { outcome, reason } = await simulation.settle();
    expect(outcome).toBe("degraded");
    expect(reason).toMatch(/^switch-to-configuration test ended with code 1; going back to .* failed: /);
    expect(simulation.machine.effects.filter((effect) => effect === "old test").length).toBe(3);
  });

  test("of another activation's lock is failed, untouched", async () => {
    await using simulation = await createSimulation();
    simulation.machine.exits = { "new test": [exited(11)] };
    await simulation.supervise();
    expect(await simulation.settle()).toMatchObject({ outcome: "failed", exitCode: 11 });
    expect(simulation.machine.effects).toEqual(["new check", "new test"]);
  });

  test("of a lock that is held in a later try is not that nothing was touched", async () => {
    await using simulation = await createSimulation();
    await writeRecord(simulation.stateDirectory, { ...simulation.record, stage: "activating", tries: 1 });
    simulation.machine.exits = { "new test": [exited(11)] };
    simulation.machine.current = NEW;
    await simulation.supervise();
    const outcome = await simulation.settle();
    expect(outcome.outcome).toBe("rolled-back");
    await expectTruth(outcome, simulation);
  });

  test("is written by a supervisor that finds the end on record, and by no other", async () => {
    await using simulation = await createSimulation();
    await simulation.supervise();
    expect((await simulation.supervise()).end).toBe("nothing-to-do");
    expect((await simulation.readEntries()).filter(({ type }) => type === "outcome").length).toBe(1);
    await removeRecord(simulation.stateDirectory);
    expect((await simulation.supervise()).end).toBe("nothing-to-do");
  });
});

describe("a first NixOS profile", () => {
  test("that is undone is removed, and the running system is the boot default again", async () => {
    await using simulation = await createSimulation({ previous: { profile: null, current: OLD, failedUnits: [] } });
    simulation.machine.exits = { "new boot": [exited(1)] };
    simulation.machine.bootDefault = NEW;
    await simulation.supervise();
    const outcome = await simulation.settle();
    expect(outcome.outcome).toBe("rolled-back");
    await expectTruth(outcome, simulation);
  });
});

describe("a full disk", () => {
  test("does not keep the machine from going back", async () => {
    await using simulation = await createSimulation();
    const { machine } = simulation;
    machine.isReachable = false;
    let isFull = false;
    let wasBack = false;
    const onStep = (step: string) => {
      if (step === "login") isFull = true;
      if (machine.effects.includes("old test") && machine.clock.monotonicMs() > 5 * 60_000) isFull = false;
      wasBack ||= isFull && machine.current === OLD;
      if (isFull && /^(open|write|sync)/.test(step)) throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
    };
    expect((await simulation.supervise({ onStep })).end).toBe("finished");
    expect(wasBack).toBe(true);
    await expectTruth(await simulation.settle(), simulation);
  });

  for (const stage of ["confirming", "committing"] as const) {
    test(`that hid a way back from the record does not make the next supervisor go on with ${stage}`, async () => {
      await using simulation = await createSimulation();
      const { machine, record, stateDirectory } = simulation;
      await writeRecord(stateDirectory, { ...record, stage, tries: 1, commitBegun: stage === "committing" });
      machine.current = OLD;
      await simulation.supervise();
      const outcome = await simulation.settle();
      expect(outcome).toMatchObject({ outcome: "rolled-back" });
      expect(outcome.reason).toStartWith("The new version does not run any more");
      await expectTruth(outcome, simulation);
    });
  }
});

/** At this very moment: `requestCancel` takes turns of the event loop, in which the supervisor goes on. */
function askToCancel({
  stateDirectory,
  record,
}: {
  readonly stateDirectory: string;
  readonly record: ActivationRecord;
}) {
  writeFileSync(join(stateDirectory, CANCEL_FILE_NAME), record.deploymentId);
}

describe("a cancel", () => {
  for (const [mode, asked, outcome] of [
    ["switch", "before the first step", "cancelled"],
    ["switch", "run new/bin/switch-to-configuration check", "cancelled"],
    ["switch", "run new/bin/switch-to-configuration test", "rolled-back"],
    ["switch", "login", "rolled-back"],
    ["switch", `run env ${NEW}`, "succeeded"],
    ["boot", "run new/bin/switch-to-configuration check", "cancelled"],
    ["boot", "run new/bin/switch-to-configuration boot", "succeeded"],
    ["dry-activate", "before the first step", "cancelled"],
    ["dry-activate", "run new/bin/switch-to-configuration dry-activate", "succeeded"],
    ["test", "before the first step", "cancelled"],
    ["test", "run new/bin/switch-to-configuration test", "rolled-back"],
    ["test", "login", "rolled-back"],
  ] as const) {
    test(`of mode ${mode}, ${asked}, ends ${outcome}`, async () => {
      await using simulation = await createSimulation({ mode });
      simulation.machine.isReachable = asked !== "login";
      if (asked === "before the first step") askToCancel(simulation);
      let isAsked = false;
      const onStep = (step: string) => {
        if (step === asked && !isAsked) askToCancel(simulation);
        isAsked ||= step === asked;
      };
      await simulation.supervise({ onStep });
      expect(isAsked).toBe(asked !== "before the first step");
      const end = await simulation.settle();
      expect(end.outcome).toBe(outcome);
      if (outcome === "cancelled") expect(end.reason).toBe("Cancelled before anything was touched.");
      if (outcome === "rolled-back") expect(end.reason).toStartWith("A cancel asked to go back; ");
      await expectTruth(end, simulation);
    });
  }

  for (const rollbackScript of [null, SCRIPT]) {
    const which = rollbackScript === null ? "login" : "script";
    test(`that comes with the end of the proof (${which}) is heeded before anything becomes permanent`, async () => {
      await using simulation = await createSimulation({ rollbackScript });
      const lastOfProof = rollbackScript === null ? "login" : "run script ";
      const onStep = (step: string) => {
        if (step === lastOfProof) askToCancel(simulation);
      };
      await simulation.supervise({ onStep });
      const end = await simulation.settle();
      expect(end.outcome).toBe("rolled-back");
      await expectTruth(end, simulation);
      expect(simulation.machine.effects).not.toContain("set new");
    });
  }

  test("of another deployment is none", async () => {
    await using simulation = await createSimulation();
    await requestCancel(simulation.stateDirectory, "b000000000000000");
    await simulation.supervise();
    expect((await simulation.settle()).outcome).toBe("succeeded");
  });
});

describe("the agent's unit", () => {
  test("is started again as the new system has it, again after a kill, and again after the way back", async () => {
    await using simulation = await createSimulation({ prover: AGENT });
    await killBefore(simulation, "restart");
    expect(simulation.machine.restarts).toBe(0);
    await simulation.supervise();
    expect(await simulation.settle()).toMatchObject({ outcome: "rolled-back" });
    expect(simulation.machine.restarts).toBe(2);
    const { effects } = simulation.machine;
    // Of the supervisor there is none but the look whether the old system reaches the coordinator.
    expect(effects.indexOf("login")).toBeGreaterThan(effects.indexOf("old test"));
  });
});

describe("a clock", () => {
  for (const byMs of [DAY_MS, -DAY_MS]) {
    test(`set ${byMs > 0 ? "forward" : "back"} by a day changes neither the window nor the outcome`, async () => {
      await using simulation = await createSimulation();
      const { machine } = simulation;
      machine.isReachable = false;
      const startMs = machine.clock.monotonicMs();
      let logins = 0;
      const onStep = (step: string) => {
        if (step !== "login") return;
        logins += 1;
        if (logins === 2) machine.clock.jump(byMs);
        machine.isReachable = machine.clock.monotonicMs() - startMs > 30_000;
      };
      await simulation.supervise({ onStep });
      const outcome = await simulation.settle();
      expect(outcome.outcome).toBe("succeeded");
      for (const ms of Object.values(outcome.phaseMs)) expect(ms).toBeGreaterThanOrEqual(0);
    });
  }
});

test("two supervisors at once: one works, the other leaves", async () => {
  await using simulation = await createSimulation();
  const runs = await Promise.all([simulation.supervise(), simulation.supervise()]);
  expect(runs.map(({ end }) => end).sort()).toEqual(["finished", "somebody-else-does"]);
  expect(simulation.machine.effects).toEqual(["new check", "new test", "login", "set new", "new boot", "sync", "sync"]);
  expect((await simulation.settle()).outcome).toBe("succeeded");
});

test("one that comes when all is over and told has nothing to do", async () => {
  await using simulation = await createSimulation();
  await simulation.supervise();
  const { effects } = simulation.machine;
  const done = effects.length;
  // The agent has told it, and has not looked at the record yet.
  await discardDeployment(simulation.stateDirectory, simulation.record.deploymentId);
  expect((await simulation.supervise()).end).toBe("nothing-to-do");
  expect(effects.length).toBe(done);
});

test("one that finds an activation begun and no journal of it says so, and touches nothing", async () => {
  await using simulation = await createSimulation();
  await killBefore(simulation, "login");
  await discardDeployment(simulation.stateDirectory, simulation.record.deploymentId);
  await expect(simulation.supervise()).rejects.toThrow("cannot find the deployment of an activation");
});

test("a supervisor that is told to stop leaves the record to the next", async () => {
  await using simulation = await createSimulation();
  simulation.machine.isReachable = false;
  const stop = new AbortController();
  const onStep = (step: string) => {
    if (step === "login") stop.abort(new Error("stopped"));
  };
  await expect(simulation.supervise({ onStep }, stop.signal)).rejects.toThrow("stopped");
  expect((await readRecord(simulation.stateDirectory))?.stage).toBe("confirming");
  simulation.machine.isReachable = true;
  await simulation.supervise();
  expect((await simulation.settle()).outcome).toBe("succeeded");
});
