/**
 * What runs on a device, each as a process of its own: the real agent, `nixdeploy local activate`, and a supervisor's
 * login, with doubles for its machine, its Nix store and its activations.
 */
import { join } from "node:path";
import { createActivations } from "../../src/agent/activation/activations.ts";
import { type AgentConfig, createAgent } from "../../src/agent/agent.ts";
import { openCaches } from "../../src/agent/caches.ts";
import { loadIdentity } from "../../src/agent/link/identity.ts";
import { login } from "../../src/agent/link/login.ts";
import { activateHere } from "../../src/agent/local/local-activation.ts";
import { NixdeployError } from "../../src/errors.ts";
import type { JsonRequest } from "../../src/http/client.ts";
import type { Logger } from "../../src/log.ts";
import { type DeploymentId, parseAgentName } from "../../src/names.ts";
import type { StorePath } from "../../src/nix/store-path.ts";
import type { MachineState } from "../../src/protocol.ts";
import type { Clock } from "../../src/runtime.ts";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import { createMemoryDaemon } from "../support/memory-daemon.ts";
import type { DeviceDeps } from "./device.ts";
import type { SimulatedProcess } from "./processes.ts";
import type { Hardware } from "./supervisor.ts";

/** Between the beginning of a look into the store and its answer. */
const PLAN_MAX_MS = 4_000;

export type Own = {
  readonly own: SimulatedProcess;
  readonly stateDirectory: string;
  readonly hardware: Hardware;
};

type Launching = Own & { readonly launch: () => Promise<void> };

/** Of an agent, and of who activates beside it. */
function createOrgans(deps: DeviceDeps, { own, stateDirectory, launch }: Launching) {
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
  const activations = createActivations({
    ...{ config, clock, logger, launch, environment: {} },
    ...{ isRoot: true, platform: "x86_64-linux", ...NOTHING_THERE },
  });
  return { config, logger, daemon, activations };
}

const NO_ROOTS = {
  keep: async () => {},
  dropOthers: async () => {},
  dropForgotten: async () => {},
  list: async () => [],
} as const;

export async function runCommand(
  deps: DeviceDeps,
  running: Launching & {
    readonly deploymentId: DeploymentId;
    readonly storePath: StorePath;
    readonly mayWait: boolean;
  },
): Promise<void> {
  const { own, stateDirectory, hardware, deploymentId, storePath, mayWait } = running;
  const { config, daemon, logger, activations } = createOrgans(deps, running);
  const { name, profilePath } = config;
  await activateHere(
    {
      ...{ deploymentId, storePath, mode: "switch", policy: {}, startedBy: "root", typed: "nixdeploy local activate" },
      ...{ awaitsVisit: false, mayWait },
    },
    {
      target: { name, profilePath, stateDirectory, healthChecksFile: null, hasAgent: true },
      ...{ activations, gcRoots: NO_ROOTS, connectDaemon: daemon.connect, clock: own.clock, logger, signal: own.death },
      readProfilePath: async () => hardware.profile,
      readLivePaths: async () => [],
      onEntry: async () => {},
    },
  );
}

export async function runAgent(deps: DeviceDeps, running: Launching): Promise<void> {
  const { own, hardware } = running;
  const { random } = deps;
  const { clock } = own;
  const { config, logger, daemon, activations } = createOrgans(deps, running);
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
    activations,
    machine: {
      ...{ system: "x86_64-linux", hostName: deps.name },
      readState: async (inFlight) => stateOf(hardware, inFlight),
      readCurrentSystem: async () => null,
      findSpecialisation: async () => null,
      readStoreFreeBytes: async () => 1e9,
    },
    readFailedUnits: async () => null,
    gcRoots: NO_ROOTS,
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

export async function proveByLogin(
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
