/** A process of the simulation: a clock and files that stop working for it when it is killed, and locks it lets go of. */
import type { Clock } from "../../src/runtime.ts";
import { type Actor, actAs } from "../support/memory-files.ts";

export type SimulatedProcess = {
  readonly isDead: boolean;
  readonly clock: Clock;
  /** Aborted when it is killed. */
  readonly death: AbortSignal;
  run<T>(work: () => Promise<T>): Promise<T>;
  kill(): void;
};

export class Killed extends Error {}

export function createSimulatedProcess(clock: Clock): SimulatedProcess {
  const death = new AbortController();
  const actor: Actor = { isDead: false, death: death.signal };
  return {
    get isDead() {
      return actor.isDead;
    },
    death: death.signal,
    clock: {
      ...clock,
      sleep: (durationMs, signal) => clock.sleep(durationMs, AbortSignal.any([signal, death.signal])),
    },
    run: (work) => actAs(actor, work),
    kill() {
      actor.isDead = true;
      death.abort(new Killed("the process was killed"));
    },
  };
}
