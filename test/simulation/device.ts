/**
 * A device: the real agent on a disk in memory, with doubles for its machine, its Nix store and its activations. It can
 * be killed and started again, lose its power, and keeps for the test what its journals said when they were forgotten.
 */
import { join } from "node:path";
import { NixdeployError } from "../../src/errors.ts";
import { type DeploymentId, drawId, parseDeploymentId } from "../../src/names.ts";
import type { StorePath } from "../../src/nix/store-path.ts";
import { type ReportEntry, reportEntrySchema } from "../../src/protocol.ts";
import type { Clock } from "../../src/runtime.ts";
import { keepInMemory } from "../support/memory-files.ts";
import type { SeededRandom } from "../support/seeded-random.ts";
import type { TinyPath } from "../support/tiny-path.ts";
import { proveByLogin, runAgent, runCommand } from "./device-programs.ts";
import type { Network } from "./network.ts";
import { createSimulatedProcess, type SimulatedProcess } from "./processes.ts";
import { type Hardware, supervise } from "./supervisor.ts";

/** What a journal said, and what became of it. */
export type KeptJournal = {
  readonly entries: readonly ReportEntry[];
  /** Until the coordinator has acknowledged all of it. */
  readonly end: { readonly kind: "kept" } | { readonly kind: "told" | "lost"; readonly atMs: number };
};

export type Device = AsyncDisposable & {
  readonly name: string;
  readonly isRunning: boolean;
  readonly hardware: Hardware;
  /** Everything that its journals ever said, by deployment; one that lost its journal began another one. */
  readonly journals: () => ReadonlyMap<DeploymentId, readonly KeptJournal[]>;
  /** Deployments that its disk still knows. */
  readonly unacknowledged: () => readonly DeploymentId[];
  start(): void;
  /**
   * `nixdeploy local activate`, by somebody at the machine.
   * @param mayWait until another activation is over; else it is refused while there is one
   */
  activateHere(storePath: StorePath, mayWait: boolean): void;
  /** Those that were begun so. */
  readonly startedHere: ReadonlySet<DeploymentId>;
  /** Ctrl-C, or worse, to whoever activates so. */
  killCommands(): Promise<void>;
  /** As by kill -9: its memory is gone, its files and its supervisor are not. */
  kill(): Promise<void>;
  /** With its supervisor. */
  powerOff(): Promise<void>;
  /** Its disk does not answer any more: no call returns before it is freed, or its process is killed. */
  stickDisk(): void;
  freeDisk(): void;
  /** Only while it does not run: everything but its key and its enrolment is gone. */
  loseJournals(): void;
};

export type DeviceDeps = {
  readonly name: string;
  readonly directory: string;
  readonly coordinatorUrl: string;
  readonly token: string;
  readonly clock: Clock;
  readonly random: SeededRandom;
  readonly network: Network;
  /** Valid in its store. */
  readonly paths: readonly TinyPath[];
  readonly request: (request: Request) => Promise<Response>;
  /** Told what must never be. */
  readonly onBug: (what: string) => void;
  /** Told everything, for the story. */
  readonly tell: (what: string) => void;
};

const SYNC_MAX_MS = 1_500;

export function createDevice(deps: DeviceDeps): Device {
  const { name, directory, clock } = deps;
  const disk = deps.random.fork("disk");
  const files = keepInMemory(directory, {
    // Most are quick; some take as long as on a busy card in a small computer.
    sync: async (death) => {
      if (disk.chance(0.3)) await clock.sleep(disk.durationMs(1, SYNC_MAX_MS), death);
    },
  });
  const stateDirectory = join(directory, "state");
  const deploymentsDirectory = join(stateDirectory, "deployments");
  const hardware: Hardware = { profile: null, activating: 0, activated: [], said: [] };
  const forgotten = new Map<DeploymentId, KeptJournal[]>();
  let agent: { readonly process: SimulatedProcess; readonly done: Promise<void> } | null = null;
  let supervisors: { readonly process: SimulatedProcess; readonly done: Promise<void> }[] = [];
  let commands: { readonly process: SimulatedProcess; readonly done: Promise<void> }[] = [];
  const startedHere = new Set<DeploymentId>();

  const readJournal = (id: string) => parseEntries(files.text(join(deploymentsDirectory, id, "journal.ndjson")) ?? "");
  const remember = (id: string, kind: "told" | "lost") => {
    const entries = readJournal(id);
    const deploymentId = parseDeploymentId(id);
    const journal: KeptJournal = { entries, end: { kind, atMs: clock.nowMs() } };
    if (entries.length > 0) forgotten.set(deploymentId, [...(forgotten.get(deploymentId) ?? []), journal]);
  };
  const known = () => files.names(deploymentsDirectory).filter((id) => hasOffer(id));
  const hasOffer = (id: string) => files.text(join(deploymentsDirectory, id, "offer.json")) !== null;
  files.onRemove = (path) => {
    const [, id] = /\/deployments\/([0-9a-z]+)\/offer\.json$/.exec(path) ?? [];
    if (id !== undefined && hasOffer(id)) remember(id, "told");
  };

  const launch = async () => {
    const own = createSimulatedProcess(clock);
    const work = () =>
      supervise({
        ...{ process: own, stateDirectory, hardware, random: deps.random },
        prove: (deploymentId, signal) => proveByLogin(deps, { own, stateDirectory, hardware, deploymentId, signal }),
      });
    const done = own.run(work).catch((error: unknown) => {
      if (!own.isDead) deps.onBug(`the supervisor of ${name} failed: ${String(error)}`);
    });
    supervisors.push({ process: own, done });
    if (hardware.activating > 1) deps.onBug(`${name} activates ${hardware.activating} at once`);
  };
  const kill = async () => {
    const killed = agent;
    agent = null;
    killed?.process.kill();
    await killed?.done;
  };
  const killCommands = async () => {
    const killed = commands;
    commands = [];
    for (const { process } of killed) process.kill();
    await Promise.all(killed.map(({ done }) => done));
  };
  const powerOff = async () => {
    await killCommands();
    for (const { process } of supervisors) process.kill();
    await Promise.all(supervisors.map(({ done }) => done));
    supervisors = [];
    await kill();
  };
  return {
    ...{ name, hardware, startedHere, killCommands },
    activateHere(storePath, mayWait) {
      const own = createSimulatedProcess(clock);
      const deploymentId = parseDeploymentId(drawId(deps.random));
      startedHere.add(deploymentId);
      const work = () =>
        runCommand(deps, { ...{ own, stateDirectory, hardware, launch, deploymentId, storePath, mayWait } });
      const done = own.run(work).catch((error: unknown) => {
        if (own.isDead) return;
        // Somebody else's turn, or a version that may not be activated.
        if (!(error instanceof NixdeployError) || !["conflict", "refused"].includes(error.kind)) {
          deps.onBug(`local activate on ${name} failed: ${String(error)}`);
        }
      });
      commands.push({ process: own, done });
    },
    get isRunning() {
      return agent !== null;
    },
    journals: () => {
      const all = new Map<DeploymentId, readonly KeptJournal[]>(forgotten);
      for (const id of known()) {
        const deploymentId = parseDeploymentId(id);
        const journal: KeptJournal = { entries: readJournal(id), end: { kind: "kept" } };
        all.set(deploymentId, [...(forgotten.get(deploymentId) ?? []), journal]);
      }
      return all;
    },
    unacknowledged: () => known().map(parseDeploymentId),
    start() {
      const own = createSimulatedProcess(clock);
      const done = own
        .run(() => runAgent(deps, { own, stateDirectory, hardware, launch }))
        .catch((error: unknown) => {
          if (!own.isDead) deps.onBug(`the agent ${name} ended: ${String(error)}`);
        });
      agent = { process: own, done };
    },
    kill,
    powerOff,
    stickDisk: () => files.stick(),
    freeDisk: () => files.free(),
    loseJournals() {
      for (const id of known()) remember(id, "lost");
      files.remove(deploymentsDirectory);
      for (const file of ["activation.json", "activation.json.cancel", "proof.json"]) {
        files.remove(join(stateDirectory, file));
      }
    },
    async [Symbol.asyncDispose]() {
      await powerOff();
      files.free();
      files[Symbol.dispose]();
    },
  };
}

function parseEntries(text: string): ReportEntry[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => reportEntrySchema.parse(JSON.parse(line)));
}
