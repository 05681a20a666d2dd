/** The agent's side: what it refuses, whom it starts and how often, and what is left when it is over or begun again. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { type ActivationsDeps, createActivations } from "../../../src/agent/activation/activations.ts";
import { readRecord, removeRecord, STAGES, type Stage, writeRecord } from "../../../src/agent/activation/record.ts";
import { openDeploymentJournal } from "../../../src/agent/journal/deployment-folder.ts";
import { type DeploymentStore, openDeploymentStore } from "../../../src/agent/journal/deployment-store.ts";
import type { Journal } from "../../../src/agent/journal/journal.ts";
import { tryLockFile } from "../../../src/agent/machine/flock.ts";
import { describeError } from "../../../src/errors.ts";
import type { HealthCheck } from "../../../src/health-check.ts";
import { silentLogger } from "../../../src/log.ts";
import type { DeploymentId } from "../../../src/names.ts";
import type { Offer } from "../../../src/protocol.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { actAs, simulateDisk } from "../../support/simulated-files.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { storePathFor } from "../../support/tiny-path.ts";
import { createVirtualClock } from "../../support/virtual-clock.ts";
import { deploymentIdOf, offerOf } from "../offers.ts";
import { BOOT_ID, NEW, NEW_GAMING, OLD, OLD_GAMING, recordOf } from "./records.ts";

const FACTS = { previousPath: OLD, fetchedBytes: 1, exitCode: 0, phaseMs: {} };
const OUTCOME = { outcome: "succeeded", reason: "It is live.", ...FACTS } as const;
const ROLLED_BACK = { outcome: "rolled-back", reason: "It broke.", fault: "version" } as const;
const DEFAULTS = { periodSeconds: 2, timeoutSeconds: 10 };
const NIXOS = new Set(["nixos-version"]);
const IN_GAMING: Partial<ActivationsDeps> = {
  readCurrentSystem: async () => OLD_GAMING,
  findSpecialisation: async (current) => (current === OLD_GAMING ? { base: OLD, name: "gaming" } : null),
};

let directory: TemporaryDirectory;
let store: DeploymentStore;
let launches: number;
let launch: () => Promise<void>;
let uptimeMs: number;

beforeEach(async () => {
  directory = await createTemporaryDirectory("activations");
  store = await openDeploymentStore({ stateDirectory: directory.path, clock: createVirtualClock(), followed: null });
  launches = 0;
  launch = () => finish();
  uptimeMs = 1_000;
});
afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

const begin = (changes: Partial<Offer> = {}) => store.begin(offerOf("a", { storePath: NEW, ...changes }));
const request = (journal: Journal) => ({ journal, previousProfile: OLD, fetchedBytes: 5 });
const never = () => new AbortController().signal;

function createSubject(changes: Partial<ActivationsDeps> = {}) {
  const { agentName, coordinatorUrl } = recordOf();
  return createActivations({
    config: { name: agentName, coordinatorUrl, profilePath: "/profiles/test", stateDirectory: directory.path },
    environment: { LANG: "C.UTF-8" },
    launch: async () => {
      launches += 1;
      await launch();
    },
    agentUnit: async () => null,
    hasUnit: async () => false,
    readCurrentSystem: async () => OLD,
    readCurrentHome: async () => null,
    isRoot: true,
    readNames: async () => NIXOS,
    readOwnHealthChecks: async () => [],
    readFailedUnits: async () => ["old.service"],
    platform: "x86_64-linux",
    readPlatform: async () => "x86_64-linux",
    findSpecialisation: async () => null,
    resolveSpecialisation: async () => null,
    bootClock: { read: async () => ({ bootId: BOOT_ID, uptimeMs }) },
    clock: createVirtualClock(),
    logger: silentLogger,
    ...changes,
  });
}

/** A supervisor that is quick. */
async function finish(end: Partial<typeof ROLLED_BACK> = {}): Promise<void> {
  const record = (await readRecord(directory.path)) ?? recordOf();
  const clock = createVirtualClock();
  const { outcome, reason } = { ...OUTCOME, ...end };
  await writeRecord(directory.path, { ...record, stage: "finished", outcome, reason, fault: end.fault ?? null });
  await using opened = await openDeploymentJournal({ ...record, stateDirectory: directory.path, clock });
  await opened.journal.finish({ ...OUTCOME, ...end });
}

describe("an activation that may begin", () => {
  test("is on record with everything that an undo must know", async () => {
    const policy = { onUnitFailure: "keep", confirmWindowMs: 5_000, activationTimeoutMs: 6_000 } as const;
    const journal = await begin({ policy });
    expect(await createSubject().begin(request(journal))).toBeNull();
    expect(await readRecord(directory.path)).toEqual(
      recordOf({
        ...{ policy, fetchedBytes: 5, healthChecks: [] },
        previous: { profile: OLD, current: OLD, failedUnits: ["old.service"] },
      }),
    );
    expect(await createSubject().pending()).toBe(journal.offer.deploymentId);
  });

  test("has the variant of the new system on record where a specialisation runs, except for the next boot", async () => {
    const deps = { ...IN_GAMING, resolveSpecialisation: async () => NEW_GAMING };
    await createSubject(deps).begin(request(await begin()));
    expect((await readRecord(directory.path))?.specialisation).toEqual({ name: "gaming", path: NEW_GAMING });
    await removeRecord(directory.path);
    const forBoot = await store.begin(offerOf("b", { storePath: NEW, mode: "boot" }));
    for (const resolveSpecialisation of [deps.resolveSpecialisation, async () => null]) {
      expect(await createSubject({ ...IN_GAMING, resolveSpecialisation }).begin(request(forBoot))).toBeNull();
      expect((await readRecord(directory.path))?.specialisation).toBeUndefined();
    }
  });

  test("has the device's defaults where the offer says nothing", async () => {
    await createSubject().begin(request(await begin()));
    const policy = { onUnitFailure: "rollback", confirmWindowMs: 60_000, activationTimeoutMs: 1_800_000 } as const;
    expect((await readRecord(directory.path))?.policy).toEqual(policy);
  });

  test("has the confirm window of the device's own configuration, unless the offer has one", async () => {
    const { agentName: name, coordinatorUrl } = recordOf();
    const places = { profilePath: "/profiles/test", stateDirectory: directory.path };
    const config = { name, coordinatorUrl, ...places, confirmWindowMs: 300_000 };
    const own = await begin();
    expect(createSubject({ config }).confirmWindowMs(own.offer)).toBe(300_000);
    await createSubject({ config }).begin(request(own));
    expect((await readRecord(directory.path))?.policy.confirmWindowMs).toBe(300_000);
    await removeRecord(directory.path);
    const policy = { confirmWindowMs: 5_000 };
    const asked = await store.begin(offerOf("b", { storePath: NEW, policy }));
    expect(createSubject({ config }).confirmWindowMs(asked.offer)).toBe(5_000);
    await createSubject({ config }).begin(request(asked));
    expect((await readRecord(directory.path))?.policy.confirmWindowMs).toBe(5_000);
  });

  test("has its agent's unit as the prover where a service manager runs it", async () => {
    const agentUnit = async () => "nixdeploy-agent-nuc.service";
    await createSubject({ agentUnit, hasUnit: async () => true }).begin(request(await begin()));
    expect((await readRecord(directory.path))?.prover).toEqual({ kind: "agent", unit: "nixdeploy-agent-nuc.service" });
  });

  test("has the health checks of the offer and of the device, with their defaults", async () => {
    const ssh = { name: "ssh", kind: "tcp", port: 22 };
    const own: HealthCheck[] = [{ ...DEFAULTS, name: "own", kind: "command", command: ["/bin/check", "-x"] }];
    const journal = await begin({ healthChecks: [ssh] });
    await createSubject({ readOwnHealthChecks: async () => own }).begin(request(journal));
    const healthChecks = [{ ...DEFAULTS, ...ssh, host: "127.0.0.1" }, ...own];
    expect((await readRecord(directory.path))?.healthChecks).toEqual(healthChecks);
  });

  describe("without its agent's unit, when that is allowed,", () => {
    const AGENT = "nixdeploy-agent-nuc.service";
    const allowed = { policy: { allowAgentRemoval: true } };
    const recordFor = async (hasUnit: ActivationsDeps["hasUnit"]) => {
      const subject = createSubject({ agentUnit: async () => AGENT, hasUnit });
      expect(await subject.begin(request(await begin(allowed)))).toBeNull();
      return await readRecord(directory.path);
    };

    test("has the supervisor as its prover, and the unit to come back to", async () => {
      const record = await recordFor(async () => false);
      expect(record).toMatchObject({ prover: { kind: "supervisor" }, removedAgentUnit: AGENT });
      expect(record?.policy.allowAgentRemoval).toBe(true);
    });

    test("or without the undo unit alone: then the agent still proves it", async () => {
      const record = await recordFor(async (_system, unit) => unit === AGENT);
      expect(record).toMatchObject({ prover: { kind: "agent", unit: AGENT } });
      expect(record?.removedAgentUnit).toBeUndefined();
    });

    test("or with both: nothing is different", async () => {
      const record = await recordFor(async () => true);
      expect(record).toMatchObject({ prover: { kind: "agent", unit: AGENT } });
      expect(record?.removedAgentUnit).toBeUndefined();
    });
  });

  test("hands over what the journal has gathered", async () => {
    await store[Symbol.asyncDispose]();
    // On this clock nothing is written by itself.
    store = await openDeploymentStore({ stateDirectory: directory.path, clock: createManualClock(), followed: null });
    const journal = await begin();
    await journal.log("agent", "gathered");
    await createSubject().begin(request(journal));
    expect(journal.durable.n).toBe(1);
  });
});

describe("of Home Manager", () => {
  const home: Partial<ActivationsDeps> = {
    readNames: async () => new Set(["hm-version"]),
    agentUnit: async (type) => (type === "home-manager" ? "nixdeploy-agent-nuc.service" : null),
    environment: { HOME: "/home/ada", LANG: "C.UTF-8", DRY_RUN: "1" },
  };

  test("the way back leads to the generation that is live, or else to what the profile names", async () => {
    const live = storePathFor("live");
    await createSubject({ ...home, readCurrentHome: async () => live }).begin(request(await begin()));
    expect((await readRecord(directory.path))?.previous).toMatchObject({ profile: OLD, current: live });
    await removeRecord(directory.path);
    await createSubject(home).begin(request(store.journals[0] ?? (await begin())));
    expect((await readRecord(directory.path))?.previous).toMatchObject({ profile: OLD, current: OLD });
  });

  for (const hasUnit of [true, false]) {
    test(`a generation ${hasUnit ? "with" : "without"} the agent's unit is proved by ${hasUnit ? "the agent" : "the supervisor"}`, async () => {
      await createSubject({ ...home, hasUnit: async () => hasUnit }).begin(request(await begin()));
      expect((await readRecord(directory.path))?.prover.kind).toBe(hasUnit ? "agent" : "supervisor");
    });
  }

  test("programs get what a login would have set, and no dry run", async () => {
    await createSubject(home).begin(request(await begin()));
    const environment = (await readRecord(directory.path))?.environment;
    expect(environment).toMatchObject({ HOME: "/home/ada", LANG: "C.UTF-8", USER: userInfo().username });
    expect(environment).not.toContainKey("DRY_RUN");
  });
});

describe("an activation is refused, and leaves no record,", () => {
  const cases: readonly (readonly [string, Partial<ActivationsDeps>, Partial<Offer>, string])[] = [
    ["without a system to go back to", { readCurrentSystem: async () => null }, {}, "could go back to"],
    ["without the agent's unit", { agentUnit: async () => "nixdeploy-agent-nuc.service" }, {}, "agent's unit"],
    [
      "and names the flag",
      { agentUnit: async () => "nixdeploy-agent-nuc.service" },
      {},
      "(--allow-agent-removal takes",
    ],
    [
      "in a mode that its type does not know",
      { readNames: async () => new Set(["bin"]) },
      { mode: "test" },
      "no mode test",
    ],
    ["for another platform", { readPlatform: async () => "aarch64-linux" }, {}, "a system for aarch64-linux"],
    ["without the specialisation that runs", IN_GAMING, {}, "runs the specialisation gaming, which"],
    [
      "whose specialisation lacks the undo unit",
      {
        ...IN_GAMING,
        resolveSpecialisation: async () => NEW_GAMING,
        agentUnit: async () => "nixdeploy-agent-nuc.service",
        hasUnit: async (system, unit) => system === NEW || unit === "nixdeploy-agent-nuc.service",
      },
      {},
      "its specialisation gaming does not contain the unit nixdeploy-undo-nuc.service",
    ],
    [
      "with a check of units where systemd does not run",
      { readFailedUnits: async () => null },
      { healthChecks: [{ name: "web", kind: "units", units: ["web.service"] }] },
      "the health check web asks for units, and systemd does not run here",
    ],
    ["that only root may do", { readNames: async () => new Set(["darwin-version"]), isRoot: false }, {}, "only root"],
  ];
  for (const [name, changes, offer, words] of cases) {
    test(name, async () => {
      const refusal = await createSubject(changes).begin(request(await begin(offer)));
      expect(refusal).toStartWith(`Cannot activate ${NEW}: `);
      expect(refusal).toContain(words);
      expect(refusal).toEndWith(".");
      expect(await readRecord(directory.path)).toBeNull();
    });
  }

  for (const [what, check, words] of [
    ["of a kind that is not known", { name: "later", kind: "dns" }, '("later")'],
    ["that names a program of the device", { name: "sh", kind: "command", command: ["/bin/sh"] }, "of a store path"],
  ] as const) {
    test(`with a health check ${what}`, async () => {
      const beginning = createSubject().begin(request(await begin({ healthChecks: [check] })));
      await expect(beginning).rejects.toThrow(words);
      expect(await readRecord(directory.path)).toBeNull();
    });
  }

  test("when its type is not that of the profile", async () => {
    const readNames: ActivationsDeps["readNames"] = async (path) => (path === OLD ? new Set(["bin"]) : NIXOS);
    expect(await createSubject({ readNames }).begin(request(await begin()))).toContain("a profile keeps its type");
  });

  test("when it cannot be recorded for sure, whichever step fails", async () => {
    using _disk = simulateDisk(directory.path);
    const journal = await begin();
    for (const failing of ["open", "write", "sync activation", "rename", "sync ."]) {
      let hasFailed = false;
      const fail = (step: string) => {
        if (hasFailed || !step.startsWith(failing)) return;
        hasFailed = true;
        throw Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" });
      };
      const beginning = actAs(fail, () => createSubject().begin(request(journal)));
      await expect(beginning).rejects.toThrow("cannot record the activation");
      expect(await readRecord(directory.path)).toBeNull();
    }
  });
});

describe("a supervisor", () => {
  test("is started; its outcome comes back, and the record goes", async () => {
    const journal = await begin();
    const subject = createSubject();
    await subject.begin(request(journal));
    expect(await subject.carry(journal, never())).toMatchObject(OUTCOME);
    // Another one may be started before the outcome is noticed; it finds nothing to do.
    expect(launches).toBeGreaterThanOrEqual(1);
    expect(await readdir(directory.path)).not.toContain("activation.json");
    expect(await subject.pending()).toBeNull();
  });

  test("that dies, or cannot be started, is followed by another", async () => {
    const journal = await begin();
    const subject = createSubject();
    await subject.begin(request(journal));
    launch = async () => {
      if (launches === 2) throw new Error("no processes left");
      if (launches === 4) await finish();
    };
    expect(await subject.carry(journal, never())).toMatchObject(OUTCOME);
    expect(launches).toBeGreaterThanOrEqual(4);
  });

  test("that is slow to take its lock is not joined by one more at every look", async () => {
    const journal = await begin();
    const clock = createVirtualClock();
    const subject = createSubject({ clock });
    await subject.begin(request(journal));
    launch = async () => {};
    const carrying = subject.carry(journal, never());
    await clock.sleep(60_000, never());
    // At once, and after 6, 18 and 42 s, or at the look that follows.
    expect(launches).toBe(4);
    launch = () => finish();
    expect(await carrying).toMatchObject(OUTCOME);
  });

  test("that is at work is left alone", async () => {
    const journal = await begin();
    const clock = createVirtualClock();
    const subject = createSubject({ clock });
    await subject.begin(request(journal));
    const held = tryLockFile(directory.join("activation.lock"));
    const carrying = subject.carry(journal, never());
    await clock.sleep(60_000, never());
    expect(launches).toBe(0);
    held?.[Symbol.dispose]();
    await carrying;
    // Another one may be started before the outcome is noticed; it finds nothing to do.
    expect(launches).toBeGreaterThanOrEqual(1);
  });

  test("whose lock cannot be looked at is no reason to stop following", async () => {
    const journal = await begin();
    const clock = createVirtualClock();
    const subject = createSubject({ clock });
    await subject.begin(request(journal));
    await mkdir(directory.join("activation.lock"));
    const carrying = subject.carry(journal, never());
    await clock.sleep(10_000, never());
    await finish();
    expect(await carrying).toMatchObject(OUTCOME);
    expect(launches).toBe(0);
  });
});

describe("the agent's next start", () => {
  for (const stage of STAGES) {
    test(`in stage ${stage} starts a supervisor, and reports what it says`, async () => {
      const journal = await begin();
      await createSubject().begin(request(journal));
      const record = (await readRecord(directory.path)) ?? recordOf();
      await writeRecord(directory.path, { ...record, stage });
      await store[Symbol.asyncDispose]();

      const subject = createSubject();
      const followed = await subject.pending();
      expect(followed).toBe(record.deploymentId);
      store = await openDeploymentStore({ stateDirectory: directory.path, clock: createVirtualClock(), followed });
      const [again] = store.journals;
      if (again === undefined) throw new Error("the journal is gone");
      expect(await subject.carry(again, never())).toMatchObject(OUTCOME);
      expect(launches).toBeGreaterThanOrEqual(1);
      expect(await readRecord(directory.path)).toBeNull();
    });
  }

  test("with the outcome in the journal only removes the record", async () => {
    const journal = await begin();
    const subject = createSubject();
    await subject.begin(request(journal));
    await finish();
    await store[Symbol.asyncDispose]();
    const followed = await subject.pending();
    store = await openDeploymentStore({ stateDirectory: directory.path, clock: createVirtualClock(), followed });
    const [again] = store.journals;
    expect(await subject.carry(again ?? journal, never())).toMatchObject(OUTCOME);
    expect([launches, await readRecord(directory.path)]).toEqual([0, null]);
  });

  test("forgets a finished one of which the coordinator has everything, and keeps an unfinished one", async () => {
    await writeRecord(directory.path, recordOf({ stage: "finished", outcome: "succeeded", reason: "It is live." }));
    expect(await createSubject().pending()).toBeNull();
    await writeRecord(directory.path, recordOf({ stage: "activating" }));
    expect(await createSubject().pending()).toBe(recordOf().deploymentId);
  });

  test("with a record that nobody can read says so", async () => {
    await writeFile(directory.join("activation.json"), "{");
    await expect(createSubject().pending()).rejects.toThrow("cannot read the record of an activation");
  });

  test("does not wait for the supervisor when the agent ends", async () => {
    const journal = await begin();
    const subject = createSubject();
    await subject.begin(request(journal));
    launch = async () => {};
    const stop = new AbortController();
    const carrying = subject.carry(journal, stop.signal);
    stop.abort(new Error("stopped"));
    await expect(carrying).rejects.toThrow("stopped");
    expect(await subject.pending()).toBe(journal.offer.deploymentId);
  });
});

describe("a version that failed here by its own fault", () => {
  /** Up to its outcome, and an agent that has not noticed yet. */
  async function fail(): Promise<Journal> {
    launch = async () => {};
    const journal = await begin();
    await createSubject().begin(request(journal));
    await finish(ROLLED_BACK);
    return journal;
  }

  test("is refused from then on, with when and why, until a person wants it", async () => {
    await createSubject().carry(await fail(), never());
    const offer = offerOf("b", { storePath: NEW });
    const refusal = await createSubject().refuse(offer);
    expect(refusal).toMatch(/^Not tried again: this version was rolled back on this device at \d{4}-\d\d-\d\d \d\d:/);
    expect(refusal).toContain("It broke. To try it all the same: nixdeploy retry nuc, or activate --retry");
    expect(await createSubject().refuse({ ...offer, storePath: OLD })).toBeNull();
    // It touches nothing, so it may say what would be done.
    expect(await createSubject().refuse({ ...offer, mode: "dry-activate" })).toBeNull();
    expect(await createSubject().refuse({ ...offer, retry: true })).toBeNull();
    expect(await createSubject().refuse(offer)).toBeNull();
  });

  test("is refused too when the agent is killed at any step behind the outcome, and the coordinator has it all", async () => {
    using disk = simulateDisk(directory.path);
    for (let step = 1, isOver = false; !isOver; step += 1) {
      for (const isReported of [false, true]) {
        await removeRecord(directory.path);
        await rm(directory.join("quarantine.json"), { force: true });
        const journal = await fail();
        const id = journal.offer.deploymentId;
        let count = 0;
        const killed = (_operation: string) => {
          count += 1;
          if (count >= step) throw new Error("killed");
        };
        await actAs(killed, () => createSubject().carry(journal, never())).catch(() => {});
        isOver = count < step;
        if (step % 2 === 0) {
          await store[Symbol.asyncDispose]();
          disk.cutPower({ isStrict: true, fraction: () => 0 });
          store = await reopen(id);
        }
        if (isReported) await store.acknowledge(id, 1_000);
        await store[Symbol.asyncDispose]();

        const subject = createSubject();
        const followed = await subject.pending();
        store = await reopen(followed);
        const again = followed === null ? null : store.find(followed);
        if (again !== null) await subject.carry(again, never());
        const refusal = await createSubject().refuse(offerOf("b", { storePath: NEW }));
        expect({ step, isReported, refusal }).toEqual({
          step,
          isReported,
          refusal: expect.stringContaining("It broke."),
        });
        expect(await readRecord(directory.path)).toBeNull();
        await store.acknowledge(id, 1_000);
      }
    }
  });

  function reopen(followed: DeploymentId | null): Promise<DeploymentStore> {
    return openDeploymentStore({ stateDirectory: directory.path, clock: createVirtualClock(), followed });
  }
});

describe("a proof is given", () => {
  const prover = { kind: "agent", unit: "nixdeploy-agent-nuc.service" } as const;
  const windowMs = recordOf().policy.confirmWindowMs;
  const confirming = recordOf({ stage: "confirming", prover, deadlineUptimeMs: 5_000 + windowMs });
  const proof = { deploymentId: confirming.deploymentId, by: "agent" } as const;

  for (const [name, record, startedMs, expected] of [
    ["by an agent that began with the window", confirming, 5_000, proof],
    ["by no agent that began before", confirming, 4_999, null],
    ["by no agent of another boot", { ...confirming, bootId: "boot-0" }, 5_000, null],
    ["in no other stage", { ...confirming, stage: "committing" }, 5_000, null],
    ["where the agent is the prover", { ...confirming, prover: { kind: "supervisor" } }, 5_000, null],
  ] as const) {
    test(name, async () => {
      uptimeMs = startedMs;
      await writeRecord(directory.path, record);
      expect(await createSubject().proofToGive()).toEqual(expected);
    });
  }

  test("for nothing when there is no record", async () => {
    expect(await createSubject().proofToGive()).toBeNull();
  });
});

describe("in the way of others is", () => {
  const other = async (stage: Stage, isOver: boolean) => {
    const journal = await begin();
    await writeRecord(directory.path, recordOf({ stage }));
    if (isOver) await journal.finish(OUTCOME);
  };
  /** Tells at the first look. */
  const tryToBegin = async () => {
    const onWait = async (id: DeploymentId) => {
      throw new Error(`${id} is in the way`);
    };
    const turn = { deploymentId: deploymentIdOf("b"), signal: never(), onWait };
    return await createSubject()
      .inTurn(turn, async () => "free")
      .catch(describeError);
  };
  const cases = [
    ["one that goes on", "confirming", false, true],
    ["one whose outcome the disk has not taken yet", "finished", false, true],
    ["none that was told to have failed before it was on record for sure", "checking", true, false],
    ["none that is over", "finished", true, false],
  ] as const;
  for (const [what, stage, isOver, isInTheWay] of cases) {
    test(what, async () => {
      await other(stage, isOver);
      expect(await tryToBegin()).toBe(isInTheWay ? `${recordOf().deploymentId} is in the way` : "free");
      expect((await readRecord(directory.path)) !== null).toBe(isInTheWay);
    });
  }

  test("none whose journal the coordinator has", async () => {
    await writeRecord(directory.path, recordOf({ stage: "finished", outcome: "succeeded", reason: "It is live." }));
    expect(await tryToBegin()).toBe("free");
    expect(await readRecord(directory.path)).toBeNull();
  });
});

test("nobody proves by a login what was started at the machine; its agent's unit is started again if there is one", async () => {
  const agentUnit = async () => "nixdeploy-agent-nuc.service";
  for (const [hasUnit, unit] of [
    [async () => true, "nixdeploy-agent-nuc.service"],
    [async () => false, null],
  ] as const) {
    const subject = createSubject({ agentUnit, hasUnit });
    const journal = store.journals[0] ?? (await begin());
    expect(await subject.begin({ ...request(journal), proof: "none" })).toBeNull();
    expect((await readRecord(directory.path))?.prover).toEqual({ kind: "none", unit });
  }
  // But what the machine has must not be lost.
  const hasUnit: ActivationsDeps["hasUnit"] = async (system) => system === OLD;
  const journal = store.journals[0] ?? (await begin());
  const refusal = await createSubject({ agentUnit, hasUnit }).begin({ ...request(journal), proof: "none" });
  expect(refusal).toContain("does not contain this agent's unit");
});
