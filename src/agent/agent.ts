/**
 * The agent, put together: identity, journals, one worker, one connection. This is the composition root; every part
 * that touches the world comes in through `AgentDeps`, so that tests run many agents in one process.
 *
 *   connection ──offers, cancels──► worker ──► deploy (fetch, activate) ──► journal ──► reporter (in the connection)
 */
import { join } from "node:path";
import { describeError, NixdeployError } from "../errors.ts";
import type { Labels } from "../labels.ts";
import type { Logger } from "../log.ts";
import type { AgentName, CacheName, DeploymentId } from "../names.ts";
import type { CacheReader } from "../nix/cache/download/nar-source.ts";
import type { DaemonConnection } from "../nix/daemon/connection.ts";
import { createSignatureVerifier } from "../nix/signature.ts";
import { parsePublicKey } from "../nix/signing-key.ts";
import { type MachineState, UNREPORTED_MAX, type Welcome } from "../protocol.ts";
import type { Clock, Random } from "../runtime.ts";
import type { Activations } from "./activation/activations.ts";
import { writeAgentFile } from "./agent-file.ts";
import { deploy } from "./deploy.ts";
import { type DeploymentStore, openDeploymentStore } from "./journal/deployment-store.ts";
import { type KeyRing, runConnection } from "./link/connection.ts";
import { createContact } from "./link/contact.ts";
import { type Enrolment, readEnrolment } from "./link/enrolment.ts";
import { findNextKey, loadKeys, promoteNextKey } from "./link/identity.ts";
import type { HelloFacts } from "./link/login.ts";
import type { DialMessageSocket } from "./link/message-socket.ts";
import { keysForCache } from "./link/substituter-pins.ts";
import { watchLocalDeployments } from "./local/local-watch.ts";
import { tryLockFile } from "./machine/flock.ts";
import type { GcRoots } from "./machine/gc-roots.ts";
import type { Machine } from "./machine/machine.ts";
import { createMachineWatch } from "./machine/machine-watch.ts";
import { takeTurn } from "./turn.ts";
import { createWorker } from "./worker.ts";

export type AgentConfig = {
  readonly name: AgentName;
  /** Without a slash at its end. */
  readonly coordinatorUrl: string;
  /** Absolute path of the profile's link. */
  readonly profilePath: string;
  readonly stateDirectory: string;
  /** The agent token; null when the agent was admitted before. */
  readonly enrolmentToken: string | null;
  /** `name:base64`; when given, nothing is pinned from the wire. */
  readonly trustedPublicKeys: readonly string[];
  readonly version: string;
  /** For offers that do not say how long a proof may take; 60 s when absent. */
  readonly confirmWindowMs?: number;
  /** For those who select agents by them. */
  readonly labels?: Labels;
  /** Where its own health checks are, absolute; for `agent.json`. */
  readonly healthChecksFile?: string | null;
};

export type AgentDeps = {
  readonly config: AgentConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly dial: DialMessageSocket;
  readonly connectDaemon: (options: { readonly signal: AbortSignal }) => Promise<DaemonConnection>;
  /** The workspace's caches in the order in which they are asked; `credential` is asked at every request. */
  readonly openCaches: (welcome: Welcome, credential: () => string) => readonly CacheReader[];
  readonly activations: Activations;
  readonly machine: Machine;
  /** By name; null where no service manager tells. Asked once a minute. */
  readonly readFailedUnits: () => Promise<readonly string[] | null>;
  readonly gcRoots: GcRoots;
  /** Called once the profile is ours, what is on disk is read, and the first try to connect begins. */
  readonly onReady: () => void;
};

export type Agent = {
  /**
   * Runs until the signal is aborted; then says goodbye, waits for an activation in progress, and returns.
   * @throws NixdeployError("conflict") when another agent keeps this profile or state directory ·
   * NixdeployError("denied") when the very first login is refused · NixdeployError("host")
   */
  run(signal: AbortSignal): Promise<void>;
};

/** How long the end of the agent waits for an activation; the next start finishes a longer one. */
const ACTIVATION_WAIT_MAX_MS = 5 * 60_000;

export function createAgent(deps: AgentDeps): Agent {
  return { run: (signal) => runAgent(deps, signal) };
}

async function runAgent(deps: AgentDeps, stop: AbortSignal): Promise<void> {
  const { config, clock, logger, machine } = deps;
  using _locks = takeLocks(config);
  await deps.activations.ensureSupervised();
  const keys = await openKeyRing(deps);
  const enrolment = await readEnrolment(config.stateDirectory);
  const pending = await deps.activations.pending();
  await using store = await openStore(deps, pending, stop);
  const contact = createContact();
  const trust = createTrust(config.trustedPublicKeys, enrolment);
  // Aborted when the agent is told to stop, or when the connection fails for good.
  const failure = new AbortController();
  const signal = AbortSignal.any([stop, failure.signal]);

  const watch = createMachineWatch({
    readState: () => readState(machine, store, worker.inFlight),
    readFailedUnits: deps.readFailedUnits,
    isConnected: () => contact.isConnected,
    send: (state) => contact.send({ kind: "state", state }),
    clock,
    logger,
  });
  const worker = createWorker({
    store,
    clock,
    logger,
    signal,
    onChange: () => void watch.look(),
    deploy: (options) =>
      deploy({
        ...deps,
        ...options,
        contact,
        trustFor: trust.forCache,
        listKept: () => store.journals.map((journal) => journal.offer.deploymentId),
        readProfilePath: async () => (await machine.readState(null)).profilePath,
        readLivePaths: async () => [await machine.readCurrentSystem(), (await machine.readState(null)).currentPath],
        readStoreFreeBytes: machine.readStoreFreeBytes,
        signal,
      }),
  });
  const facts = createFacts(deps, watch.tell, signal);
  worker.resume(pending);
  const settling = settleTrial(deps, signal);
  const watching = Promise.all([
    watch.run(signal),
    watchLocalDeployments({ ...deps, ...config, store, onEnd: () => void watch.look(), signal }),
  ]).catch(() => {
    // They only end when they are told to.
  });
  deps.onReady();
  try {
    await runConnection({
      ...deps,
      ...config,
      givenPublicKeys: config.trustedPublicKeys,
      keys,
      enrolment,
      readFacts: facts,
      readProof: deps.activations.proofToGive,
      isActivating: async () =>
        (await deps.activations.pending()) !== null || (await deps.activations.proofToGive()) !== null,
      onProved: deps.activations.proved,
      store,
      contact,
      handlers: {
        onOffer: worker.offer,
        onCancel: (deploymentId) => worker.handle({ kind: "cancelled", deploymentId }),
        onContactLost: () => worker.handle({ kind: "contact-lost" }),
        onPins: trust.pin,
      },
      signal,
    });
  } catch (error) {
    failure.abort(error);
    await Promise.all([watching, settling]);
    await waitForWorker(worker.settled(), deps);
    if (!stop.aborted) throw error;
  }
}

/** A power cut may have brought back what the last deployment removed; nobody else would look for it before the next. */
async function dropForgottenRoots({ gcRoots, logger }: AgentDeps, { journals }: DeploymentStore): Promise<void> {
  const known = journals.map((journal) => journal.offer.deploymentId);
  await gcRoots.dropForgotten(known).catch((error: unknown) => {
    logger.warn(`cannot remove old garbage-collector roots: ${describeError(error)}`);
  });
}

/** @throws NixdeployError("host") */
async function openKeyRing({ config, random, logger }: AgentDeps): Promise<KeyRing> {
  const { stateDirectory, name, profilePath } = config;
  const ring: KeyRing = {
    load: () => loadKeys({ stateDirectory, random }),
    findNext: () => findNextKey(stateDirectory),
    promote: () => promoteNextKey(stateDirectory),
  };
  const { current } = await ring.load();
  logger.info(`agent ${name} keeps ${profilePath}; its key is ${current.fingerprint}`);
  return ring;
}

/** Never rejects. */
async function settleTrial({ activations, logger }: AgentDeps, signal: AbortSignal): Promise<void> {
  try {
    await activations.settleTrial(signal);
  } catch (error) {
    if (!signal.aborted) logger.error(`cannot decide on what waited for a reboot: ${describeError(error)}`);
  }
}

async function openStore(
  deps: AgentDeps,
  followed: DeploymentId | null,
  signal: AbortSignal,
): Promise<DeploymentStore> {
  const { config, clock, logger } = deps;
  const { stateDirectory } = config;
  // Folders that are just being begun are not to be taken for left-overs.
  const store = await takeTurn({ stateDirectory, clock, signal }, () =>
    openDeploymentStore({ stateDirectory, clock, followed }),
  );
  const { name, profilePath, healthChecksFile = null } = config;
  await writeAgentFile(stateDirectory, { name, profilePath, healthChecksFile }).catch((error: unknown) => {
    logger.warn(`cannot say in ${stateDirectory} which profile this agent keeps: ${describeError(error)}`);
  });
  await dropForgottenRoots(deps, store);
  return store;
}

/** Of the profile, and of the state directory. */
function takeLocks({ profilePath, stateDirectory }: AgentConfig): Disposable {
  using locks = new DisposableStack();
  locks.use(lock(`${profilePath}.nixdeploy-lock`, { use: `keeps the profile ${profilePath}`, directoryMode: 0o755 }));
  locks.use(
    lock(join(stateDirectory, "lock"), { use: `uses the state directory ${stateDirectory}`, directoryMode: 0o700 }),
  );
  return locks.move();
}

function lock(path: string, options: { readonly use: string; readonly directoryMode: number }): Disposable {
  const { use, directoryMode } = options;
  const held = tryLockFile(path, directoryMode);
  if (held !== null) return held;
  throw new NixdeployError("conflict", `cannot start the agent: another one ${use}`, {
    hint: "Stop that one first: only one agent may keep a profile.",
  });
}

async function waitForWorker(settled: Promise<void>, { clock, logger }: AgentDeps): Promise<void> {
  const done = new AbortController();
  const timeUp = clock.sleep(ACTIVATION_WAIT_MAX_MS, done.signal).then(
    () => logger.warn("an activation is still in progress; the agent's next start finishes it"),
    () => {
      // It ended in time.
    },
  );
  await Promise.race([settled, timeUp]);
  done.abort(new Error("settled"));
  await timeUp;
}

/** The keys that closures from a cache must be signed with: the operator's, or else those pinned for it. */
function createTrust(given: readonly string[], enrolment: Enrolment | null) {
  let pins = enrolment;
  return {
    forCache(name: CacheName) {
      const trustedKeys = keysForCache(name, { given, pins }).map(parsePublicKey);
      return { verifier: createSignatureVerifier(trustedKeys), trustedKeys };
    },
    pin: (now: Enrolment) => {
      pins = now;
    },
  };
}

/** What a hello says; the version of Nix is asked for until there is an answer. */
function createFacts(
  deps: AgentDeps,
  readState: () => Promise<MachineState>,
  signal: AbortSignal,
): () => Promise<HelloFacts> {
  const { config, machine, logger } = deps;
  let nixVersion: string | null = null;
  const askNixVersion = async () => {
    try {
      await using daemon = await deps.connectDaemon({ signal });
      return daemon.nixVersion;
    } catch (error) {
      signal.throwIfAborted();
      logger.warn(
        `${String(error instanceof Error ? error.message : error)}; deployments will fail until this is mended`,
      );
      return null;
    }
  };
  return async () => {
    nixVersion ??= await askNixVersion();
    return {
      agentVersion: config.version,
      system: machine.system,
      hostName: machine.hostName,
      nixVersion,
      profile: config.profilePath,
      labels: config.labels ?? {},
      state: await readState(),
    };
  };
}

/** With the journals that the coordinator must not take for forgotten. */
async function readState(
  machine: Machine,
  { journals }: DeploymentStore,
  inFlight: DeploymentId | null,
): Promise<MachineState> {
  const state = await machine.readState(inFlight);
  const ids = journals.map(({ offer }) => offer.deploymentId).filter((id) => id !== inFlight);
  return ids.length === 0 ? state : { ...state, unreported: ids.slice(-UNREPORTED_MAX) };
}
