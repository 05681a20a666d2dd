/**
 * The cases of type-fault-cases.ts of one kind, on one device (fault-lane.ts): which versions are built and deployed for
 * them, where their scripts are held, and what the device must have: profile, what is live and every file are of the old
 * version, or all of the new one.
 */
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { createActivationProbe } from "../support/activation-probe.ts";
import type { Fault } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import type { Fleet } from "../support/fleet.ts";
import { startGate } from "../support/gate.ts";
import { createHolds } from "../support/holds.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { createTypeBench, type TypeBench, type TypeName, type Version } from "../support/type-bench.ts";
import { createFaultLane, expectSame, type FaultLane, type LaneWork } from "./fault-lane.ts";
import { expectEnd, type Kind, SCRIPT_ENDS, type TypeCase } from "./type-fault-cases.ts";

const USER = { name: "alice", id: 64_011 };
/** No program is run in the other stages. */
const HOLDS = { checking: null, activating: "new", confirming: null, committing: "set", undoing: "old" } as const;

type Lane = {
  readonly fleet: Fleet;
  readonly bench: TypeBench;
  readonly name: string;
  readonly old: Version;
  readonly newProtocol: 0 | 1;
};

let versions = 0;

export async function createTypeLane(fleet: Fleet, kind: Kind, name: string): Promise<FaultLane<TypeCase>> {
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
  const lane: Lane = { fleet, bench, name, old, newProtocol };
  const work: LaneWork<TypeCase, Started> = {
    ...{ gate, probe, holds: createHolds(device) },
    holdOf: (stage) => HOLDS[stage],
    hangs: () => false,
    startAgent: ({ isNew }) =>
      fleet.startAgent(device, {
        ...{ name, env, url: gate.url, profile: bench.profilePath, awaitConnection: gate.isOpen },
        ...(bench.user === undefined ? {} : { user: bench.user }),
        ...(isNew ? {} : { token: null }),
      }),
    start: (one) => start(lane, one),
    stateOf: (one) => expectEnd(one).state,
    async expectDevice(one, { version }) {
      expectSame(await bench.sides(), await bench.expected(expectEnd(one).version === "old" ? old : version));
    },
    async reset(one) {
      if (expectEnd(one).version === "new") await bench.reset(old);
    },
  };
  return await createFaultLane(work, stack);
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

type Started = { readonly activate: SpawnedProcess; readonly version: Version };

async function start({ fleet, bench, name, newProtocol }: Lane, one: TypeCase): Promise<Started> {
  versions += 1;
  const held = { stage: "link", kind: "hold", argument: HOLDS.activating } as const;
  const faults = [held, ...SCRIPT_ENDS[one.script]];
  const version = await bench.build({ version: `${name}-${versions}`, protocol: newProtocol, faults });
  await fleet.expectRun(["push", version.path]);
  const window = one.proof === "unreachable" ? "3s" : "60s";
  const timeout = one.script === "hangs" ? ["--activation-timeout", "4s"] : [];
  const flags = ["--json", "--confirm-window", window, ...timeout];
  return { version, activate: await fleet.start(["activate", `${name}=${version.path}`, ...flags]) };
}
