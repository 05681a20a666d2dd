/**
 * Something that runs on a model machine and can be killed between any two of its steps: a change of a file below the
 * simulated disk, or of the machine. Once dead, nothing that it still tries has an effect.
 */
import type { SuperviseDeps } from "../../../src/agent/activation/supervise.ts";
import { silentLogger } from "../../../src/log.ts";
import { type Clock, systemRandom } from "../../../src/runtime.ts";
import { actAs } from "../../support/simulated-files.ts";
import type { ModelMachine } from "./model-machine.ts";

export type Faults = {
  /** Before this step, counted from 1, or before the first one of this name, the process is killed. */
  readonly killBefore?: number | string;
  /** Told before each step; what it throws is what the step throws. */
  readonly onStep?: (step: string, number: number) => void;
  /** Told after the agent's unit was started again. */
  readonly onRestart?: () => Promise<void>;
};

export type SimulatedProcess = {
  readonly steps: readonly string[];
  readonly isDead: boolean;
  readonly clock: Clock;
  /** Does the work as this process. */
  run<T>(work: () => Promise<T>): Promise<T>;
  /** What a supervisor in this process works with. */
  superviseDeps(stateDirectory: string, signal: AbortSignal): SuperviseDeps;
};

class Killed extends Error {}

export function createSimulatedProcess(machine: ModelMachine, faults: Faults = {}): SimulatedProcess {
  const steps: string[] = [];
  let isDead = false;
  // What the dead would still do to the machine itself, past any step.
  const death = new AbortController();
  const mustLive = () => {
    if (isDead) throw new Killed("the process was killed");
  };
  const onStep = (step: string) => {
    mustLive();
    steps.push(step);
    isDead = faults.killBefore === steps.length || faults.killBefore === step;
    if (isDead) death.abort(new Killed("the process was killed"));
    mustLive();
    faults.onStep?.(step, steps.length);
  };
  const clock: Clock = {
    ...machine.clock,
    async sleep(durationMs, signal) {
      mustLive();
      await machine.clock.sleep(durationMs, signal);
      mustLive();
    },
  };
  return {
    ...{ steps, clock },
    get isDead() {
      return isDead;
    },
    run: (work) => actAs(onStep, work),
    superviseDeps: (stateDirectory, signal) => ({
      ...{ stateDirectory, clock, random: systemRandom, logger: silentLogger, deadline: null },
      signal: AbortSignal.any([signal, death.signal]),
      run: async (program) => {
        const isSync = program.command === "sync";
        onStep(isSync ? "sync" : `run ${program.command.replace(/^.*?-/, "")} ${program.args.at(-1) ?? ""}`);
        const exit = await machine.run(program);
        mustLive();
        if (program.command === "systemctl" && exit.kind === "exited" && exit.code === 0) {
          // Everything that runs goes down with the machine.
          isDead = true;
          machine.reboot();
          mustLive();
        }
        return exit;
      },
      bootClock: { read: async () => machine.readBoot() },
      readProfilePath: async () => machine.profile,
      readCurrentSystem: async () => machine.current,
      boot: {
        readBootedSystem: async () => machine.booted,
        readUnproved: async (system) => machine.readUnproved(system),
        readInhibitors: async () => machine.inhibitors,
        findBootLoader: async () => {
          const loader = machine.findBootLoader();
          if (typeof loader === "string") return loader;
          const watched = (name: "pin" | "setOneShot") => async (entry: string | null) => {
            onStep(`${name} ${entry?.replace(/^.*?-/, "") ?? "nothing"}`);
            await loader[name](entry);
          };
          return { ...loader, pin: watched("pin"), setOneShot: watched("setOneShot") };
        },
      },
      readNames: async () => new Set(),
      readFailedUnits: async () => {
        if (machine.silentOn !== null && machine.current === machine.silentOn) throw new Error("systemd is silent");
        return machine.failedUnits;
      },
      hasUnit: async () => true,
      mainProcess: async () => process.pid,
      healthSenses: {
        readUnitStates: async () => null,
        connect: async () => onStep("connect"),
        readStatus: async () => 200,
      },
      restartUnit: async () => {
        onStep("restart");
        machine.restartUnit();
        await faults.onRestart?.();
      },
      loginAsSupervisor: async () => {
        onStep("login");
        return machine.login();
      },
    }),
  };
}
