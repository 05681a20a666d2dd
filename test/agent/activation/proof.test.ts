/** The confirm window: who may prove what, until when, and what else must agree. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { renameSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { awaitProof, type ProofDeps, recordProof } from "../../../src/agent/activation/proof.ts";
import { type ActivationRecord, requestCancel } from "../../../src/agent/activation/record.ts";
import type { HealthSenses } from "../../../src/agent/health/health-probe.ts";
import type { ProgramExit, RunProgramOptions } from "../../../src/agent/machine/process.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { createVirtualClock } from "../../support/virtual-clock.ts";
import { exited } from "./model-machine.ts";
import { BOOT_ID, NEW, OLD, recordOf, SCRIPT } from "./records.ts";

const WINDOW_MS = 60_000;
/** Of the agent's unit as the new system started it. */
const PROCESS_ID = 77;
const AGENT = { kind: "agent", unit: "nixdeploy-agent-nuc.service" } as const;

let directory: TemporaryDirectory;
let clock: ReturnType<typeof createVirtualClock>;
let logins: number;
let login: (signal: AbortSignal) => Promise<boolean>;
let programs: RunProgramOptions[];
let scriptExit: ProgramExit;
let trouble: string | null;
let failedNow: string[] | null;
let senses: HealthSenses;

beforeEach(async () => {
  directory = await createTemporaryDirectory("proof");
  clock = createVirtualClock();
  logins = 0;
  login = async () => true;
  programs = [];
  scriptExit = exited(0);
  trouble = null;
  failedNow = [];
  senses = {
    readUnitStates: async () => null,
    connect: async () => {},
    readStatus: async () => 200,
  };
});
afterEach(async () => {
  await directory[Symbol.asyncDispose]();
});

function depsOf(changes: Partial<ActivationRecord>, signal = new AbortController().signal): ProofDeps {
  const record = recordOf({ stage: "confirming", deadlineUptimeMs: WINDOW_MS, ...changes });
  const never = async () => {
    throw new Error("not asked for in this stage");
  };
  return {
    ...{ record, clock, signal, stateDirectory: directory.path, trouble },
    mainProcess: async () => PROCESS_ID,
    healthSenses: senses,
    random: { bytes: (length) => new Uint8Array(length), fraction: () => 0.5 },
    bootClock: { read: async () => ({ bootId: BOOT_ID, uptimeMs: Math.round(clock.monotonicMs()) }) },
    loginAsSupervisor: async (loginSignal) => {
      logins += 1;
      return await login(loginSignal);
    },
    driverDeps: {
      ...{ record, clock, readProfilePath: never, readCurrentSystem: never, readNames: never, hasUnit: never },
      boot: { readBootedSystem: never, readUnproved: never, readInhibitors: never, findBootLoader: never },
      readFailedUnits: async () => failedNow,
      log: async () => {},
      run: async (program) => {
        programs.push(program);
        return scriptExit;
      },
    },
  };
}

describe("a visit, where it was started from afar", () => {
  const VISITED = { prover: { kind: "none", unit: null, awaitsVisit: true } } as const;

  test("is the proof; without one it is bad at the end of the window, and nothing else was wrong", async () => {
    expect(await awaitProof(depsOf(VISITED))).toEqual({
      kind: "bad",
      reason: "the new version did not prove itself within 60 s: nobody has come back in to confirm it",
      exitCode: null,
      cause: "unconfirmed",
    });
    expect(logins).toBe(0);
    clock = createVirtualClock();
    const { deploymentId } = recordOf({});
    await recordProof(directory.path, { deploymentId, bootId: BOOT_ID, processId: 1 });
    expect(await awaitProof(depsOf(VISITED))).toEqual({ kind: "good", exitCode: null });
  });

  test("of another activation or another boot counts for nothing", async () => {
    const { deploymentId } = recordOf({});
    for (const proof of [
      { deploymentId: "0000000000000000", bootId: BOOT_ID },
      { deploymentId, bootId: "another" },
    ]) {
      await recordProof(directory.path, { ...proof, processId: 1 });
      clock = createVirtualClock();
      expect((await awaitProof(depsOf(VISITED))).kind).toBe("bad");
    }
  });
});

describe("the supervisor's login", () => {
  test("that the coordinator takes is the proof", async () => {
    expect(await awaitProof(depsOf({}))).toEqual({ kind: "good", exitCode: null });
    expect([logins, clock.monotonicMs()]).toEqual([1, 0]);
  });

  test("is tried until it works", async () => {
    login = async () => {
      if (clock.monotonicMs() < 20_000) throw new Error("ECONNREFUSED");
      return true;
    };
    expect((await awaitProof(depsOf({}))).kind).toBe("good");
    expect(logins).toBeGreaterThan(3);
  });

  for (const [name, give, words, cause] of [
    ["fails", () => Promise.reject(new Error("ECONNREFUSED")), "ECONNREFUSED", { cause: "unconfirmed" }],
    ["is no proof", () => Promise.resolve(false), "the coordinator does not see the new version here", {}],
  ] as const) {
    test(`that ${name} up to the end of the window is bad, and says why`, async () => {
      login = give;
      const end = await awaitProof(depsOf({}));
      expect(end).toEqual({
        kind: "bad",
        reason: `the new version did not prove itself within 60 s: ${words}`,
        exitCode: null,
        ...cause,
      });
      expect(clock.monotonicMs()).toBe(WINDOW_MS);
    });
  }

  test("that hangs is stopped at the end of the window", async () => {
    login = (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    const end = await awaitProof(depsOf({}));
    expect(end).toMatchObject({ kind: "bad", reason: expect.stringContaining("within 60 s") });
    expect(clock.monotonicMs()).toBeLessThan(WINDOW_MS + 1_000);
  });

  test("is not tried when the window is over, or was never opened", async () => {
    for (const deadlineUptimeMs of [0, null]) {
      expect((await awaitProof(depsOf({ deadlineUptimeMs }))).kind).toBe("bad");
    }
    expect(logins).toBe(0);
  });
});

describe("a missing confirmation is not all that is wrong", () => {
  const silent = () => Promise.reject(new Error("ECONNREFUSED"));
  const causeOf = async (changes: Partial<ActivationRecord>) => {
    const end = await awaitProof(depsOf(changes));
    return end.kind === "bad" ? (end.cause ?? "version") : end.kind;
  };

  test("when the agent's unit did not start, a unit fails or has failed, or an unfit login came through", async () => {
    login = silent;
    expect([await causeOf({}), await causeOf({ prover: AGENT })]).toEqual(["unconfirmed", "unconfirmed"]);
    expect(await causeOf({ unitsFailed: true })).toBe("version");
    failedNow = ["new.service"];
    expect(await causeOf({})).toBe("version");
    failedNow = [];
    trouble = "nixdeploy-agent-nuc.service did not start";
    expect(await causeOf({ prover: AGENT })).toBe("version");
    trouble = null;
    let isFirst = true;
    login = async () => {
      if (!isFirst) return await silent();
      isFirst = false;
      return false;
    };
    expect(await causeOf({ deadlineUptimeMs: Math.round(clock.monotonicMs()) + WINDOW_MS })).toBe("version");
  });

  test("when a unit that failed before the activation still does, it is", async () => {
    login = silent;
    failedNow = ["old.service"];
    const previous = { profile: OLD, current: OLD, failedUnits: ["old.service"] };
    expect(await causeOf({ previous })).toBe("unconfirmed");
  });
});

test("a cancel ends the wait", async () => {
  await requestCancel(directory.path, recordOf().deploymentId);
  await rename(directory.join("activation-cancel"), directory.join("later"));
  login = async () => {
    if (logins === 3) renameSync(directory.join("later"), directory.join("activation-cancel"));
    return false;
  };
  expect(await awaitProof(depsOf({}))).toMatchObject({ kind: "bad", reason: "a cancel asked to go back" });
  expect(clock.monotonicMs()).toBeLessThan(WINDOW_MS);
});

for (const prover of [{ kind: "supervisor" }, AGENT, { kind: "none", unit: null }] as const) {
  test(`a cancel is no fault of the version, where the prover is ${prover.kind}`, async () => {
    login = async () => false;
    await requestCancel(directory.path, recordOf().deploymentId);
    const reason = "a cancel asked to go back";
    expect(await awaitProof(depsOf({ prover }))).toEqual({ kind: "bad", reason, exitCode: null, cause: "elsewhere" });
  });
}

test("the end of the supervisor ends the wait, without a verdict", async () => {
  const stop = new AbortController();
  login = async () => {
    stop.abort(new Error("stopped"));
    throw new Error("the socket was closed");
  };
  await expect(awaitProof(depsOf({}, stop.signal))).rejects.toThrow("stopped");
});

describe("the agent's proof", () => {
  const { deploymentId } = recordOf();

  test("counts, and nobody else logs in", async () => {
    await recordProof(directory.path, { deploymentId, bootId: BOOT_ID, processId: PROCESS_ID });
    expect((await awaitProof(depsOf({ prover: AGENT }))).kind).toBe("good");
    expect(logins).toBe(0);
  });

  const texts: Readonly<Record<string, string>> = {
    "of another boot": JSON.stringify({ deploymentId, bootId: "boot-0", processId: PROCESS_ID }),
    "of another deployment": JSON.stringify({
      deploymentId: "b000000000000000",
      bootId: BOOT_ID,
      processId: PROCESS_ID,
    }),
    "that is torn": '{"deploymentId":',
    "that is empty": "",
    "of another shape": "[1]",
  };
  for (const [name, text] of Object.entries(texts)) {
    test(`${name} does not count`, async () => {
      await writeFile(directory.join("proof.json"), text);
      const end = await awaitProof(depsOf({ prover: AGENT }));
      expect(end).toMatchObject({ kind: "bad", reason: expect.stringContaining("nobody has logged in from it") });
    });
  }
});

test("the agent's proof of another process than its unit's does not count, and the reason says so", async () => {
  const { deploymentId } = recordOf();
  await recordProof(directory.path, { deploymentId, bootId: BOOT_ID, processId: PROCESS_ID + 1 });
  const end = await awaitProof(depsOf({ prover: AGENT }));
  expect(end).toMatchObject({ reason: expect.stringContaining("is not the main process of nixdeploy-agent-nuc") });
});

test("an agent's unit that did not start is named", async () => {
  trouble = "nixdeploy-agent-nuc.service did not start";
  const end = await awaitProof(depsOf({ prover: AGENT }));
  expect(end).toMatchObject({ reason: expect.stringContaining("within 60 s: nixdeploy-agent-nuc.service did not") });
});

describe("the rollback script", () => {
  test("that agrees runs with both paths, for as long as the window is open", async () => {
    login = async () => clock.monotonicMs() >= 20_000;
    expect((await awaitProof(depsOf({ rollbackScript: SCRIPT }))).kind).toBe("good");
    const [program] = programs;
    expect(program).toMatchObject({
      command: SCRIPT,
      args: [],
      environment: { LANG: "C.UTF-8", NIXDEPLOY_NEW_PATH: NEW, NIXDEPLOY_OLD_PATH: OLD },
    });
    expect(program?.deadlineMs).toBe(WINDOW_MS - clock.monotonicMs());
  });

  for (const [exit, words] of [
    [exited(7), "ended with code 7"],
    [{ kind: "killed", signal: "SIGSEGV" }, "was ended by SIGSEGV"],
    [{ kind: "timed-out", afterMs: 30_000 }, "did not end within 30 s and was stopped"],
    [{ kind: "not-started", reason: "ENOENT" }, "could not be started (ENOENT)"],
  ] as const) {
    test(`that ${words} says no`, async () => {
      scriptExit = exit;
      const exitCode = exit.kind === "exited" ? exit.code : null;
      const end = await awaitProof(depsOf({ rollbackScript: SCRIPT }));
      expect(end).toEqual({ kind: "bad", reason: `the rollback script ${words}`, exitCode });
    });
  }

  test("is told that there was no version before", async () => {
    const previous = { profile: null, current: null, failedUnits: null };
    await awaitProof(depsOf({ rollbackScript: SCRIPT, type: "plain", previous }));
    expect(programs[0]?.environment).toMatchObject({ NIXDEPLOY_OLD_PATH: "" });
  });
});

describe("health checks", () => {
  const SMOKE = `${SCRIPT}/bin/smoke`;
  const WEB = { name: "web", kind: "http", url: "http://localhost/" };

  test("that hold come before the rollback script, which gets what is left of the window", async () => {
    senses.readStatus = async () => (clock.monotonicMs() < 10_000 ? 503 : 200);
    const healthChecks = [WEB, { name: "smoke", kind: "command", command: [SMOKE, "-x"] }];
    expect((await awaitProof(depsOf({ rollbackScript: SCRIPT, healthChecks }))).kind).toBe("good");
    expect(programs.map(({ command }) => command)).toEqual([SMOKE, SMOKE, SCRIPT]);
    expect(programs[0]).toMatchObject({
      ...{ args: ["-x"], deadlineMs: 10_000 },
      environment: { LANG: "C.UTF-8", NIXDEPLOY_NEW_PATH: NEW, NIXDEPLOY_OLD_PATH: OLD },
    });
    expect(programs[2]?.deadlineMs).toBe(WINDOW_MS - clock.monotonicMs());
  });

  test("are not tried before the login", async () => {
    login = async () => clock.monotonicMs() >= 20_000;
    let triedAtMs = -1;
    senses.connect = async () => {
      triedAtMs = clock.monotonicMs();
    };
    await awaitProof(depsOf({ healthChecks: [{ name: "ssh", kind: "tcp", port: 22 }] }));
    expect(triedAtMs).toBeGreaterThanOrEqual(20_000);
  });

  test("that do not hold say no, with their names", async () => {
    senses.readStatus = async () => 503;
    const end = await awaitProof(depsOf({ healthChecks: [{ ...WEB, attempts: 2 }], rollbackScript: SCRIPT }));
    const words = "http://localhost/ answers with status 503 instead of 200 to 299";
    expect(end).toEqual({ kind: "bad", reason: `the health check web failed (2 tries): ${words}`, exitCode: null });
    expect(programs).toEqual([]);
  });

  test("end with the window, counted from the end of the switch", async () => {
    senses.connect = async () => Promise.reject(new Error("refused"));
    const healthChecks = [{ name: "ssh", kind: "tcp", port: 22 }];
    const end = await awaitProof(depsOf({ healthChecks, deadlineUptimeMs: 7_000 }));
    const reason = expect.stringContaining("the health check ssh did not pass within the confirm window of 60 s (");
    expect(end).toMatchObject({ kind: "bad", reason });
    // How far this clock runs ahead while files are looked at, nobody can say.
    expect(clock.monotonicMs()).toBeGreaterThanOrEqual(7_000);
  });

  test("that this version does not know say no", async () => {
    const end = await awaitProof(depsOf({ healthChecks: [{ name: "later", kind: "dns" }] }));
    expect(end).toMatchObject({
      kind: "bad",
      reason: expect.stringContaining("the health checks cannot be carried out: "),
    });
  });
});

describe("units that fail", () => {
  const previous = { profile: OLD, current: OLD, failedUnits: ["old.service"] };
  const policyOf = (onUnitFailure: "rollback" | "keep") => ({ ...recordOf().policy, onUnitFailure });
  const judge = (policy: "rollback" | "keep") => awaitProof(depsOf({ previous, policy: policyOf(policy) }));

  test("and failed before, or of which nobody tells, do not count", async () => {
    for (const failed of [["old.service"], [], null]) {
      failedNow = failed;
      expect(await judge("rollback")).toEqual({ kind: "good", exitCode: null });
    }
  });

  test("only since the new version are its fault, or kept, as the policy says", async () => {
    failedNow = ["old.service", "new.service"];
    expect(await judge("rollback")).toMatchObject({
      kind: "bad",
      reason: "units fail that did not fail before: new.service",
    });
    expect(await judge("keep")).toMatchObject({ kind: "good", unitsFailed: true });
  });
});
