/** Activations that go well and that do not, with the one way in which each must end, whoever is killed meanwhile. */
import type { ActivationRecord } from "../../../src/agent/activation/record.ts";
import type { Fault, Outcome } from "../../../src/deployment.ts";
import { exited, type ModelMachine } from "./model-machine.ts";
import { NEW, NEW_GAMING, OLD, OLD_GAMING, SCRIPT } from "./records.ts";
import { createSimulation, type Simulation } from "./simulation.ts";

export type Scenario = {
  readonly name: string;
  readonly outcome: Outcome;
  /** Default: the version's where it is rolled back; null: nobody's. */
  readonly fault?: Fault | null;
  readonly record?: Partial<ActivationRecord>;
  readonly prepare?: (machine: ModelMachine) => void;
};

const failing = (exits: ModelMachine["exits"]) => (machine: ModelMachine) => {
  machine.exits = exits;
};
const IN_GAMING = {
  previous: { profile: OLD, current: OLD_GAMING, failedUnits: [] },
  specialisation: { name: "gaming", path: NEW_GAMING },
};
const PLAIN = { type: "plain" } as const;
const FIRST = { ...PLAIN, previous: { profile: null, current: null, failedUnits: null } };

const POLICY = { onUnitFailure: "rollback", confirmWindowMs: 60_000, activationTimeoutMs: 60_000 } as const;
const REBOOT = { policy: { ...POLICY, reboot: true } } as const;
const REBOOT_FOR_INHIBITORS = { policy: { ...POLICY, inhibitors: "reboot" } } as const;

/** A boot loader that can fall back, and a new system with another kernel, on a machine that is otherwise so. */
const withLoader =
  (changes: Partial<Pick<ModelMachine, "exits" | "isReachable" | "inhibitors" | "deadKernels">> = {}) =>
  (machine: ModelMachine) => {
    Object.assign(machine, { variables: { pinned: null, oneShot: null }, kernels: [NEW], ...changes });
  };

/** What takes effect by a reboot, or is proved by one. */
const REBOOT_SCENARIOS: readonly Scenario[] = [
  { name: "a reboot", outcome: "succeeded", record: REBOOT, prepare: withLoader() },
  { name: "a reboot in mode boot", outcome: "succeeded", record: { ...REBOOT, mode: "boot" }, prepare: withLoader() },
  {
    name: "a reboot into what proves nothing",
    outcome: "rolled-back",
    record: REBOOT,
    prepare: withLoader({ isReachable: false }),
  },
  {
    name: "a reboot into a kernel that never comes up",
    outcome: "rolled-back",
    record: REBOOT,
    prepare: withLoader({ deadKernels: [NEW] }),
  },
  {
    name: "a reboot with a full /boot",
    outcome: "rolled-back",
    record: REBOOT,
    prepare: withLoader({ exits: { "new boot": [exited(1)] } }),
  },
  {
    name: "a reboot that does not come about",
    outcome: "rolled-back",
    fault: null,
    record: REBOOT,
    prepare: withLoader({ exits: { "systemctl reboot": [exited(1)] } }),
  },
  { name: "a reboot where nothing falls back", outcome: "failed", record: REBOOT },
  {
    name: "a reboot where nothing falls back, which is allowed",
    outcome: "succeeded",
    record: { policy: { ...REBOOT.policy, allowUnprovenBoot: true } },
  },
  {
    name: "a reboot where nothing falls back, into what proves nothing",
    outcome: "rolled-back",
    record: { policy: { ...REBOOT.policy, allowUnprovenBoot: true } },
    prepare: (machine) => {
      machine.isReachable = false;
    },
  },
  { name: "inhibitors", outcome: "failed", prepare: withLoader({ inhibitors: ["dbus"] }) },
  {
    name: "inhibitors with a reboot",
    outcome: "succeeded",
    record: REBOOT_FOR_INHIBITORS,
    prepare: withLoader({ inhibitors: ["dbus"] }),
  },
  {
    name: "code 100 with a reboot",
    outcome: "succeeded",
    record: REBOOT_FOR_INHIBITORS,
    prepare: withLoader({ exits: { "new test": [exited(100)] } }),
  },
  {
    name: "code 100 with a reboot, where nothing falls back",
    outcome: "rolled-back",
    record: REBOOT_FOR_INHIBITORS,
    prepare: failing({ "new test": [exited(100)] }),
  },
  { name: "a switch to another kernel", outcome: "succeeded", prepare: withLoader() },
  {
    name: "a switch to another kernel with a full /boot",
    outcome: "rolled-back",
    prepare: withLoader({ exits: { "new boot": [exited(1)] } }),
  },
  { name: "boot of another kernel", outcome: "succeeded", record: { mode: "boot" }, prepare: withLoader() },
];

export const SCENARIOS: readonly Scenario[] = [
  {
    name: "a service manager that does not answer on the new version",
    outcome: "rolled-back",
    fault: null,
    prepare: (machine) => {
      machine.silentOn = NEW;
    },
  },
  { name: "a switch", outcome: "succeeded" },
  { name: "a switch with a script that agrees", outcome: "succeeded", record: { rollbackScript: SCRIPT } },
  {
    name: "a switch whose agent proves nothing",
    outcome: "rolled-back",
    prepare: (machine) => {
      machine.isReachable = false;
    },
  },
  {
    name: "a switch, and the network dies for the old version, too",
    outcome: "rolled-back",
    fault: "contact",
    record: { policy: { onUnitFailure: "rollback", confirmWindowMs: 5_000, activationTimeoutMs: 60_000 } },
    prepare: (machine) => {
      machine.isReachable = false;
      machine.isReachableFromOld = false;
    },
  },
  {
    name: "a switch with a script that says no",
    outcome: "rolled-back",
    record: { rollbackScript: SCRIPT },
    prepare: failing({ script: [exited(7)] }),
  },
  { name: "a switch whose units fail", outcome: "rolled-back", prepare: failing({ "new test": [exited(4)] }) },
  { name: "a switch that breaks half-way", outcome: "rolled-back", prepare: failing({ "new test": [exited(2)] }) },
  { name: "a switch onto a full /boot", outcome: "rolled-back", prepare: failing({ "new boot": [exited(1)] }) },
  { name: "a switch that its check refuses", outcome: "failed", prepare: failing({ "new check": [exited(1)] }) },
  { name: "boot", outcome: "succeeded", record: { mode: "boot" } },
  {
    name: "boot onto a full /boot",
    outcome: "rolled-back",
    record: { mode: "boot" },
    prepare: failing({ "new boot": [exited(1)] }),
  },
  { name: "test", outcome: "succeeded", record: { mode: "test" } },
  {
    name: "test with a script that says no",
    outcome: "rolled-back",
    record: { mode: "test", rollbackScript: SCRIPT },
    prepare: failing({ script: [exited(1)] }),
  },
  { name: "dry-activate", outcome: "succeeded", record: { mode: "dry-activate" } },
  { name: "a switch in a specialisation", outcome: "succeeded", record: IN_GAMING },
  {
    name: "a switch in a specialisation that breaks half-way",
    outcome: "rolled-back",
    record: IN_GAMING,
    prepare: failing({ "new test": [exited(2)] }),
  },
  {
    name: "a switch in a specialisation onto a full /boot",
    outcome: "rolled-back",
    record: IN_GAMING,
    prepare: failing({ "new boot": [exited(1)] }),
  },
  { name: "a plain profile", outcome: "succeeded", record: PLAIN },
  {
    name: "a plain profile with a script that says no",
    outcome: "rolled-back",
    record: { ...PLAIN, rollbackScript: SCRIPT },
    prepare: failing({ script: [exited(1)] }),
  },
  {
    name: "the first plain profile, without a proof",
    outcome: "rolled-back",
    record: FIRST,
    prepare: (machine) => {
      machine.isReachable = false;
    },
  },
  ...REBOOT_SCENARIOS,
];

export async function simulate(scenario: Scenario): Promise<Simulation> {
  const simulation = await createSimulation(scenario.record);
  scenario.prepare?.(simulation.machine);
  return simulation;
}
