/** What of a machine is told when: changes made by anybody, within the stated time, and nothing else. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { listBootDifferences } from "../../../src/agent/machine/kernel.ts";
import {
  createMachineWatch,
  isNews,
  LOOK_INTERVAL_MS,
  type MachineWatchDeps,
  UNITS_INTERVAL_MS,
} from "../../../src/agent/machine/machine-watch.ts";
import { runSmallProgram } from "../../../src/agent/machine/small-program.ts";
import { silentLogger } from "../../../src/log.ts";
import { FAILED_UNITS_MAX, type MachineState } from "../../../src/protocol.ts";
import { systemClock } from "../../../src/runtime.ts";
import { createManualClock, type ManualClock } from "../../support/manual-clock.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { storePathFor } from "../../support/tiny-path.ts";
import { deploymentIdOf } from "../offers.ts";

const GIB = 1024 ** 3;
const [ONE, TWO] = [storePathFor("one"), storePathFor("two")];
const STATE: MachineState = {
  profilePath: ONE,
  generation: 1,
  currentPath: ONE,
  bootedPath: ONE,
  currentBasePath: null,
  rebootNeeded: [],
  storeFreeBytes: 100 * GIB,
  inFlight: null,
};

let clock: ManualClock;
let state: MachineState;
let failed: readonly string[] | null;
let isConnected: boolean;
let hasRoom: boolean;
let sent: MachineState[];
let asked: number;
let stop: AbortController;
let running: Promise<unknown>;

beforeEach(() => {
  clock = createManualClock();
  [state, failed, isConnected, hasRoom, sent, asked] = [STATE, [], true, true, [], 0];
  stop = new AbortController();
  running = Promise.resolve();
});
afterEach(async () => {
  stop.abort(new Error("the test is over"));
  await running;
});

/** One that has said hello, and is at work. */
async function startWatch(changes: Partial<MachineWatchDeps> = {}) {
  const watch = createMachineWatch({
    readState: async () => state,
    readFailedUnits: async () => {
      asked += 1;
      return failed;
    },
    isConnected: () => isConnected,
    send: (told) => {
      if (hasRoom) sent.push(told);
      return hasRoom;
    },
    clock,
    logger: silentLogger,
    ...changes,
  });
  await watch.tell();
  running = watch.run(stop.signal).catch(() => {});
  await clock.advance(0);
  sent.splice(0);
  return watch;
}

describe("a machine", () => {
  test("on which nothing changes is asked for its failed units once a minute, and told once", async () => {
    await startWatch();
    await clock.advance(30 * UNITS_INTERVAL_MS);
    expect(sent).toEqual([]);
    expect(asked).toBe(31);
  });

  const changes: readonly (readonly [string, Partial<MachineState>])[] = [
    ["the profile", { profilePath: TWO }],
    ["the generation", { generation: 2 }],
    ["the running system", { currentPath: TWO }],
    ["the specialisation", { currentBasePath: TWO }],
    ["what a reboot would bring", { rebootNeeded: ["kernel"] }],
    ["the free space, by much,", { storeFreeBytes: 80 * GIB }],
    ["the deployment at work", { inFlight: deploymentIdOf("a") }],
  ];
  test.each(changes)("tells of a change of %s within the time of a look, once", async (_what, change) => {
    await startWatch();
    state = { ...STATE, ...change };
    await clock.advance(LOOK_INTERVAL_MS);
    expect(sent).toMatchObject([change]);
    await clock.advance(3 * LOOK_INTERVAL_MS);
    expect(sent.length).toBe(1);
  });

  test("tells of failed units within a minute, with a bounded list and their number", async () => {
    await startWatch();
    failed = Array.from({ length: 70 }, (_, index) => `unit-${String(70 - index).padStart(2, "0")}.service`);
    await clock.advance(UNITS_INTERVAL_MS);
    expect(sent).toMatchObject([{ failedUnitCount: 70 }]);
    expect(sent[0]?.failedUnits?.length).toBe(FAILED_UNITS_MAX);
    expect(sent[0]?.failedUnits?.[0]).toBe("unit-01.service");
    failed = [];
    await clock.advance(UNITS_INTERVAL_MS);
    expect(sent.at(-1)).toMatchObject({ failedUnits: [], failedUnitCount: 0 });
  });

  test("whose service manager does not answer tells of its links all the same", async () => {
    let isStuck = false;
    const never = new Promise<null>(() => {});
    await startWatch({ readFailedUnits: () => (isStuck ? never : Promise.resolve([])) });
    isStuck = true;
    await clock.advance(UNITS_INTERVAL_MS);
    state = { ...STATE, profilePath: TWO };
    await clock.advance(LOOK_INTERVAL_MS);
    expect(sent).toMatchObject([{ profilePath: TWO }]);
    // So that the loop can end.
    stop.abort(new Error("over"));
    running = Promise.resolve();
  });

  test("that cannot be looked at is looked at again", async () => {
    let isBroken = true;
    await startWatch({
      readState: async () => {
        if (isBroken && clock.monotonicMs() > 0) throw new Error("EIO");
        return state;
      },
    });
    state = { ...STATE, profilePath: TWO };
    await clock.advance(LOOK_INTERVAL_MS);
    expect(sent).toEqual([]);
    isBroken = false;
    await clock.advance(LOOK_INTERVAL_MS);
    expect(sent).toMatchObject([{ profilePath: TWO }]);
  });
});

describe("a connection", () => {
  test("that is not there costs no looks, and its hello says what is there then", async () => {
    const watch = await startWatch();
    isConnected = false;
    asked = 0;
    state = { ...STATE, profilePath: TWO };
    await clock.advance(10 * UNITS_INTERVAL_MS);
    expect([sent.length, asked]).toEqual([0, 0]);
    expect(await watch.tell()).toMatchObject({ profilePath: TWO });
    isConnected = true;
    await clock.advance(LOOK_INTERVAL_MS);
    expect(sent).toEqual([]);
  });

  test("without room is tried again", async () => {
    await startWatch();
    state = { ...STATE, profilePath: TWO };
    hasRoom = false;
    await clock.advance(LOOK_INTERVAL_MS);
    hasRoom = true;
    await clock.advance(LOOK_INTERVAL_MS);
    expect(sent).toMatchObject([{ profilePath: TWO }]);
  });
});

test.each([
  [100 * GIB, 100 * GIB, false],
  [100 * GIB, 91 * GIB, false],
  [100 * GIB, 89 * GIB, true],
  [100 * GIB, 111 * GIB, true],
  [2 * GIB, 1.5 * GIB, false],
  [2 * GIB, 0.5 * GIB, true],
  [null, 0, true],
  [0, null, true],
  [null, null, false],
] as const)("free space that goes from %p to %p is news: %p", (before, after, expected) => {
  expect(isNews({ ...STATE, storeFreeBytes: before }, { ...STATE, storeFreeBytes: after })).toBe(expected);
});

test("a system differs from the booted one in what it boots with, by name", async () => {
  await using directory = await createTemporaryDirectory("kernel");
  const make = async (name: string, parts: Readonly<Record<string, string>>) => {
    const system = directory.join(name);
    await mkdir(system);
    for (const [part, target] of Object.entries(parts)) {
      if (part === "kernel-params") await writeFile(directory.join(name, part), target);
      else {
        await mkdir(directory.join(target), { recursive: true });
        await symlink(directory.join(target), directory.join(name, part));
      }
    }
    return system;
  };
  const parts = { kernel: "k1", initrd: "i1", "kernel-modules": "m1", "kernel-params": "quiet" };
  const booted = await make("booted", parts);
  for (const [name, changes, different] of [
    ["same", {}, []],
    ["kernel", { kernel: "k2" }, ["kernel"]],
    ["all", { kernel: "k2", initrd: "i2", "kernel-modules": "m2" }, ["kernel", "initrd", "modules"]],
    ["parameters", { "kernel-params": "" }, ["kernel parameters"]],
  ] as const) {
    expect(await listBootDifferences(await make(name, { ...parts, ...changes }), booted)).toEqual([...different]);
  }
  expect(await listBootDifferences(await make("container", {}), booted)).toEqual([
    "kernel",
    "initrd",
    "modules",
    "kernel parameters",
  ]);
});

describe("a small program", () => {
  const environment = { PATH: "/usr/bin:/bin", WHO: "me" };
  async function run(script: string, deadlineMs = 10_000) {
    const lines: string[] = [];
    const onLine = async (stream: "out" | "err", text: string) => void lines.push(`${stream} ${text}`);
    const how = { command: "sh", args: ["-c", script], environment, deadlineMs, clock: systemClock, onLine };
    return { exit: await runSmallProgram(how), lines };
  }

  test("is told of by its end and its lines, with no other environment", async () => {
    const { exit, lines } = await run('echo "$WHO"; printenv HOME; pwd; echo no >&2; printf last; exit 3');
    expect(exit).toEqual({ kind: "exited", code: 3 });
    expect(lines).toEqual(["out me", "out /", "out last", "err no"]);
  });

  test("that is killed, hangs, floods, or is not there", async () => {
    expect((await run("kill -TERM $$")).exit).toEqual({ kind: "killed", signal: "SIGTERM" });
    expect((await run("exec sleep 1000", 50)).exit).toEqual({ kind: "timed-out", afterMs: 50 });
    const flood = await run("exec yes");
    expect(flood.exit.kind).toBe("killed");
    const absent = { command: "no-such-program", args: [], environment, deadlineMs: 1_000, clock: systemClock };
    expect(await runSmallProgram({ ...absent, onLine: async () => {} })).toMatchObject({ kind: "not-started" });
  });
});
