/** The whole agent in one process: a scripted coordinator, a cache over HTTP, a store in memory, a real state directory. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmod, cp, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { createActivations } from "../../src/agent/activation/activations.ts";
import {
  type ActivationRecord,
  isCancelRequested,
  readRecord,
  writeRecord,
} from "../../src/agent/activation/record.ts";
import { type AgentConfig, createAgent } from "../../src/agent/agent.ts";
import { openCaches } from "../../src/agent/caches.ts";
import { openDeploymentJournal } from "../../src/agent/journal/deployment-folder.ts";
import { type Journal, measurePhases, type OutcomeEntry } from "../../src/agent/journal/journal.ts";
import { tryLockFile } from "../../src/agent/machine/flock.ts";
import { NixdeployError } from "../../src/errors.ts";
import { createHttpClient, type HttpClient } from "../../src/http/client.ts";
import { signKeyStatement } from "../../src/key-statement.ts";
import { createLogger, silentLogger } from "../../src/log.ts";
import { parseAgentName } from "../../src/names.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../src/nix/signing-key.ts";
import type { StorePath } from "../../src/nix/store-path.ts";
import type { AgentFrame, MachineState, ReportEntry } from "../../src/protocol.ts";
import { type Clock, systemClock, systemRandom } from "../../src/runtime.ts";
import { type FaultyCache, narInfoOf, planOf, startFaultyCache } from "../support/faulty-cache.ts";
import { createMemoryDaemon, type MemoryDaemon } from "../support/memory-daemon.ts";
import { createMemoryDialer, type MemoryPeer } from "../support/memory-socket.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { createTinyPath } from "../support/tiny-path.ts";
import { waitFor } from "../support/wait-for.ts";
import { offerOf } from "./offers.ts";
import { takeHello, welcomeFrame } from "./scripted-coordinator.ts";

const KEY = secretKeyFromSeed("cache-1", new Uint8Array(32).fill(1));
const OTHER_KEY = secretKeyFromSeed("other-1", new Uint8Array(32).fill(2));
const TRUSTED = formatPublicKey(publicKeyOf(KEY));
const leaf = createTinyPath("leaf");
const app = createTinyPath("app", { references: [leaf.storePath] });
const script = createTinyPath("script");

let directory: TemporaryDirectory;
let cache: FaultyCache;
let daemon: MemoryDaemon;
let http: HttpClient;
let peers: MemoryPeer[];
let logged: string[];
let profile: StorePath | null;
/** As the supervisors found them, one for each that went to work. */
let activations: ActivationRecord[];
let activate: (record: ActivationRecord, journal: Journal) => Promise<ActivationEnd>;
let supervisors: Promise<void>[];
let roots: string[];

beforeEach(async () => {
  directory = await createTemporaryDirectory("agent");
  cache = await startFaultyCache([leaf, app, script]);
  cache.plan = planOf([leaf, app, script].map((path) => narInfoOf(path, KEY)));
  daemon = createMemoryDaemon();
  http = createHttpClient({ userAgent: "test", env: {}, clock: systemClock, random: systemRandom });
  peers = [];
  logged = [];
  profile = null;
  activations = [];
  supervisors = [];
  roots = [];
  activate = async (record, journal) => {
    await journal.log("out", "hello from the activation");
    profile = record.storePath;
    return SUCCEEDED;
  };
});

afterEach(async () => {
  await Promise.allSettled(supervisors);
  await http[Symbol.asyncDispose]();
  await cache[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

/** Reconnects at once; everything else takes its time. */
const impatientClock: Clock = {
  ...systemClock,
  sleep: (durationMs, signal) => systemClock.sleep(durationMs <= 15_000 ? Math.min(durationMs, 5) : durationMs, signal),
};

type ActivationEnd = Pick<OutcomeEntry, "outcome" | "reason" | "exitCode" | "fault">;
const SUCCEEDED: ActivationEnd = { outcome: "succeeded", reason: "It is live.", exitCode: 0 };

/** What a supervisor does, as far as an agent can see it; the activation itself is the test's. */
async function supervise(stateDirectory: string): Promise<void> {
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

type Running = { readonly stop: () => Promise<void>; readonly done: Promise<void> };

function startAgent(changes: Partial<AgentConfig> = {}): Running {
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
      launch: async () => {
        const supervising = supervise(config.stateDirectory);
        supervisors.push(supervising);
        supervising.catch(() => {
          // One that is stuck is rejected at the end of its test.
        });
      },
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
        profilePath: profile,
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

/** The agent's next connection. */
async function nextPeer(): Promise<MemoryPeer> {
  return await waitFor("a connection", () => peers.shift());
}

async function admit(publicKeys: readonly string[] = [TRUSTED]): Promise<MemoryPeer> {
  const peer = await nextPeer();
  await takeHello(peer);
  peer.send(welcomeFrame({ publicKeys: [...publicKeys] }));
  return peer;
}

/** Takes reports, acknowledging each, until the outcome has come. */
async function takeDeployment(peer: MemoryPeer): Promise<ReportEntry[]> {
  const entries: ReportEntry[] = [];
  while (entries.at(-1)?.type !== "outcome") {
    const report = await peer.expect("report");
    for (const entry of report.entries) if (entry.n === entries.length + 1) entries.push(entry);
    peer.send({ kind: "acknowledge", deploymentId: report.deploymentId, through: entries.length });
  }
  return entries;
}

const offer = (changes: Parameters<typeof offerOf>[1] = {}) => offerOf("a", { storePath: app.storePath, ...changes });
const outcomeOf = (entries: readonly ReportEntry[]) => {
  const last = entries.at(-1);
  if (last?.type !== "outcome") throw new Error("there is no outcome");
  return last;
};
const stateFiles = () => readdir(directory.join("state"));
const deploymentFolders = () => readdir(directory.join("state", "deployments"));

describe("login", () => {
  test("sends the token at the first contact only, pins the keys, and says where it is connected", async () => {
    const first = startAgent();
    const peer = await nextPeer();
    const hello = await takeHello(peer);
    expect(hello).toMatchObject({
      name: "nuc",
      enrolmentToken: "the-token",
      agentVersion: "1.2.3",
      nixVersion: "2.8.0",
    });
    peer.send(welcomeFrame({ publicKeys: [TRUSTED] }));
    await waitFor("the line", () => logged.includes(`connected to ${cache.url} as nuc (workspace default)`));
    await first.stop();
    expect((await stat(directory.join("state", "key"))).mode & 0o777).toBe(0o600);

    const second = startAgent();
    const again = await nextPeer();
    expect(await takeHello(again)).not.toHaveProperty("enrolmentToken");
    again.send({ kind: "refused", code: "not-enrolled", message: "who are you?" });
    const third = await takeHello(await nextPeer());
    expect(third).toMatchObject({ enrolmentToken: "the-token", publicKey: hello.publicKey });
    await second.stop();
  });

  test("that is refused for its credential at the very first contact ends the agent", async () => {
    for (const [token, code] of [
      [null, "not-enrolled"],
      ["the-token", "token-refused"],
    ] as const) {
      const agent = startAgent({ enrolmentToken: token });
      const peer = await nextPeer();
      await takeHello(peer);
      peer.send({ kind: "refused", code, message: "no" });
      const error = await agent.done.catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(NixdeployError);
      expect(error).toMatchObject({ kind: "denied", message: expect.stringContaining("cannot log in as nuc: no") });
    }
  });

  test("that is refused for another reason is tried again", async () => {
    const agent = startAgent();
    for (const code of ["name-taken", "other-name", "bad-signature", "version"] as const) {
      const peer = await nextPeer();
      await takeHello(peer);
      peer.send({ kind: "refused", code, message: `because of ${code}` });
      await waitFor("the line", () => logged.some((line) => line.includes(`because of ${code}`)));
    }
    await admit();
    await agent.stop();
  });

  test("survives connections that end, are silent, or talk nonsense", async () => {
    const agent = startAgent();
    (await nextPeer()).close("maintenance");
    (await nextPeer()).sendText("{");
    (await nextPeer()).send({ kind: "pong" });
    const peer = await nextPeer();
    peer.sendText('{"kind":"song","verses":3}');
    await takeHello(peer).catch(async () => undefined);
    peer.send(welcomeFrame());
    await waitFor("the welcome", () => logged.some((line) => line.startsWith("connected")));
    expect(logged.join("\n")).toContain("it ended the connection (maintenance)");
    await agent.stop();
    expect(peer.isClosed).toBe(true);
  });

  test("with a key that others may read is refused before anything is sent", async () => {
    const first = startAgent();
    await admit();
    await first.stop();
    await chmod(directory.join("state", "key"), 0o640);
    await expect(startAgent().done).rejects.toThrow("other users may read it");
  });
});

test("a second agent on the profile, or on the state directory, is refused", async () => {
  const agent = startAgent();
  await nextPeer();
  await expect(startAgent({ stateDirectory: directory.join("other") }).done).rejects.toThrow(
    "another one keeps the profile",
  );
  await expect(startAgent({ profilePath: directory.join("other-profile") }).done).rejects.toThrow(
    "uses the state directory",
  );
  await agent.stop();
});

describe("a deployment", () => {
  test("is fetched, rooted, activated and reported, and its folder disappears", async () => {
    const agent = startAgent();
    const peer = await admit();
    peer.send(offer());
    const entries = await takeDeployment(peer);
    expect(entries.map((entry) => (entry.type === "phase" ? entry.phase : entry.type))).toEqual([
      "fetching",
      "log",
      "activating",
      "log",
      "outcome",
    ]);
    expect(outcomeOf(entries)).toMatchObject({
      outcome: "succeeded",
      reason: "It is live.",
      previousPath: null,
      exitCode: 0,
      fetchedBytes: leaf.file.length + app.file.length,
      phaseMs: { fetching: expect.any(Number), activating: expect.any(Number) },
    });
    expect(activations).toMatchObject([{ storePath: app.storePath, mode: "switch", previous: { profile: null } }]);
    expect(roots).toEqual([app.storePath]);
    await waitFor("the folder to go", async () => (await deploymentFolders()).length === 0);
    await agent.stop();
    expect(daemon.connections.open).toBe(0);
  });

  test("tells the coordinator how long it may take to prove itself, which is this device's own business", async () => {
    const agent = startAgent({ confirmWindowMs: 300_000 });
    const peer = await admit();
    peer.send(offer());
    const told = (await takeDeployment(peer)).filter((entry) => entry.type === "phase");
    expect(told.map(({ phase, confirmWindowMs }) => [phase, confirmWindowMs])).toEqual([
      ["fetching", undefined],
      ["activating", 300_000],
    ]);
    await agent.stop();
  });

  test("brings its rollback script along", async () => {
    const agent = startAgent();
    const peer = await admit();
    peer.send(offer({ rollbackScript: script.storePath }));
    await takeDeployment(peer);
    expect(daemon.valid.has(script.storePath)).toBe(true);
    expect(activations).toMatchObject([{ rollbackScript: script.storePath }]);
    await agent.stop();
  });

  test("signed by a key that was not pinned is refused, whatever the coordinator says later", async () => {
    const agent = startAgent();
    (await admit()).close();
    cache.plan = planOf([leaf, app].map((path) => narInfoOf(path, OTHER_KEY)));
    const peer = await admit([formatPublicKey(publicKeyOf(OTHER_KEY))]);
    peer.send(offer());
    const outcome = outcomeOf(await takeDeployment(peer));
    expect(outcome.outcome).toBe("failed");
    expect(outcome.reason).toMatch(/none that is valid under the keys this device trusts \(cache-1\)/);
    expect(logged.join("\n")).toContain("a cache key that this device has not pinned (other-1)");
    expect([activations, daemon.valid.size]).toEqual([[], 0]);
    await agent.stop();
  });

  test("signed by a key for which the pinned one vouches is taken, now and after a restart", async () => {
    const first = startAgent();
    (await admit()).close();
    cache.plan = planOf([leaf, app].map((path) => narInfoOf(path, OTHER_KEY)));
    const newKey = publicKeyOf(OTHER_KEY);
    const statement = signKeyStatement(KEY, { cache: "default", newKey, sequence: 1, atMs: 0 });
    const told = { publicKeys: [formatPublicKey(newKey)], keyStatements: [statement] };
    const peer = await nextPeer();
    await takeHello(peer);
    peer.send(welcomeFrame(told));
    await waitFor("the news", () => logged.join("\n").includes("as the old one"));
    await first.stop();
    const enrolment = await readFile(directory.join("state", "enrolment.json"), "utf8");
    expect(enrolment).toContain(formatPublicKey(newKey));
    expect(enrolment).not.toContain(TRUSTED);
    const second = startAgent();
    // Without the statement, too: the pin is on the disk.
    const again = await admit([formatPublicKey(newKey)]);
    again.send(offer());
    expect(outcomeOf(await takeDeployment(again)).outcome).toBe("succeeded");
    await second.stop();
  });

  test("is checked against the operator's keys when there are some, and nothing is pinned then", async () => {
    const agent = startAgent({ trustedPublicKeys: [TRUSTED] });
    const peer = await admit([formatPublicKey(publicKeyOf(OTHER_KEY))]);
    peer.send(offer());
    expect(outcomeOf(await takeDeployment(peer)).outcome).toBe("succeeded");
    await agent.stop();
    expect(await readFile(directory.join("state", "enrolment.json"), "utf8")).toContain('"pinnedPublicKeys": []');
  });

  test("cancelled while it fetches touches nothing", async () => {
    const agent = startAgent();
    const peer = await admit();
    cache.decide = () => ({ status: 503 });
    peer.send(offer());
    await waitFor("a request", () => cache.requests.length > 0);
    peer.send({ kind: "cancel", deploymentId: offer().deploymentId });
    const outcome = outcomeOf(await takeDeployment(peer));
    expect(outcome).toMatchObject({ outcome: "cancelled", reason: "Cancelled before anything was touched." });
    expect(activations).toEqual([]);
    await agent.stop();
  });

  test("that arrives while another is worked on comes next; the same again is no news", async () => {
    const agent = startAgent();
    const peer = await admit();
    const begun = Promise.withResolvers<void>();
    activate = async () => {
      await begun.promise;
      return { ...SUCCEEDED, reason: "Done." };
    };
    peer.send(offer());
    await waitFor("the activation", () => activations.length === 1);
    peer.send(offer());
    peer.send(offerOf("b", { storePath: leaf.storePath }));
    begun.resolve();
    await takeDeployment(peer);
    await takeDeployment(peer);
    expect(activations.map((record) => record.storePath)).toEqual([app.storePath, leaf.storePath]);
    await agent.stop();
  });

  test("that may not be activated fails before anything is recorded", async () => {
    const agent = startAgent();
    const peer = await admit();
    peer.send(offer({ mode: "boot" }));
    expect(outcomeOf(await takeDeployment(peer))).toMatchObject({
      outcome: "failed",
      reason: `Cannot activate ${app.storePath}: it is a plain package, which has no mode boot.`,
    });
    expect([activations, await readRecord(directory.join("state"))]).toEqual([[], null]);
    await agent.stop();
  });

  test("of a version that failed here by its own fault is not even fetched, until a person wants it", async () => {
    const agent = startAgent();
    const peer = await admit();
    activate = async () => ({ outcome: "rolled-back", reason: "It broke.", exitCode: 1, fault: "version" });
    peer.send(offer());
    expect(outcomeOf(await takeDeployment(peer))).toMatchObject({ outcome: "rolled-back", fault: "version" });
    const requests = cache.requests.length;
    peer.send(offerOf("b", { storePath: app.storePath }));
    const refused = await takeDeployment(peer);
    expect(refused.map(({ type }) => type)).toEqual(["outcome"]);
    expect(outcomeOf(refused)).toMatchObject({
      outcome: "failed",
      reason: expect.stringContaining("nixdeploy retry nuc"),
    });
    expect([activations.length, cache.requests.length]).toEqual([1, requests]);

    activate = async () => SUCCEEDED;
    peer.send(offerOf("c", { storePath: app.storePath, retry: true }));
    expect(outcomeOf(await takeDeployment(peer)).outcome).toBe("succeeded");
    peer.send(offerOf("d", { storePath: app.storePath }));
    expect(outcomeOf(await takeDeployment(peer)).outcome).toBe("succeeded");
    await agent.stop();
  });

  test("cancelled while it is activated asks the supervisor to go back", async () => {
    const agent = startAgent();
    const peer = await admit();
    activate = async (record) => {
      await waitFor("the request", async () => await isCancelRequested(directory.join("state"), record.deploymentId));
      return { outcome: "rolled-back", reason: "A cancel asked to go back.", exitCode: null };
    };
    peer.send(offer());
    await waitFor("the activation", () => activations.length === 1);
    peer.send({ kind: "cancel", deploymentId: offer().deploymentId });
    expect(outcomeOf(await takeDeployment(peer)).outcome).toBe("rolled-back");
    await waitFor("the record to go", async () =>
      (await stateFiles()).every((name) => !name.startsWith("activation.j")),
    );
    expect(await stateFiles()).not.toContain("activation-cancel");
    await agent.stop();
  });
});

describe("a restart", () => {
  test("in the middle of a fetch goes on with it, without a new offer", async () => {
    const first = startAgent();
    const peer = await admit();
    cache.decide = ({ path }) => (path.includes(narInfoOf(app, KEY).url) ? { status: 503 } : null);
    peer.send(offer());
    await waitFor("the leaf", () => daemon.valid.has(leaf.storePath));
    await first.stop();
    cache.decide = () => null;
    const second = startAgent();
    const again = await nextPeer();
    expect((await takeHello(again)).state.inFlight).toBe(offer().deploymentId);
    again.send(welcomeFrame({ publicKeys: [TRUSTED] }));
    const entries = await takeDeployment(again);
    expect(outcomeOf(entries)).toMatchObject({ outcome: "succeeded", fetchedBytes: app.file.length });
    expect(entries.filter((entry) => entry.type === "phase" && entry.phase === "fetching").length).toBe(2);
    await second.stop();
  });

  test("does not wait for an activation in progress; its outcome is delivered by the next start", async () => {
    const first = startAgent();
    const peer = await admit();
    const end = Promise.withResolvers<void>();
    activate = async () => {
      await end.promise;
      return { ...SUCCEEDED, reason: "Done." };
    };
    peer.send(offer());
    await waitFor("the activation", () => activations.length === 1);
    await first.stop();
    expect(peer.isClosed).toBe(true);

    const second = startAgent();
    const again = await nextPeer();
    expect((await takeHello(again)).state.inFlight).toBe(offer().deploymentId);
    again.send(welcomeFrame({ publicKeys: [TRUSTED] }));
    again.send(offer());
    end.resolve();
    expect(outcomeOf(await takeDeployment(again)).reason).toBe("Done.");
    expect(activations.length).toBe(1);
    await second.stop();
  });

  test("after a kill in the middle of an activation activates again, with what was there before", async () => {
    const before = leaf.storePath;
    profile = before;
    const first = startAgent();
    const peer = await admit();
    // The disk as a kill leaves it: the journal ends with the phase.
    const stuck = Promise.withResolvers<never>();
    activate = () => stuck.promise;
    peer.send(offer());
    await waitFor("the activation", () => activations.length === 1);
    await cp(directory.join("state"), directory.join("copy"), { recursive: true });
    profile = app.storePath;
    activate = async () => SUCCEEDED;
    const second = startAgent({
      stateDirectory: directory.join("copy"),
      profilePath: directory.join("profiles", "copy"),
    });
    const again = await admit();
    const entries = await takeDeployment(again);
    expect(outcomeOf(entries)).toMatchObject({ outcome: "succeeded", previousPath: before });
    expect(activations[1]).toMatchObject({ previous: { profile: before } });
    await second.stop();
    stuck.reject(new Error("over"));
    await first.stop();
  });

  test("of the coordinator: everything unacknowledged is sent again, in order, once it is back", async () => {
    const agent = startAgent();
    const peer = await admit();
    const end = Promise.withResolvers<void>();
    activate = async (_, journal) => {
      for (let index = 0; index < 5_000; index += 1) await journal.log("out", `line ${index}`);
      await end.promise;
      return { ...SUCCEEDED, reason: "Done." };
    };
    peer.send(offer());
    // One report is acknowledged, what follows is lost with the connection.
    const first = await peer.expect("report");
    peer.send({ kind: "acknowledge", deploymentId: first.deploymentId, through: first.entries.length });
    await peer.expect("report");
    peer.close();
    end.resolve();
    const again = await admit();
    const report = await again.expect("report");
    expect(report.entries[0]?.n).toBe(first.entries.length + 1);
    const texts: string[] = [];
    let through = first.entries.length;
    const take = (frame: Extract<AgentFrame, { kind: "report" }>) => {
      for (const entry of frame.entries) {
        expect(entry.n).toBe(through + 1);
        through = entry.n;
        texts.push(entry.type === "log" ? entry.text : entry.type);
      }
      again.send({ kind: "acknowledge", deploymentId: frame.deploymentId, through });
    };
    take(report);
    while (texts.at(-1) !== "outcome") take(await again.expect("report"));
    expect(texts.slice(-2)).toEqual(["line 4999", "outcome"]);
    await agent.stop();
  });
});
