/**
 * Carries out the cases of type-fault-cases.ts of one kind, one after the other on one device: builds the version of the
 * case, deploys it through the compiled binary, kills when the record says the stage, and looks at what there is.
 */
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { Fault } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import type { Fleet } from "../support/fleet.ts";
import { type Gate, startGate } from "../support/gate.ts";
import { createHolds, type Holds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { createTypeBench, type TypeBench, type TypeName, type Version } from "../support/type-bench.ts";
import { waitFor } from "../support/wait-for.ts";
import { commitsProfile, expectEnd, type Kind, SCRIPT_ENDS, type Stage, type TypeCase } from "./type-fault-cases.ts";

const USER = { name: "alice", id: 64_011 };
const LONG_MS = 60_000;
/** Names of holds; the one of "confirming" is the shut gate. */
const HOLDS: Readonly<Record<Stage, string>> = { activating: "new", confirming: "", committing: "set", undoing: "old" };

export type TypeLane = AsyncDisposable & {
  /** @throws Error that says what is not as it must be, with what agent and activate printed */
  run(one: TypeCase): Promise<void>;
};

type Lane = {
  readonly fleet: Fleet;
  readonly device: Device;
  readonly gate: Gate;
  readonly holds: Holds;
  readonly probe: ActivationProbe;
  readonly bench: TypeBench;
  readonly name: string;
  readonly old: Version;
  readonly newProtocol: 0 | 1;
  readonly env: Readonly<Record<string, string>>;
  agent: SpawnedProcess;
};

let versions = 0;

export async function createTypeLane(fleet: Fleet, kind: Kind, name: string): Promise<TypeLane> {
  await using stack = new AsyncDisposableStack();
  const gate = stack.use(await startGate(fleet.coordinator.url));
  const [type, oldProtocol, newProtocol] = describeKind(kind);
  const isRoot = type === "darwin";
  const nixConf = `trusted-users = root ${USER.name}\n`;
  const device = stack.use(await fleet.addDevice(name, { users: [USER], nixConf }));
  const bench = createTypeBench({
    ...{ type, builder: fleet.builder, device, agent: name },
    ...(isRoot ? {} : { user: USER.name }),
  });
  const faults: Fault[] = [{ stage: "link", kind: "hold", argument: HOLDS.undoing }];
  const old = await bench.build({ version: `${name}-old`, protocol: oldProtocol, faults });
  await device.importFrom(fleet.builder, old.path);
  await bench.reset(old);
  const env = { PATH: `${await holdProfiles(device)}:${device.environment["PATH"]}` };
  const probe = createActivationProbe(device, { agent: name, unit: "none", stateDirectory: bench.stateDirectory });
  const lane: Lane = {
    ...{ fleet, device, gate, holds: createHolds(device), probe, bench, name, old, newProtocol, env },
    agent: await startAgent({ fleet, device, bench, name, env, gate }),
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

function describeKind(kind: Kind): readonly [TypeName, 0 | 1, 0 | 1] {
  switch (kind) {
    case "darwin":
      return ["darwin", 1, 1];
    case "plain with a hook":
      return ["plain", 1, 1];
    case "home-manager 0 to 0":
      return ["home-manager", 0, 0];
    case "home-manager 0 to 1":
      return ["home-manager", 0, 1];
    case "home-manager 1 to 0":
      return ["home-manager", 1, 0];
    case "home-manager 1 to 1":
      return ["home-manager", 1, 1];
    default:
      return kind satisfies never;
  }
}

/** @returns a folder with a nix-env that can be held before it sets a profile */
async function holdProfiles(device: Device): Promise<string> {
  const folder = "/nix/var/held-programs";
  await mkdir(device.hostPath(folder), { recursive: true });
  const file = device.hostPath(`${folder}/nix-env`);
  const hold = `/run/hold/${HOLDS.committing}`;
  await writeFile(
    file,
    `#!/bin/sh
case "$*" in *--set*) if [ -e ${hold} ]; then : > ${hold}.reached; while [ -e ${hold} ]; do sleep 0.02; done; fi ;; esac
exec ${device.nix.binDirectory}/nix-env "$@"
`,
  );
  await chmod(file, 0o755);
  return folder;
}

async function startAgent(
  { fleet, device, bench, name, env, gate }: Pick<Lane, "fleet" | "device" | "bench" | "name" | "env" | "gate">,
  isNew = true,
): Promise<SpawnedProcess> {
  return await fleet.startAgent(device, {
    ...{ name, env, url: gate.url, profile: bench.profilePath, awaitConnection: gate.isOpen },
    ...(bench.user === undefined ? {} : { user: bench.user }),
    ...(isNew ? {} : { token: null }),
  });
}

type Started = { readonly activate: SpawnedProcess; readonly version: Version };

async function start({ fleet, bench, holds, name, newProtocol }: Lane, one: TypeCase): Promise<Started> {
  versions += 1;
  const held = { stage: "link", kind: "hold", argument: HOLDS.activating } as const;
  const faults = [held, ...SCRIPT_ENDS[one.script]];
  const version = await bench.build({ version: `${name}-${versions}`, protocol: newProtocol, faults });
  await fleet.expectRun(["push", version.path]);
  for (const hold of listHolds(one)) await holds.set(hold);
  const window = one.proof === "unreachable" ? "3s" : "60s";
  const timeout = one.script === "hangs" ? ["--activation-timeout", "4s"] : [];
  const flags = ["--json", "--confirm-window", window, ...timeout];
  return { version, activate: await fleet.start(["activate", `${name}=${version.path}`, ...flags]) };
}

function shutsGate({ proof, kill }: TypeCase): boolean {
  return proof === "unreachable" || kill?.at === "confirming";
}

/** A script that is to be killed half-way is held there; so is one during which the gate is shut. */
function listHolds(one: TypeCase): readonly string[] {
  const wanted = [one.kill === null ? "" : HOLDS[one.kill.at], shutsGate(one) ? HOLDS.activating : ""];
  // Where a script sets the profile itself, or the profile comes first, it would be held there.
  const held = wanted.filter((name) => name !== "" && (name !== HOLDS.committing || commitsProfile(one.kind)));
  return [...new Set(held)];
}

async function carryOut(lane: Lane, one: TypeCase, started: Started): Promise<void> {
  const { gate, holds, probe } = lane;
  for (const stage of ["activating", "confirming", "committing", "undoing"] as const) {
    const isKilled = one.kill?.at === stage;
    const shuts = stage === "activating" && shutsGate(one);
    if (!isKilled && !shuts) continue;
    if (HOLDS[stage] !== "") await holds.reached(HOLDS[stage], started.activate.output);
    await waitFor(`the record to say ${stage}`, async () => (await probe.stage()) === stage, { timeoutMs: LONG_MS });
    if (shuts) gate.shut();
    if (isKilled) await kill(lane, one);
    if (stage === "confirming" && one.proof !== "unreachable") gate.open();
    if (HOLDS[stage] !== "") await holds.release(HOLDS[stage]);
  }
  if (!gate.isOpen) {
    await waitFor("the supervisor to finish alone", () => hasFinished(lane), { timeoutMs: LONG_MS });
    await expectSides(lane, one, started);
    gate.open();
  }
  await expectOutcome(lane, one, started);
  await expectSides(lane, one, started);
  await tidy(lane, one);
}

async function kill(lane: Lane, { kill: death }: TypeCase): Promise<void> {
  if (death === null) return;
  if (death.who !== "supervisor") {
    lane.agent.kill("SIGKILL");
    await lane.agent.exited;
  }
  if (death.who !== "agent") {
    const found = lane.probe.supervisors();
    if (found.length === 0) throw new Error("there is no supervisor to kill");
    for (const id of found) process.kill(id, "SIGKILL");
  }
  if (death.who !== "supervisor") lane.agent = await startAgent(lane, false);
}

async function hasFinished({ probe }: Lane): Promise<boolean> {
  const stage = await probe.stage();
  return (stage === null || stage === "finished") && probe.supervisors().length === 0;
}

/** Profile, what is live and every file are of the old version, or all of the new one. */
async function expectSides({ bench, old }: Lane, one: TypeCase, { version }: Started): Promise<void> {
  const wanted = await bench.expected(expectEnd(one).version === "old" ? old : version);
  const found = await bench.sides();
  if (!Bun.deepEquals(found, wanted)) {
    throw new Error(`the device has ${Bun.inspect(found)} and not ${Bun.inspect(wanted)}`);
  }
}

async function expectOutcome({ probe }: Lane, one: TypeCase, { activate }: Started): Promise<void> {
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

/** The old version again for the next case, and an agent that does not wait long before it connects. */
async function tidy(lane: Lane, one: TypeCase): Promise<void> {
  await lane.holds.releaseAll();
  if (expectEnd(one).version === "new") await lane.bench.reset(lane.old);
  if (!shutsGate(one)) return;
  await lane.agent.stop();
  lane.agent = await startAgent(lane, false);
}
