/**
 * Carries out the cases of a table of kills, one after the other on one device: deploys the version of the case through
 * the compiled binary, kills when the record says the stage, and looks at what there is afterwards. What is deployed, and
 * what the device must have in the end, is the table's own business (activation-fault-lane.ts, type-fault-lane.ts).
 */
import type { ActivationProbe } from "../support/activation-probe.ts";
import type { Gate } from "../support/gate.ts";
import type { Holds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";

const STAGES = ["checking", "activating", "confirming", "committing", "undoing"] as const;
export type Stage = (typeof STAGES)[number];

export type Kill = {
  /** "agent until the end": it comes back only when the supervisor has finished by itself. */
  readonly who: "agent" | "agent until the end" | "supervisor" | "both";
  readonly at: Stage;
};

/** What the cases of all tables have. */
export type AnyCase = {
  readonly name: string;
  /** "unreachable": from the middle of the activation on, until the supervisor has finished alone. */
  readonly proof: string;
  readonly kill: Kill | null;
};

type Agents = {
  readonly probe: ActivationProbe;
  /** @param isNew whether it must be admitted */
  startAgent(how: { readonly isNew: boolean }): Promise<SpawnedProcess>;
};

/** `activate` of a case. */
type Deployed = { readonly activate: SpawnedProcess };

/** How a table's cases are done on its kind of device. */
export type LaneWork<Case extends AnyCase, Started extends Deployed> = Agents & {
  readonly gate: Gate;
  readonly holds: Holds;
  /** The hold that stops a stage; null where it is the shut gate: nobody can log in. */
  readonly holdOf: (stage: Stage) => string | null;
  /** Whether the script of a case hangs by itself while it activates. */
  readonly hangs: (one: Case) => boolean;
  /** Builds the version of the case and deploys it. */
  start(one: Case): Promise<Started>;
  /** How `activate` must end. */
  stateOf(one: Case): string;
  /** @throws Error that says what of the device is not as it must be */
  expectDevice(one: Case, started: Started): Promise<void>;
  /** Makes the old version permanent and live where it is not. */
  reset(one: Case): Promise<void>;
};

export type FaultLane<Case> = AsyncDisposable & {
  /** @throws Error that says what is not as it must be, with what agent and activate printed */
  run(one: Case): Promise<void>;
};

/** The agent that runs now. */
type Running = { agent: SpawnedProcess };

const LONG_MS = 60_000;

/** @param stack the device and all that belongs to it: from now on the lane's */
export async function createFaultLane<Case extends AnyCase, Started extends Deployed>(
  work: LaneWork<Case, Started>,
  stack: AsyncDisposableStack,
): Promise<FaultLane<Case>> {
  const { holds, probe, holdOf } = work;
  const lane = { ...work, agent: await work.startAgent({ isNew: true }) };
  const owned = stack.move();
  return {
    async run(one) {
      for (const stage of listHeld(one)) {
        const hold = holdOf(stage);
        if (hold !== null) await holds.set(hold);
      }
      const started = await work.start(one);
      try {
        await carryOut(lane, one, started);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        const record = await probe.stage().catch(() => "unreadable");
        const outputs = `${started.activate.output()}\n--- agent ---\n${lane.agent.output().slice(-4_000)}`;
        throw new Error(`${one.name}: ${why}\n--- record: ${record} · activate ---\n${outputs}`, { cause: error });
      }
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

/** A script that is to be killed half-way is held there; so is one during which the gate is shut. */
function listHeld(one: AnyCase): readonly Stage[] {
  return STAGES.filter((stage) => one.kill?.at === stage || (stage === "activating" && shutsGate(one)));
}

function shutsGate({ proof, kill }: AnyCase): boolean {
  return proof === "unreachable" || kill?.at === "confirming";
}

async function carryOut<Case extends AnyCase, Started extends Deployed>(
  lane: LaneWork<Case, Started> & Running,
  one: Case,
  started: Started,
): Promise<void> {
  const { gate, holds, probe, holdOf } = lane;
  for (const stage of listHeld(one)) {
    const hold = holdOf(stage);
    if (stage === "activating" && lane.hangs(one)) {
      await waitFor("the script to hang", () => probe.runs("sleep infinity"), { timeoutMs: LONG_MS });
    } else if (hold !== null) {
      await holds.reached(hold, started.activate.output);
    }
    await waitFor(`the record to say ${stage}`, async () => (await probe.stage()) === stage, { timeoutMs: LONG_MS });
    if (stage === "activating" && shutsGate(one)) gate.shut();
    if (one.kill?.at === stage) await kill(lane, one.kill);
    if (stage === "confirming" && one.proof !== "unreachable") gate.open();
    if (hold !== null) await holds.release(hold);
  }
  const isAway = one.kill?.who === "agent until the end";
  if (isAway || !gate.isOpen) {
    await waitFor("the supervisor to finish alone", () => hasFinished(probe), { timeoutMs: LONG_MS });
    await lane.expectDevice(one, started);
    gate.open();
    if (isAway) lane.agent = await lane.startAgent({ isNew: false });
  }
  await expectOutcome(started.activate, lane.stateOf(one), probe);
  await lane.expectDevice(one, started);
  await holds.releaseAll();
  await lane.reset(one);
  if (!shutsGate(one)) return;
  // One that does not wait long before it connects.
  await lane.agent.stop();
  lane.agent = await lane.startAgent({ isNew: false });
}

async function kill(lane: Agents & Running, { who }: Kill): Promise<void> {
  if (who !== "supervisor") {
    lane.agent.kill("SIGKILL");
    await lane.agent.exited;
  }
  if (who === "supervisor" || who === "both") {
    const found = lane.probe.supervisors();
    if (found.length === 0) throw new Error("there is no supervisor to kill");
    for (const id of found) process.kill(id, "SIGKILL");
  }
  if (who === "agent" || who === "both") lane.agent = await lane.startAgent({ isNew: false });
}

async function hasFinished(probe: ActivationProbe): Promise<boolean> {
  const stage = await probe.stage();
  return (stage === null || stage === "finished") && probe.supervisors().length === 0;
}

/** The coordinator says how it ended, so does the exit code, and nothing is left over. */
async function expectOutcome(activate: SpawnedProcess, state: string, probe: ActivationProbe): Promise<void> {
  const timer = setTimeout(() => activate.kill("SIGKILL"), LONG_MS);
  const { exitCode } = await activate.exited;
  clearTimeout(timer);
  const stdout = activate.lines.filter(({ stream }) => stream === "stdout").map(({ text }) => text);
  const [deployment] = rolloutResultSchema.parse(JSON.parse(stdout.join("\n"))).deployments;
  if (deployment?.state !== state) {
    throw new Error(`the coordinator says ${deployment?.state} (${deployment?.reason}) and not ${state}`);
  }
  if (exitCode !== (state === "succeeded" ? 0 : 1)) throw new Error(`activate ended with ${exitCode}`);
  let left: string[] = [];
  const look = async () => {
    left = await probe.leftovers(deployment.id);
    return left.length === 0;
  };
  await waitFor("nothing to be left over", look, { describe: () => left.join("\n") });
}

/** @throws Error that says what the device has */
export function expectSame(found: unknown, wanted: unknown): void {
  if (Bun.deepEquals(found, wanted)) return;
  throw new Error(`the device has ${Bun.inspect(found)} and not ${Bun.inspect(wanted)}`);
}
