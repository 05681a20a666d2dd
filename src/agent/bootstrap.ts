/**
 * `nixdeploy agent --bootstrap`: an agent that no unit runs, on a machine whose system does not contain one yet, until
 * what it activates has brought the machine's own.
 *
 * The agent proper is a process of its own, with the same name, key and state directory. While a new version that has a
 * unit for the agent is made live, it is in the way: it holds the locks of profile and state directory, and the unit's
 * agent must log in with its key. So it is killed then, which an agent must stand at any moment; the supervisor carries
 * the activation on, and the unit's agent reports it. When nobody takes over, because it was undone, it is started again
 * and goes on.
 *
 * Where no unit can be looked for (homes, profiles), it gives way for a moment after each activation.
 */
import { NixdeployError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Clock } from "../runtime.ts";
import type { ActivationRecord } from "./activation/record.ts";

export type BootstrapLook = {
  readonly record: Pick<ActivationRecord, "stage" | "outcome" | "prover"> | null;
  /** Whether our own agent runs. */
  readonly isRunning: boolean;
  /** Whether somebody holds the state directory. */
  readonly isHeld: boolean;
  readonly nowMs: number;
};

/** What was seen so far. */
export type BootstrapMemory = {
  /** An activation began since our agent was started. */
  readonly hasSeenActivation: boolean;
  /** Until when it is awaited that somebody else takes over; null when it is not. */
  readonly givesWayUntilMs: number | null;
};

export type BootstrapStep = {
  /** `run`: our agent is to run · `stop`: it is not · `over`: somebody else is the agent. */
  readonly what: "run" | "stop" | "over";
  readonly memory: BootstrapMemory;
};

export const BOOTSTRAP_START: BootstrapMemory = { hasSeenActivation: false, givesWayUntilMs: null };
/** A unit of ours is started again after 5 s. */
const GIVE_WAY_MS = 20_000;

/** What follows from a look. Pure. */
export function stepBootstrap(memory: BootstrapMemory, look: BootstrapLook): BootstrapStep {
  const { record, isRunning, isHeld, nowMs } = look;
  if (record !== null && record.stage !== "finished") {
    const mustGo = record.prover.kind === "agent" && record.stage !== "checking";
    const isStopped = mustGo || (memory.hasSeenActivation && !isRunning);
    return { what: isStopped ? "stop" : "run", memory: { hasSeenActivation: true, givesWayUntilMs: null } };
  }
  if (!isRunning && isHeld) return { what: "over", memory };
  // Our own agent tells of it first, and forgets it.
  if (isRunning && (record !== null || !memory.hasSeenActivation)) return { what: "run", memory };
  // Undone, or never begun: nobody else will come.
  if (record !== null && record.outcome !== "succeeded") return { what: "run", memory: BOOTSTRAP_START };
  if (!memory.hasSeenActivation) return { what: "run", memory };
  const givesWayUntilMs = memory.givesWayUntilMs ?? nowMs + GIVE_WAY_MS;
  return nowMs < givesWayUntilMs
    ? { what: "stop", memory: { ...memory, givesWayUntilMs } }
    : { what: "run", memory: BOOTSTRAP_START };
}

export type AgentProcess = {
  /** How it ended. Never rejects. */
  readonly exited: Promise<{ readonly code: number | null; readonly why: string }>;
  /** At once. */
  kill(): void;
  /** As SIGTERM does: it says goodbye, and ends. */
  stop(): void;
};

export type BootstrapDeps = {
  readonly readRecord: () => Promise<BootstrapLook["record"]>;
  readonly isHeld: () => boolean;
  readonly startAgent: () => AgentProcess;
  /** How long all of it may take. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
};

const LOOK_MS = 250;
/** An agent of a bootstrap that was killed ends by itself (`commands/agent-bootstrap.ts`). */
const LEFTOVER_MS = 3_000;

/**
 * Returns when the machine's own agent has taken over.
 * @throws NixdeployError("unreachable") when that took too long · the kind of our agent's own failure, which it has told ·
 * the signal's reason
 */
export async function runBootstrap(deps: BootstrapDeps): Promise<void> {
  const { clock, log, signal } = deps;
  const endsAtMs = clock.monotonicMs() + deps.timeoutMs;
  let memory = BOOTSTRAP_START;
  const running = { agent: null as RunningAgent | null };
  if (deps.isHeld()) await clock.sleep(LEFTOVER_MS, signal);
  try {
    for (;;) {
      signal.throwIfAborted();
      const nowMs = clock.monotonicMs();
      if (nowMs >= endsAtMs) throw tooLate(memory, deps.timeoutMs);
      const ended = running.agent?.end ?? null;
      if (ended !== null) {
        running.agent = null;
        if (!deps.isHeld()) throw describeEnd(ended);
      }
      const look = { record: await deps.readRecord(), isRunning: running.agent !== null, isHeld: deps.isHeld(), nowMs };
      const step = stepBootstrap(memory, look);
      memory = step.memory;
      if (step.what === "over") return;
      if (step.what === "stop" && running.agent !== null) {
        log.info("this agent gives way to the machine's own");
        running.agent.process.kill();
        await running.agent.process.exited;
        running.agent = null;
      }
      if (step.what === "run" && running.agent === null) running.agent = start(deps);
      await clock.sleep(LOOK_MS, signal);
    }
  } finally {
    if (running.agent !== null) {
      running.agent.process.stop();
      await running.agent.process.exited;
    }
  }
}

type End = Awaited<AgentProcess["exited"]>;
type RunningAgent = { readonly process: AgentProcess; end: End | null };

function start({ startAgent }: BootstrapDeps): RunningAgent {
  const agent: RunningAgent = { process: startAgent(), end: null };
  void agent.process.exited.then((end) => {
    agent.end = end;
  });
  return agent;
}

function tooLate({ hasSeenActivation }: BootstrapMemory, timeoutMs: number): NixdeployError {
  const why = `no agent of the machine's own has taken over within ${Math.round(timeoutMs / 1_000)} s`;
  return new NixdeployError("unreachable", `cannot end the bootstrap: ${why}`, {
    hint: hasSeenActivation
      ? "An activation that is under way goes on; `nixdeploy local status` shows it."
      : "Deploy a system that contains the agent's unit to it, or allow more time with --timeout.",
  });
}

/** It has told itself what was wrong. */
function describeEnd({ code, why }: End): NixdeployError {
  const kind = code === 2 ? "usage" : code === 77 ? "denied" : code === 75 ? "unreachable" : "host";
  return new NixdeployError(kind, `cannot go on with the bootstrap: the agent ended (${why})`);
}
