/**
 * An agent in the test's process, for the tests of its whole life: a scripted coordinator, a cache over HTTP, a store in
 * memory, a real state directory, and supervisors that do what the test says.
 */
import { expect } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { createActivations } from "../../src/agent/activation/activations.ts";
import { type ActivationRecord, readRecord, writeRecord } from "../../src/agent/activation/record.ts";
import { type AgentConfig, createAgent } from "../../src/agent/agent.ts";
import { openCaches } from "../../src/agent/caches.ts";
import { openDeploymentJournal } from "../../src/agent/journal/deployment-folder.ts";
import { type Journal, measurePhases, type OutcomeEntry } from "../../src/agent/journal/journal.ts";
import { tryLockFile } from "../../src/agent/machine/flock.ts";
import { createHttpClient, type HttpClient } from "../../src/http/client.ts";
import { createLogger, silentLogger } from "../../src/log.ts";
import { parseAgentName } from "../../src/names.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../src/nix/signing-key.ts";
import type { StorePath } from "../../src/nix/store-path.ts";
import type { MachineState, ReportEntry } from "../../src/protocol.ts";
import { type Clock, systemClock, systemRandom } from "../../src/runtime.ts";
import { type FaultyCache, narInfoOf, planOf, startFaultyCache } from "../support/faulty-cache.ts";
import { createMemoryDaemon, type MemoryDaemon } from "../support/memory-daemon.ts";
import { createMemoryDialer, type MemoryPeer } from "../support/memory-socket.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { createTinyPath } from "../support/tiny-path.ts";
import { waitFor } from "../support/wait-for.ts";
import { offerOf } from "./offers.ts";
import { takeHello, welcomeFrame } from "./scripted-coordinator.ts";

export const KEY = secretKeyFromSeed("cache-1", new Uint8Array(32).fill(1));
export const OTHER_KEY = secretKeyFromSeed("other-1", new Uint8Array(32).fill(2));
export const TRUSTED = formatPublicKey(publicKeyOf(KEY));
export const leaf = createTinyPath("leaf");
export const app = createTinyPath("app", { references: [leaf.storePath] });
export const script = createTinyPath("script");

export type AgentBench = AsyncDisposable & {
  readonly directory: TemporaryDirectory;
  readonly cache: FaultyCache;
  readonly daemon: MemoryDaemon;
  readonly logged: readonly string[];
  /** What the profile names. */
  profile: StorePath | null;
  /** As the supervisors found them, one for each that went to work. */
  readonly activations: readonly ActivationRecord[];
  /** What a supervisor does; at first it makes the version live. */
  activate: (record: ActivationRecord, journal: Journal) => Promise<ActivationEnd>;
  /** What was kept from the garbage collector. */
  readonly roots: readonly string[];
  startAgent(changes?: Partial<AgentConfig>): Running;
  /** The agent's next connection. */
  nextPeer(): Promise<MemoryPeer>;
  /** The same, welcomed. */
  admit(publicKeys?: readonly string[]): Promise<MemoryPeer>;
  /** Names in its state directory, and in the folder of its deployments. */
  stateFiles(): Promise<string[]>;
  deploymentFolders(): Promise<string[]>;
};

/** Reconnects at once; everything else takes its time. */
const impatientClock: Clock = {
  ...systemClock,
  sleep: (durationMs, signal) => systemClock.sleep(durationMs <= 15_000 ? Math.min(durationMs, 5) : durationMs, signal),
};

type ActivationEnd = Pick<OutcomeEntry, "outcome" | "reason" | "exitCode" | "fault">;
export const SUCCEEDED: ActivationEnd = { outcome: "succeeded", reason: "It is live.", exitCode: 0 };

export type Running = { readonly stop: () => Promise<void>; readonly done: Promise<void> };

export async function openAgentBench(): Promise<AgentBench> {
  const directory = await createTemporaryDirectory("agent");
  const cache = await startFaultyCache([leaf, app, script]);
  cache.plan = planOf([leaf, app, script].map((path) => narInfoOf(path, KEY)));
  const daemon = createMemoryDaemon();
  const http = createHttpClient({ userAgent: "test", env: {}, clock: systemClock, random: systemRandom });
  const peers: MemoryPeer[] = [];
  const logged: string[] = [];
  const activations: ActivationRecord[] = [];
  const supervisors: Promise<void>[] = [];
  const roots: string[] = [];
  const nextPeer = async () => await waitFor("a connection", () => peers.shift());
  const launch = async (stateDirectory: string) => {
    const supervising = supervise(stateDirectory, { activations, activate: (...how) => bench.activate(...how) });
    supervisors.push(supervising);
    supervising.catch(() => {
      // One that is stuck is rejected at the end of its test.
    });
  };
  const bench: AgentBench = {
    ...{ directory, cache, daemon, logged, activations, roots, nextPeer },
    profile: null,
    async activate(record, journal) {
      await journal.log("out", "hello from the activation");
      bench.profile = record.storePath;
      return SUCCEEDED;
    },
    startAgent: (changes = {}) => startAgent(bench, { changes, http, peers, logged, roots, launch }),
    async admit(publicKeys = [TRUSTED]) {
      const peer = await nextPeer();
      await takeHello(peer);
      peer.send(welcomeFrame({ publicKeys: [...publicKeys] }));
      return peer;
    },
    stateFiles: () => readdir(directory.join("state")),
    deploymentFolders: () => readdir(directory.join("state", "deployments")),
    async [Symbol.asyncDispose]() {
      await Promise.allSettled(supervisors);
      await http[Symbol.asyncDispose]();
      await cache[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
  return bench;
}

/** What a supervisor does, as far as an agent can see it; the activation itself is the test's. */
async function supervise(
  stateDirectory: string,
  { activations, activate }: { readonly activations: ActivationRecord[] } & Pick<AgentBench, "activate">,
): Promise<void> {
  using held = tryLockFile(join(stateDirectory, "activation.lock"));
  const record = await readRecord(stateDirectory);
  if (held === null || record === null) return;
  const { deploymentId } = record;
  await using opened = await openDeploymentJournal({ stateDirectory, deploymentId, clock: systemClock });
  const { journal } = opened;
  if (journal.outcome !== null) return;
  activations.push(record);
  const end = await activate(record, journal);
  const phaseMs = measurePhases(journal, systemClock.nowMs());
  await writeRecord(stateDirectory, { ...record, ...end, fault: end.fault ?? null, stage: "finished" });
  await journal.finish({ ...end, previousPath: record.previous.profile, fetchedBytes: record.fetchedBytes, phaseMs });
}

type Starting = {
  readonly changes: Partial<AgentConfig>;
  readonly http: HttpClient;
  readonly peers: MemoryPeer[];
  readonly logged: string[];
  readonly roots: string[];
  readonly launch: (stateDirectory: string) => Promise<void>;
};

function startAgent(bench: AgentBench, { changes, http, peers, logged, roots, launch }: Starting): Running {
  const { directory, cache, daemon } = bench;
  const config: AgentConfig = {
    name: parseAgentName("nuc"),
    coordinatorUrl: cache.url,
    profilePath: directory.join("profiles", "test"),
    stateDirectory: directory.join("state"),
    enrolmentToken: "the-token",
    trustedPublicKeys: [],
    version: "1.2.3",
    ...changes,
  };
  const deps = { clock: impatientClock, random: systemRandom };
  const agent = createAgent({
    onReady: () => {},
    ...deps,
    config,
    logger: createLogger({ verbose: false, format: "text", write: (line) => logged.push(line) }),
    dial: createMemoryDialer((peer) => peers.push(peer)),
    connectDaemon: daemon.connect,
    openCaches: (welcome, credential) => openCaches(welcome, { ...deps, coordinatorUrl: cache.url, credential, http }),
    activations: createActivations({
      ...deps,
      config,
      environment: {},
      launch: () => launch(config.stateDirectory),
      agentUnit: async () => null,
      hasUnit: async () => false,
      readCurrentSystem: async () => null,
      readCurrentHome: async () => null,
      isRoot: true,
      readNames: async () => new Set(),
      readOwnHealthChecks: async () => [],
      readFailedUnits: async () => null,
      platform: "x86_64-linux",
      readPlatform: async () => null,
      findSpecialisation: async () => null,
      resolveSpecialisation: async () => null,
      bootClock: { read: async () => ({ bootId: "the-boot", uptimeMs: 1_000 }) },
      logger: silentLogger,
    }),
    machine: {
      system: "x86_64-linux",
      hostName: "test",
      readState: async (inFlight): Promise<MachineState> => ({
        profilePath: bench.profile,
        generation: null,
        currentPath: null,
        bootedPath: null,
        storeFreeBytes: 1e9,
        inFlight,
      }),
      readCurrentSystem: async () => null,
      findSpecialisation: async () => null,
      readStoreFreeBytes: async () => 1e9,
    },
    readFailedUnits: async () => null,
    gcRoots: {
      keep: async ({ storePaths }) => {
        for (const path of storePaths) expect(daemon.valid.has(path)).toBe(true);
        roots.push(...storePaths);
      },
      dropOthers: async () => {},
      dropForgotten: async () => {},
      list: async () => [],
    },
  });
  const stop = new AbortController();
  const done = agent.run(stop.signal);
  done.catch(() => {
    // Looked at by the tests that expect it.
  });
  return {
    done,
    stop: async () => {
      stop.abort(new Error("stopped"));
      await done;
    },
  };
}

/** Takes reports, acknowledging each, until the outcome has come. */
export async function takeDeployment(peer: MemoryPeer): Promise<ReportEntry[]> {
  const entries: ReportEntry[] = [];
  while (entries.at(-1)?.type !== "outcome") {
    const report = await peer.expect("report");
    for (const entry of report.entries) if (entry.n === entries.length + 1) entries.push(entry);
    peer.send({ kind: "acknowledge", deploymentId: report.deploymentId, through: entries.length });
  }
  return entries;
}

export const offer = (changes: Parameters<typeof offerOf>[1] = {}) =>
  offerOf("a", { storePath: app.storePath, ...changes });
export const outcomeOf = (entries: readonly ReportEntry[]) => {
  const last = entries.at(-1);
  if (last?.type !== "outcome") throw new Error("there is no outcome");
  return last;
};
