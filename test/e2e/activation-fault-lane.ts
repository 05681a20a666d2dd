/**
 * Carries out the cases of activation-fault-cases.ts, one after the other on one device: builds the system of the case,
 * deploys it through the compiled binary, kills when the record says the stage, and looks at what there is afterwards.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { Fault } from "../support/builder.ts";
import { type Device, SYSTEM_PROFILE } from "../support/device.ts";
import type { Fleet } from "../support/fleet.ts";
import { type Gate, startGate } from "../support/gate.ts";
import { createHolds, type Holds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";
import { expectEnd, type FaultCase, type Proof, type Stage, scriptEnd } from "./activation-fault-cases.ts";

const UNIT = "app.service";
const OLD_VERSION = "0";
const HOLDS: Readonly<Record<Stage, string>> = {
  checking: "check",
  activating: "test",
  // Held by the shut gate: nobody can log in.
  confirming: "",
  committing: "boot",
  undoing: "old-test",
};
const LONG_MS = 60_000;

/** What all lanes share. */
export type FaultBench = {
  readonly fleet: Fleet;
  readonly oldSystem: string;
  readonly checkScripts: Readonly<Partial<Record<Proof, string>>>;
  readonly nextVersion: () => number;
};

export type FaultLane = AsyncDisposable & {
  /** @throws Error that says what is not as it must be, with what agent and activate printed */
  run(one: FaultCase): Promise<void>;
};

export async function prepareFaultBench(fleet: Fleet): Promise<FaultBench> {
  const oldSystem = await fleet.builder.build("system", {
    name: "matrix",
    version: OLD_VERSION,
    units: [{ name: UNIT }],
    faults: [{ stage: "start", kind: "hold", argument: HOLDS.undoing, actions: ["test"] }],
  });
  const script = (name: string, text: string) => fleet.builder.build("script", { name, text: `#!/bin/sh\n${text}\n` });
  const checkScripts = {
    "script passes": await script("passes", 'test -n "$NIXDEPLOY_NEW_PATH" && test -n "$NIXDEPLOY_OLD_PATH"'),
    "script fails": await script("fails", "exit 1"),
    "script hangs": await script("hangs", "exec sleep infinity"),
  };
  for (const path of Object.values(checkScripts)) await fleet.expectRun(["push", path]);
  let version = Number(OLD_VERSION);
  const nextVersion = () => {
    version += 1;
    return version;
  };
  return { fleet, oldSystem, checkScripts, nextVersion };
}

export async function createFaultLane(bench: FaultBench, name: string): Promise<FaultLane> {
  const { fleet } = bench;
  await using stack = new AsyncDisposableStack();
  const gate = stack.use(await startGate(fleet.coordinator.url));
  const device = stack.use(await fleet.addDevice(name, bench.oldSystem));
  const lane: Lane = {
    ...{ bench, device, gate },
    holds: createHolds(device),
    probe: createActivationProbe(device, { agent: name, unit: UNIT }),
    agent: await fleet.startAgent(device, { url: gate.url }),
  };
  const owned = stack.move();
  return {
    async run(one) {
      const started = await start(lane, one);
      try {
        await carryOut(lane, one, started);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        const record = await lane.probe.stage().catch(() => "unreadable");
        const outputs = `${started.activate.output()}\n--- agent ---\n${lane.agent.output().slice(-4_000)}`;
        throw new Error(`${one.name}: ${why}\n--- record: ${record} · activate ---\n${outputs}`, { cause: error });
      }
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

type Lane = {
  readonly bench: FaultBench;
  readonly device: Device;
  readonly gate: Gate;
  readonly holds: Holds;
  readonly probe: ActivationProbe;
  agent: SpawnedProcess;
};

type Started = { readonly activate: SpawnedProcess; readonly newSystem: string; readonly unitBefore: number | null };

async function start({ bench, device, holds, probe }: Lane, one: FaultCase): Promise<Started> {
  const { fleet, checkScripts } = bench;
  const end = scriptEnd(one.script);
  const version = bench.nextVersion();
  const heldAt = end.heldAt ?? "activate";
  const inTest = { kind: "hold", argument: HOLDS.activating, actions: ["test"] } as const;
  const held: Fault[] = [
    { stage: "start", kind: "hold", argument: HOLDS.checking, actions: ["check", "dry-activate"] },
    ...(heldAt === "itself" ? [] : [{ stage: heldAt, ...inTest }]),
    { stage: "boot-loader", kind: "hold", argument: HOLDS.committing, actions: ["boot"] },
  ];
  const newSystem = await fleet.builder.build("system", {
    ...{ name: "matrix", version: `${version}`, units: [{ name: UNIT }] },
    ...end.system,
    faults: [...held, ...(end.faults ?? [])],
  });
  await fleet.expectRun(["push", newSystem]);
  const script = checkScripts[one.proof];
  const spec = join(fleet.directory, `spec-${version}.json`);
  const rollbackScript = script === undefined ? {} : { [`${ARCHITECTURE}-linux`]: script };
  await writeFile(spec, JSON.stringify({ agents: { [device.name]: newSystem }, rollbackScript }));
  for (const hold of listHolds(one)) await holds.set(hold);
  const windowS = one.proof === "unreachable" || one.proof === "script hangs" ? 3 : 60;
  const flags = ["--mode", one.mode, "--confirm-window", `${windowS}s`, ...(end.flags ?? [])];
  const unitBefore = await probe.unitProcess();
  return { newSystem, unitBefore, activate: await fleet.start(["activate", spec, "--json", ...flags]) };
}

const ARCHITECTURE = process.arch === "arm64" ? "aarch64" : "x86_64";

function shutsGate({ proof, kill }: FaultCase): boolean {
  return proof === "unreachable" || kill?.at === "confirming";
}

function listHolds(one: FaultCase): readonly string[] {
  const wanted = [one.kill === null ? "" : HOLDS[one.kill.at], shutsGate(one) ? HOLDS.activating : ""];
  return [...new Set(wanted)].filter((name) => name !== "");
}

async function carryOut(lane: Lane, one: FaultCase, started: Started): Promise<void> {
  const { gate, holds, probe } = lane;
  for (const stage of ["checking", "activating", "confirming", "committing", "undoing"] as const) {
    const isKilled = one.kill?.at === stage;
    const shuts = stage === "activating" && shutsGate(one);
    if (!isKilled && !shuts) continue;
    if (stage === "activating" && scriptEnd(one.script).heldAt === "itself") {
      await waitFor("the script to hang", () => probe.runs("sleep infinity"), { timeoutMs: LONG_MS });
    } else if (HOLDS[stage] !== "") {
      await holds.reached(HOLDS[stage], started.activate.output);
    }
    await waitFor(`the record to say ${stage}`, async () => (await probe.stage()) === stage, { timeoutMs: LONG_MS });
    if (shuts) gate.shut();
    if (isKilled) await kill(lane, one);
    if (stage === "confirming" && one.proof !== "unreachable") gate.open();
    if (HOLDS[stage] !== "") await holds.release(HOLDS[stage]);
  }
  const isAway = one.kill?.who === "agent until the end";
  if (isAway || !gate.isOpen) {
    await waitFor("the supervisor to finish alone", () => hasFinished(lane), { timeoutMs: LONG_MS });
    await expectMachine(lane, one, started);
    gate.open();
    if (isAway) await restartAgent(lane);
  }
  await expectOutcome(lane, one, started);
  await expectMachine(lane, one, started);
  await tidy(lane, one);
}

async function kill(lane: Lane, { kill: death }: FaultCase): Promise<void> {
  if (death === null) return;
  if (death.who !== "supervisor") {
    lane.agent.kill("SIGKILL");
    await lane.agent.exited;
  }
  if (death.who === "supervisor" || death.who === "both") {
    const found = lane.probe.supervisors();
    if (found.length === 0) throw new Error("there is no supervisor to kill");
    for (const id of found) process.kill(id, "SIGKILL");
  }
  if (death.who === "agent" || death.who === "both") await restartAgent(lane);
}

async function restartAgent(lane: Lane): Promise<void> {
  const { bench, device, gate } = lane;
  const options = { url: gate.url, token: null, awaitConnection: gate.isOpen };
  lane.agent = await bench.fleet.startAgent(device, options);
}

async function hasFinished({ probe }: Lane): Promise<boolean> {
  const stage = await probe.stage();
  return (stage === null || stage === "finished") && probe.supervisors().length === 0;
}

/** Every place names the old system, or every place the new one. */
async function expectMachine(
  { bench, probe }: Lane,
  one: FaultCase,
  { newSystem, unitBefore }: Started,
): Promise<void> {
  const expected = expectEnd(one);
  const pathOf = (side: "old" | "new") => (side === "old" ? bench.oldSystem : newSystem);
  const wanted = {
    permanent: pathOf(expected.permanent),
    running: pathOf(expected.running),
    unit: expected.running === "old" ? OLD_VERSION : `${newSystem.split("-").at(-1)}`,
  };
  const found = await probe.sides();
  if (!Bun.deepEquals(found, wanted))
    throw new Error(`the device has ${Bun.inspect(found)} and not ${Bun.inspect(wanted)}`);
  const isUntouched = expected.state === "failed" || one.mode === "dry-activate" || one.mode === "boot";
  if (isUntouched && expected.state !== "rolled-back" && (await probe.unitProcess()) !== unitBefore) {
    throw new Error("its unit was restarted, although nothing was to be touched");
  }
}

async function expectOutcome({ probe }: Lane, one: FaultCase, { activate }: Started): Promise<void> {
  const timer = setTimeout(() => activate.kill("SIGKILL"), LONG_MS);
  const { exitCode } = await activate.exited;
  clearTimeout(timer);
  const { state } = expectEnd(one);
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

/** The old system again for the next case, and an agent that does not wait long before it connects. */
async function tidy(lane: Lane, one: FaultCase): Promise<void> {
  const { bench, device, holds } = lane;
  await holds.releaseAll();
  const { permanent, running } = expectEnd(one);
  if (permanent === "new" || running === "new") {
    await device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", bench.oldSystem]);
    await device.run([`${bench.oldSystem}/bin/switch-to-configuration`, "switch"]);
  }
  if (!shutsGate(one)) return;
  await lane.agent.stop();
  await restartAgent(lane);
}
