/** Supervisors that are killed, rebooted, starved of disk space, or too many: old or new, and the outcome says which. */
import { describe, expect, test } from "bun:test";
import { readRecord } from "../../../src/agent/activation/record.ts";
import type { OutcomeEntry } from "../../../src/agent/journal/journal.ts";
import { NEW, OLD } from "./records.ts";
import { SCENARIOS, simulate } from "./scenarios.ts";
import type { Faults } from "./simulated-process.ts";
import { expectTruth } from "./simulation.ts";

/** `FAULT_MATRIX=full` takes every step for every fault; else most faults come at every third, another third by scenario. */
const isFull = process.env["FAULT_MATRIX"] === "full";
const STRIDE = isFull ? 1 : 3;
/** More than any activation takes; a loop that gets there has lost its end. */
const STEPS_MAX = 200;

/** Runs the body for every step of a scenario, or every n-th, until it has fewer. */
async function forEachStep(
  steps: { readonly from: number; readonly stride: number },
  body: (step: number) => Promise<"hit" | "missed">,
): Promise<void> {
  for (let step = steps.from; step <= STEPS_MAX; step += steps.stride) if ((await body(step)) === "missed") return;
  throw new Error(`more than ${STEPS_MAX} steps`);
}

const resultOf = ({ outcome, fault }: Pick<OutcomeEntry, "outcome" | "fault">) => ({ outcome, fault: fault ?? null });

for (const [index, scenario] of SCENARIOS.entries()) {
  const { outcome, fault } = scenario;
  const expected = resultOf({
    outcome,
    fault: fault ?? (outcome === "rolled-back" && fault !== null ? "version" : undefined),
  });
  // With a reboot there are twice as many.
  const isLong = /reboot|kernel/.test(scenario.name) && !isFull;
  const stride = isLong ? 2 * STRIDE : STRIDE;
  const someSteps = { from: 1 + (index % stride), stride };
  const everyStep = isLong ? someSteps : { from: 1, stride: 1 };
  describe(scenario.name, () => {
    test(`ends ${scenario.outcome}`, async () => {
      await using simulation = await simulate(scenario);
      const outcome = await simulation.settle();
      expect(resultOf(outcome)).toEqual(expected);
      await expectTruth(outcome, simulation);
      const entries = await simulation.readEntries();
      expect(entries.map(({ n }) => n)).toEqual(entries.map((_, index) => index + 1));
    });

    test("ends the same when its supervisor is killed before any step", async () => {
      await forEachStep(everyStep, async (killBefore) => {
        await using simulation = await simulate(scenario);
        const { end, steps } = await simulation.superviseUntil(killBefore);
        const outcome = await simulation.settle();
        const where = `killed before ${steps.at(-1)}`;
        expect({ where, ...resultOf(outcome) }).toEqual({ where, ...expected });
        await expectTruth(outcome, simulation);
        return end === "killed" ? "hit" : "missed";
      });
    });

    for (const booted of ["what the boot loader names", "the other one"]) {
      test(`ends old or new when the machine reboots before any step, into ${booted}`, async () => {
        await forEachStep(someSteps, async (killBefore) => {
          await using simulation = await simulate(scenario);
          const { machine, record, stateDirectory } = simulation;
          const { end } = await simulation.superviseUntil(killBefore);
          if (end !== "killed") return "missed";
          const stage = (await readRecord(stateDirectory))?.stage;
          machine.reboot();
          const other = machine.current === OLD ? NEW : OLD;
          if (record.type === "nixos" && booted === "the other one") machine.booted = machine.current = other;
          const isRebooted = stage === "finished" || stage === "checking" || record.mode === "boot";
          await expectTruth(await simulation.settle(), { ...simulation, isRebooted });
          return "hit";
        });
      });
    }

    for (const duration of ["once", "for ten minutes"]) {
      test(`ends old or new when the disk takes nothing at any step, ${duration}`, async () => {
        await forEachStep(someSteps, async (step) => {
          await using simulation = await simulate(scenario);
          let isHit = false;
          let fullUntilMs = Number.POSITIVE_INFINITY;
          const onStep: Faults["onStep"] = (name, number) => {
            const isDue = duration === "once" ? number === step : number >= step;
            const nowMs = simulation.machine.clock.monotonicMs();
            if (!isDue || !/^(open|write|sync|rename|make) /.test(name) || nowMs >= fullUntilMs) return;
            fullUntilMs = Math.min(fullUntilMs, nowMs + 10 * 60_000);
            isHit = true;
            throw Object.assign(new Error(`ENOSPC: no space left on device, ${name}`), { code: "ENOSPC" });
          };
          const { steps } = await simulation.supervise({ onStep });
          await expectTruth(await simulation.settle(), simulation);
          return isHit || steps.length >= step ? "hit" : "missed";
        });
      });
    }
  });
}
