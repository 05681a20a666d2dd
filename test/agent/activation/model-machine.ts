/**
 * A machine as an activation sees it: a profile, a running system, a default of the boot loader, and programs that move
 * them. It survives its supervisors; a power cut takes what they changed and did not sync. What a test
 * wants to know or to forbid about each change, it says in `onEffect`.
 */
import { mkdirSync, readlinkSync, rmSync, symlinkSync } from "node:fs";
import { dirname } from "node:path";
import type { BootLoader } from "../../../src/agent/activation/boot/boot-loader.ts";
import type { BootTime } from "../../../src/agent/machine/boot-clock.ts";
import type { ProgramExit, RunProgram } from "../../../src/agent/machine/process.ts";
import { type StorePath, storePathContaining } from "../../../src/nix/store-path.ts";
import type { PowerCut } from "../../support/simulated-files.ts";
import { createVirtualClock, type VirtualClock } from "../../support/virtual-clock.ts";
import { NEW, NEW_GAMING, NEWER, OLD } from "./records.ts";

/** What is run, for example "new test", "old boot", "set new", "script"; also "login" and "restart". */
export type Effect = string;

export type ModelMachine = {
  /** A real link, because having none is brought back by removing it. */
  profile: StorePath | null;
  current: StorePath | null;
  bootDefault: StorePath | null;
  /** What it would be after a power cut that loses all it can. */
  readonly syncedBootDefault: StorePath | null;
  booted: StorePath | null;
  /** What the boot loader's variables name, by the entry of a system; null: it has none, and cannot fall back. */
  variables: { pinned: StorePath | null; oneShot: StorePath | null } | null;
  /** Systems whose kernel is not the one that is booted with any other. */
  kernels: StorePath[];
  /** Of them no boot ever comes up. */
  deadKernels: StorePath[];
  inhibitors: string[];
  failedUnits: string[] | null;
  /** The system on which the service manager does not answer. */
  silentOn: StorePath | null;
  /** Whether the coordinator can be reached from the new version. */
  isReachable: boolean;
  /** The same from the old one. */
  isReachableFromOld: boolean;
  /** How often the agent's unit was started again. */
  restarts: number;
  /** By effect: how its runs end, one after the other; the last way stays. Without any, it succeeds. */
  exits: Readonly<Record<Effect, readonly ProgramExit[]>>;
  readonly clock: VirtualClock;
  readonly effects: Effect[];
  /** Told before each; what it throws is thrown. */
  onEffect: (effect: Effect) => void;
  readonly run: RunProgram;
  readonly findBootLoader: () => BootLoader | string;
  readonly readUnproved: (system: StorePath) => readonly string[];
  readonly readBoot: () => BootTime;
  login(): boolean;
  restartUnit(): void;
  /** Starts what the boot loader names. */
  reboot(): void;
  /** Forgets what was not synced, or of each link nothing or all of it; and starts what the boot loader names. */
  cutPower(options: PowerCut): void;
};

export const exited = (code: number): ProgramExit => ({ kind: "exited", code });

/** Exit codes with which a switch script has done its work all the same. */
const LIVE_CODES = [0, 4];
const PROGRAM_MS = 1_000;
const ENTRIES = [OLD, NEW, NEWER];

export function createModelMachine(options: {
  readonly isNixos: boolean;
  readonly profilePath: string;
  readonly previous: StorePath | null;
  /** Default: what the boot loader names. */
  readonly current?: StorePath | null;
}): ModelMachine {
  const { isNixos, profilePath, previous, current = OLD } = options;
  let boot = 1;
  let bootedAtMs = -100_000;
  let synced = { profile: previous, bootDefault: isNixos ? OLD : null };
  const sync = () => {
    synced = { profile: machine.profile, bootDefault: machine.bootDefault };
  };
  const begin = (effect: Effect) => {
    machine.onEffect(effect);
    machine.effects.push(effect);
  };
  const machine: ModelMachine = {
    get profile() {
      return readLink(profilePath);
    },
    set profile(target) {
      rmSync(profilePath, { force: true });
      if (target !== null) symlinkSync(target, profilePath);
    },
    current: isNixos ? current : null,
    bootDefault: isNixos ? OLD : null,
    get syncedBootDefault() {
      return synced.bootDefault;
    },
    booted: isNixos ? OLD : null,
    variables: null,
    kernels: [],
    deadKernels: [],
    inhibitors: [],
    failedUnits: [],
    silentOn: null,
    isReachable: true,
    isReachableFromOld: true,
    restarts: 0,
    exits: {},
    clock: createVirtualClock(),
    effects: [],
    onEffect: () => {},
    async run({ command, args, onLine }) {
      const effect = describeProgram(command, args);
      begin(effect);
      await machine.clock.sleep(PROGRAM_MS, new AbortController().signal);
      const ways = machine.exits[effect] ?? [];
      const runs = machine.effects.filter((other) => other === effect).length;
      const exit = ways[Math.min(runs, ways.length) - 1] ?? exited(0);
      if (exit.kind === "exited" && LIVE_CODES.includes(exit.code)) apply(machine, command, args);
      if (command === "sync" && exit.kind === "exited" && exit.code === 0) sync();
      await onLine("out", `ran ${effect}`);
      return exit;
    },
    findBootLoader: () => (machine.variables === null ? "it is a model of none" : createLoader(machine, begin)),
    readUnproved: (system) => (machine.booted !== system && machine.kernels.includes(system) ? ["kernel"] : []),
    readBoot: () => ({ bootId: `boot-${boot}`, uptimeMs: Math.round(machine.clock.monotonicMs() - bootedAtMs) }),
    login() {
      begin("login");
      const runsOld = isNixos ? machine.current === OLD : machine.profile === previous;
      if (!(runsOld ? machine.isReachableFromOld : machine.isReachable)) throw new Error("ECONNREFUSED");
      // The coordinator looks at what the machine says it runs.
      return !runsOld;
    },
    restartUnit() {
      begin("restart");
      machine.restarts += 1;
    },
    reboot() {
      boot += 1;
      bootedAtMs = machine.clock.monotonicMs();
      const { variables } = machine;
      const tried = variables?.oneShot ?? null;
      if (variables !== null) variables.oneShot = null;
      const fallback = variables?.pinned ?? machine.bootDefault;
      // A kernel that hangs is reset by somebody.
      const isUp = tried !== null && !machine.deadKernels.includes(tried);
      machine.booted = isUp ? tried : fallback;
      machine.current = machine.booted;
    },
    cutPower({ isStrict, fraction }) {
      if (isStrict || fraction() < 0.5) machine.profile = synced.profile;
      if (isStrict || fraction() < 0.5) machine.bootDefault = synced.bootDefault;
      sync();
      machine.reboot();
    },
  };
  mkdirSync(dirname(profilePath), { recursive: true });
  machine.profile = previous;
  return machine;
}

function createLoader({ variables }: ModelMachine, begin: (effect: Effect) => void): BootLoader {
  if (variables === null) throw new Error("there is no boot loader");
  const set = (name: "pinned" | "oneShot", entry: string | null) => {
    const system = entry === null ? null : storePathContaining(entry);
    begin(`${name} ${system?.replace(/^.*?-/, "") ?? "nothing"}`);
    variables[name] = system;
  };
  return {
    kind: "systemd-boot",
    listEntries: async () => ENTRIES.map((system) => ({ id: system, system })),
    readPinned: async () => variables.pinned,
    readOneShot: async () => variables.oneShot,
    pin: async (entry) => set("pinned", entry),
    setOneShot: async (entry) => set("oneShot", entry),
  };
}

function readLink(path: string): StorePath | null {
  try {
    return storePathContaining(readlinkSync(path));
  } catch {
    return null;
  }
}

function apply(machine: ModelMachine, command: string, args: readonly string[]): void {
  const system = storePathContaining(command);
  const action = args.at(-1) ?? "";
  if (command === "nix-env") machine.profile = storePathContaining(action);
  const variant = /\/specialisation\/([^/]+)\//.exec(command)?.[1] ?? null;
  if (system !== null && action === "test") machine.current = variant === null ? system : NEW_GAMING;
  if (system !== null && action === "boot") machine.bootDefault = system;
}

function describeProgram(command: string, args: readonly string[]): Effect {
  if (command === "sync") return command;
  const nameOf = (text: string) => storePathContaining(text)?.replace(/^.*?-/, "") ?? text;
  const action = args.at(-1);
  if (command === "nix-env") return `set ${nameOf(action ?? "")}`;
  return [nameOf(command), ...(action === undefined ? [] : [action])].join(" ");
}
