/**
 * A device gets another key while everything may die: the connection at each frame, the agent at each use of its keys.
 * Afterwards one key is on the disk, and it is the one that the coordinator knows.
 */
import { describe, expect, test } from "bun:test";
import { chmod, readdir, rm, writeFile } from "node:fs/promises";
import { createChangeSignal } from "../../../src/agent/journal/change-signal.ts";
import type { DeploymentStore } from "../../../src/agent/journal/deployment-store.ts";
import { type KeyRing, runConnection } from "../../../src/agent/link/connection.ts";
import { createContact } from "../../../src/agent/link/contact.ts";
import { readEnrolment } from "../../../src/agent/link/enrolment.ts";
import { findKey, findNextKey, loadKeys, prepareNextKey, promoteNextKey } from "../../../src/agent/link/identity.ts";
import { tryLockFile } from "../../../src/agent/machine/flock.ts";
import { rotateAgentKey } from "../../../src/agent/rotate-key.ts";
import { agentListSchema } from "../../../src/api/agents.ts";
import { silentLogger } from "../../../src/log.ts";
import { parseAgentName } from "../../../src/names.ts";
import { machineStateSchema } from "../../../src/protocol.ts";
import { type Clock, systemClock, systemRandom } from "../../../src/runtime.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createCoordinatorDialer } from "../../support/coordinator-dialer.ts";
import { machineState } from "../../support/scripted-agent.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { waitFor } from "../../support/wait-for.ts";

const impatientClock: Clock = {
  ...systemClock,
  sleep: (durationMs, signal) => systemClock.sleep(durationMs <= 15_000 ? Math.min(durationMs, 5) : durationMs, signal),
};

const EMPTY_STORE: DeploymentStore = {
  journals: [],
  changes: createChangeSignal(),
  find: () => null,
  adopt: async () => {},
  begin: () => Promise.reject(new Error("no deployment here")),
  endInMemory: () => Promise.reject(new Error("no deployment here")),
  acknowledge: async () => {},
  [Symbol.asyncDispose]: async () => {},
};

class Killed extends Error {}

/** Counts everything that may fail; at the given count it does, and from then on everything of that agent. */
function createFaults(failAt: number) {
  let count = 0;
  return {
    get happened() {
      return count > failAt;
    },
    next: () => count++ !== failAt,
    isDead: false,
  };
}

type Device = { readonly stateDirectory: string; readonly server: TestCoordinator; readonly token: string };

/** One life of the agent: until it is told to stop, or until its fault kills it. */
function startAgent({ stateDirectory, server, token }: Device, faults = createFaults(Number.POSITIVE_INFINITY)) {
  const stop = new AbortController();
  let looks = 0;
  const use = async <Value>(work: () => Promise<Value>): Promise<Value> => {
    const isBefore = faults.next();
    // Killed before it, or after it: both are tried, by even and odd counts.
    if (!isBefore) stop.abort(new Killed("before"));
    stop.signal.throwIfAborted();
    const value = await work();
    if (!faults.next()) stop.abort(new Killed("after"));
    stop.signal.throwIfAborted();
    return value;
  };
  const keys: KeyRing = {
    load: () => use(() => loadKeys({ stateDirectory, random: systemRandom })),
    findNext: () => {
      looks += 1;
      return findNextKey(stateDirectory);
    },
    promote: () => use(() => promoteNextKey(stateDirectory)),
  };
  const run = async () => {
    const contact = createContact();
    await runConnection({
      coordinatorUrl: "http://coordinator.test",
      name: parseAgentName("nuc"),
      stateDirectory,
      keys,
      enrolment: await readEnrolment(stateDirectory),
      enrolmentToken: token,
      givenPublicKeys: [],
      readFacts: async () => ({
        ...{ agentVersion: "1", system: "x86_64-linux", hostName: "nuc", nixVersion: null, profile: "/p" },
        state: machineStateSchema.parse(machineState(null)),
      }),
      readProof: async () => null,
      isActivating: async () => false,
      onProved: async () => {},
      store: EMPTY_STORE,
      contact,
      handlers: { onOffer: () => {}, onCancel: () => {}, onPins: () => {}, onContactLost: () => {} },
      dial: createCoordinatorDialer(() => server.coordinator, { mayPass: faults.next }),
      clock: impatientClock,
      random: systemRandom,
      logger: silentLogger,
      signal: stop.signal,
    });
  };
  const done = run().catch(() => {
    // Stopped or killed.
  });
  return {
    done,
    /** How often it has looked for a next key. */
    looks: () => looks,
    async stop() {
      stop.abort(new Error("stop"));
      await done;
    },
  };
}

async function registered(server: TestCoordinator) {
  const { agents } = agentListSchema.parse(await (await server.fetch("agents")).json());
  return agents[0];
}

async function makeDevice(server: TestCoordinator, stateDirectory: string): Promise<Device> {
  const device = { stateDirectory, server, token: (await server.createToken("agent")).token };
  const agent = startAgent(device);
  await waitFor("the agent to be registered", async () => (await registered(server))?.contact === "online");
  await agent.stop();
  return device;
}

test("an agent that runs brings a new key to the coordinator within seconds", async () => {
  await using directory = await createTemporaryDirectory("rotation");
  await using server = await createTestCoordinator();
  const device = await makeDevice(server, directory.path);
  const before = (await registered(server))?.keyFingerprint;
  using _held = tryLockFile(directory.join("lock"));
  const agent = startAgent(device);
  const options = { stateDirectory: directory.path, clock: systemClock, random: systemRandom, timeoutMs: 30_000 };
  const rotated = await rotateAgentKey({ ...options, signal: new AbortController().signal });
  expect(rotated.state).toBe("registered");
  expect(rotated.fingerprint).not.toBe(before);
  await waitFor("the connection by the new key", async () => (await registered(server))?.contact === "online");
  expect((await registered(server))?.keyFingerprint).toBe(rotated.fingerprint);
  await agent.stop();
  expect((await readdir(directory.path)).toSorted()).toEqual(["begin.lock", "enrolment.json", "key", "lock"]);
});

test("one that could not read it for a while looks again", async () => {
  await using directory = await createTemporaryDirectory("rotation");
  await using server = await createTestCoordinator();
  const device = await makeDevice(server, directory.path);
  using _held = tryLockFile(directory.join("lock"));
  const agent = startAgent(device);
  await waitFor("the connection", async () => (await registered(server))?.contact === "online");
  await writeFile(directory.join("next-key"), "torn", { mode: 0o600 });
  const before = agent.looks();
  await waitFor("looks at it", () => agent.looks() > before + 3);
  await rm(directory.join("next-key"));
  const options = { stateDirectory: directory.path, clock: systemClock, random: systemRandom, timeoutMs: 30_000 };
  expect(await rotateAgentKey({ ...options, signal: new AbortController().signal })).toMatchObject({
    state: "registered",
  });
  await agent.stop();
});

test("one that does not run does so when it starts", async () => {
  await using directory = await createTemporaryDirectory("rotation");
  await using server = await createTestCoordinator();
  const options = { stateDirectory: directory.path, clock: systemClock, random: systemRandom, timeoutMs: 30_000 };
  const signal = new AbortController().signal;
  await expect(rotateAgentKey({ ...options, signal })).rejects.toThrow("there is none in");
  const device = await makeDevice(server, directory.path);
  const rotated = await rotateAgentKey({ ...options, signal });
  expect(rotated.state).toBe("pending");
  expect(await rotateAgentKey({ ...options, signal })).toEqual(rotated);
  const agent = startAgent(device);
  await waitFor("the new key", async () => (await registered(server))?.keyFingerprint === rotated.fingerprint);
  await waitFor("the agent", async () => (await registered(server))?.contact === "online");
  await agent.stop();
});

test("asked for twice at once, there is one new key", async () => {
  await using directory = await createTemporaryDirectory("rotation");
  const options = { stateDirectory: directory.path, clock: systemClock, random: systemRandom, timeoutMs: 30_000 };
  await loadKeys(options);
  const { signal } = new AbortController();
  const rotated = await Promise.all(Array.from({ length: 4 }, () => rotateAgentKey({ ...options, signal })));
  const next = await findNextKey(directory.path);
  expect(rotated.map(({ fingerprint }) => fingerprint)).toEqual(Array(4).fill(next?.fingerprint));
});

test("whatever dies at whatever moment, one key is left, and it is the one that the coordinator knows", async () => {
  await using directory = await createTemporaryDirectory("rotation");
  await using server = await createTestCoordinator();
  let fault = 0;
  for (; ; fault += 1) {
    await server.fetch("agent-removals", { json: { select: ["nuc"] } });
    const device = await makeDevice(server, directory.join(`state-${fault}`));
    const { fingerprint } = await prepareNextKey({ ...device, random: systemRandom });
    const faults = createFaults(fault);
    const first = startAgent(device, faults);
    await waitFor("the fault, or the end without one", async () => {
      const key = await findKey(device.stateDirectory);
      return faults.happened || (key?.fingerprint === fingerprint && (await registered(server))?.contact === "online");
    });
    await first.stop();
    const second = startAgent(device);
    await waitFor(`the new key after fault ${fault}`, async () => {
      const agent = await registered(server);
      const key = await findKey(device.stateDirectory);
      return agent?.keyFingerprint === fingerprint && key?.fingerprint === fingerprint && agent.contact === "online";
    });
    await second.stop();
    expect(await findNextKey(device.stateDirectory)).toBeNull();
    if (!faults.happened) break;
  }
  // Keys are used before and after, and frames pass both ways.
  expect(fault).toBeGreaterThan(6);
}, 60_000);

describe("a key file that others may read", () => {
  test.each(["key", "next-key"])("%s is refused with the command that mends it", async (file) => {
    await using directory = await createTemporaryDirectory("rotation");
    const options = { stateDirectory: directory.path, random: systemRandom };
    await loadKeys(options);
    await prepareNextKey(options);
    await chmod(directory.join(file), 0o640);
    await expect(loadKeys(options)).rejects.toMatchObject({
      kind: "host",
      message: expect.stringContaining("other users may read it"),
      hint: expect.stringContaining(`chmod 600 ${directory.join(file)}`),
    });
  });
});
