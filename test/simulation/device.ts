/**
 * A device: the real agent on a disk in memory, with doubles for its machine, its Nix store and its activations. It can
 * be killed and started again, lose its power, and keeps for the test what its journals said when they were forgotten.
 */
import { join } from "node:path";
import { createActivations } from "../../src/agent/activation/activations.ts";
import { type AgentConfig, createAgent } from "../../src/agent/agent.ts";
import { openCaches } from "../../src/agent/caches.ts";
import { loadIdentity } from "../../src/agent/link/identity.ts";
import { login } from "../../src/agent/link/login.ts";
import { NixdeployError } from "../../src/errors.ts";
import type { JsonRequest } from "../../src/http/client.ts";
import type { Logger } from "../../src/log.ts";
import { type DeploymentId, parseAgentName, parseDeploymentId } from "../../src/names.ts";
import { type MachineState, type ReportEntry, reportEntrySchema } from "../../src/protocol.ts";
import type { Clock } from "../../src/runtime.ts";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import { createMemoryDaemon } from "../support/memory-daemon.ts";
import { keepInMemory } from "../support/memory-files.ts";
import type { SeededRandom } from "../support/seeded-random.ts";
import type { TinyPath } from "../support/tiny-path.ts";
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

/** Between the beginning of a look into the store and its answer. */
const PLAN_MAX_MS = 4_000;
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
  const powerOff = async () => {
    for (const { process } of supervisors) process.kill();
    await Promise.all(supervisors.map(({ done }) => done));
    supervisors = [];
    await kill();
  };
  return {
    ...{ name, hardware },
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

type Own = {
  readonly own: SimulatedProcess;
  readonly stateDirectory: string;
  readonly hardware: Hardware;
};

async function runAgent(deps: DeviceDeps, running: Own & { readonly launch: () => Promise<void> }): Promise<void> {
  const { own, stateDirectory, hardware, launch } = running;
  const { random } = deps;
  const { clock } = own;
  const logger = createBugLogger(deps, own);
  const config: AgentConfig = {
    name: parseAgentName(deps.name),
    coordinatorUrl: deps.coordinatorUrl,
    profilePath: join(deps.directory, "profiles/system"),
    stateDirectory,
    enrolmentToken: deps.token,
    trustedPublicKeys: [],
    version: NIXDEPLOY_VERSION,
  };
  const daemon = createMemoryDaemon();
  for (const path of deps.paths) {
    daemon.valid.set(path.storePath, { ...path, narSizeBytes: path.nar.length, ...NO_DERIVER });
  }
  const agent = createAgent({
    ...{ config, clock, random, logger },
    onReady: () => {},
    dial: (options) =>
      deps.network.dial(deps.name, { ...options, signal: AbortSignal.any([options.signal, own.death]) }),
    connectDaemon: daemon.connect,
    openCaches: (welcome, credential) =>
      openCaches(welcome, {
        ...{ coordinatorUrl: config.coordinatorUrl, credential, clock, random, http: createHttp(deps, clock) },
      }),
    activations: createActivations({
      ...{ config, clock, logger, launch, environment: {} },
      ...{ isRoot: true, platform: "x86_64-linux", ...NOTHING_THERE },
    }),
    machine: {
      ...{ system: "x86_64-linux", hostName: deps.name },
      readState: async (inFlight) => stateOf(hardware, inFlight),
      readCurrentSystem: async () => null,
      findSpecialisation: async () => null,
      readStoreFreeBytes: async () => 1e9,
    },
    readFailedUnits: async () => null,
    gcRoots: { keep: async () => {}, dropOthers: async () => {}, dropForgotten: async () => {}, list: async () => [] },
  });
  await agent.run(own.death);
}

const NO_DERIVER = { deriver: null, signatures: [], contentAddress: null } as const;
const NOTHING_THERE = {
  agentUnit: async () => null,
  hasUnit: async () => false,
  readCurrentSystem: async () => null,
  readCurrentHome: async () => null,
  readNames: async () => new Set<string>(),
  readOwnHealthChecks: async () => [],
  readFailedUnits: async () => null,
  readPlatform: async () => null,
  findSpecialisation: async () => null,
  resolveSpecialisation: async () => null,
  bootClock: { read: async () => ({ bootId: "the-boot", uptimeMs: 1_000 }) },
} as const;

function stateOf({ profile }: Hardware, inFlight: DeploymentId | null): MachineState {
  return { profilePath: profile, generation: null, currentPath: null, bootedPath: null, storeFreeBytes: 1e9, inFlight };
}

/** The calls of the download engine, over the simulated network. */
function createHttp(deps: DeviceDeps, clock: Clock) {
  return {
    async requestJson<T>(request: JsonRequest<T>) {
      await clock.sleep(deps.random.below(PLAN_MAX_MS), request.signal);
      await deps.network.passThrough(deps.name, request.signal);
      const response = await deps.request(
        new Request(request.url, {
          method: request.method,
          headers: { authorization: `Bearer ${request.token}`, "content-type": "application/json" },
          body: JSON.stringify(request.body),
        }),
      );
      if (response.status === 401) throw new NixdeployError("denied", "cannot read the cache: who are you?");
      if (response.status >= 500) throw new NixdeployError("unreachable", "the coordinator is in trouble");
      if (!response.ok) throw new NixdeployError("not-found", `cannot plan: ${await response.text()}`);
      return { status: response.status, answer: request.schema.parse(await response.json()) };
    },
    openBody: () => {
      throw new Error("everything is valid already");
    },
  };
}

async function proveByLogin(
  deps: DeviceDeps,
  how: Own & { readonly deploymentId: DeploymentId; readonly signal: AbortSignal },
): Promise<boolean> {
  const { own, stateDirectory, hardware, deploymentId, signal } = how;
  const { clock } = own;
  const result = await login({
    coordinatorUrl: deps.coordinatorUrl,
    name: parseAgentName(deps.name),
    identity: await loadIdentity({ stateDirectory, random: deps.random }),
    enrolmentToken: null,
    readFacts: async () => ({
      ...{ agentVersion: NIXDEPLOY_VERSION, nixVersion: null, system: "x86_64-linux", hostName: deps.name },
      ...{ profile: join(deps.directory, "profiles/system"), state: stateOf(hardware, deploymentId) },
    }),
    readProof: async () => ({ deploymentId, by: "supervisor" }),
    dial: (options) => deps.network.dial(deps.name, options),
    ...{ clock, signal },
  });
  if (result.kind === "refused") return false;
  result.socket.close();
  return result.welcome.proved === deploymentId;
}

/** An agent that lives meets trouble only with its connection. */
function createBugLogger(deps: DeviceDeps, own: SimulatedProcess): Logger {
  const tell = (message: string) => deps.tell(`${deps.name}: ${message}`);
  return {
    error(message) {
      if (!own.isDead) deps.onBug(`the agent ${deps.name} says: ${message}`);
    },
    ...{ warn: tell, info: tell, debug: () => {} },
  };
}

function parseEntries(text: string): ReportEntry[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => reportEntrySchema.parse(JSON.parse(line)));
}
