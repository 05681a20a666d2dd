/**
 * The cases of activation-fault-cases.ts on one device (fault-lane.ts): which systems are built and deployed for them,
 * where their scripts are held, and what the device must have.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { Fault } from "../support/builder.ts";
import { type Device, SYSTEM_PROFILE } from "../support/device.ts";
import type { Fleet } from "../support/fleet.ts";
import { startGate } from "../support/gate.ts";
import { createHolds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { expectEnd, type FaultCase, type Proof, scriptEnd } from "./activation-fault-cases.ts";
import { createFaultLane, expectSame, type FaultLane, type LaneWork } from "./fault-lane.ts";

const UNIT = "app.service";
const OLD_VERSION = "0";
const HOLDS = {
  checking: "check",
  activating: "test",
  confirming: null,
  committing: "boot",
  undoing: "old-test",
} as const;

/** What all lanes share. */
export type FaultBench = {
  readonly fleet: Fleet;
  readonly oldSystem: string;
  readonly checkScripts: Readonly<Partial<Record<Proof, string>>>;
  readonly nextVersion: () => number;
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

export async function createActivationLane(bench: FaultBench, name: string): Promise<FaultLane<FaultCase>> {
  const { fleet } = bench;
  await using stack = new AsyncDisposableStack();
  const gate = stack.use(await startGate(fleet.coordinator.url));
  const device = stack.use(await fleet.addDevice(name, bench.oldSystem));
  const probe = createActivationProbe(device, { agent: name, unit: UNIT });
  const work: LaneWork<FaultCase, Started> = {
    ...{ gate, probe, holds: createHolds(device) },
    holdOf: (stage) => HOLDS[stage],
    hangs: ({ script }) => scriptEnd(script).heldAt === "itself",
    startAgent: ({ isNew }) =>
      fleet.startAgent(device, { url: gate.url, awaitConnection: gate.isOpen, ...(isNew ? {} : { token: null }) }),
    start: (one) => start({ bench, device, probe }, one),
    stateOf: (one) => expectEnd(one).state,
    expectDevice: (one, started) => expectMachine({ bench, probe }, one, started),
    reset: (one) => reset({ bench, device }, one),
  };
  return await createFaultLane(work, stack);
}

type Lane = { readonly bench: FaultBench; readonly device: Device; readonly probe: ActivationProbe };
type Started = { readonly activate: SpawnedProcess; readonly newSystem: string; readonly unitBefore: number | null };

async function start({ bench, device, probe }: Lane, one: FaultCase): Promise<Started> {
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
  const windowS = one.proof === "unreachable" || one.proof === "script hangs" ? 3 : 60;
  const flags = ["--mode", one.mode, "--confirm-window", `${windowS}s`, ...(end.flags ?? [])];
  const unitBefore = await probe.unitProcess();
  return { newSystem, unitBefore, activate: await fleet.start(["activate", spec, "--json", ...flags]) };
}

const ARCHITECTURE = process.arch === "arm64" ? "aarch64" : "x86_64";

/** Every place names the old system, or every place the new one. */
async function expectMachine(
  { bench, probe }: Pick<Lane, "bench" | "probe">,
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
  expectSame(await probe.sides(), wanted);
  const isUntouched = expected.state === "failed" || one.mode === "dry-activate" || one.mode === "boot";
  if (isUntouched && expected.state !== "rolled-back" && (await probe.unitProcess()) !== unitBefore) {
    throw new Error("its unit was restarted, although nothing was to be touched");
  }
}

/** The old system again for the next case. */
async function reset({ bench, device }: Pick<Lane, "bench" | "device">, one: FaultCase): Promise<void> {
  const { permanent, running } = expectEnd(one);
  if (permanent === "old" && running === "old") return;
  await device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", bench.oldSystem]);
  await device.run([`${bench.oldSystem}/bin/switch-to-configuration`, "switch"]);
}
