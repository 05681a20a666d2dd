/** A program whose supervisor was killed is stopped by the next one, with its children, and nobody else is. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { recordingRuns, stopLeftover } from "../../../src/agent/activation/leftover.ts";
import { systemClock } from "../../../src/runtime.ts";
import { spawnProcess } from "../../support/processes.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { waitFor } from "../../support/wait-for.ts";

const BOOT_ID = "this boot";
const signal = new AbortController().signal;

/** What a supervisor is to this file: runs a program, on record. */
const SUPERVISOR = `
  import { recordingRuns } from ${JSON.stringify(`${import.meta.dir}/../../../src/agent/activation/leftover.ts`)};
  import { runProgram } from ${JSON.stringify(`${import.meta.dir}/../../../src/agent/machine/process.ts`)};
  import { systemClock } from ${JSON.stringify(`${import.meta.dir}/../../../src/runtime.ts`)};
  const [stateDirectory, bootId, script] = process.argv.slice(1);
  const run = recordingRuns(runProgram, { stateDirectory, bootId });
  await run({
    ...{ command: "/bin/sh", args: ["-c", script], deadlineMs: 60_000, clock: systemClock },
    environment: { PATH: process.env.PATH },
    onLine: async () => {},
  });
`;

function isAlive(processId: number): boolean {
  try {
    return !/^State:\s*[ZX]/m.test(readFileSync(`/proc/${processId}/status`, "utf8"));
  } catch {
    return false;
  }
}

type Left = { readonly process: { readonly id: number; readonly startedAt: string } | null };

const fileOf = (stateDirectory: string) => `${stateDirectory}/activation-program.json`;
const readRecord = (stateDirectory: string): Left => JSON.parse(readFileSync(fileOf(stateDirectory), "utf8"));

/** Kills a supervisor whose program has a child; returns the ids of both. */
async function leaveBehind(stateDirectory: string): Promise<number[]> {
  const script = `trap '' TERM; sleep 60 & echo $$ $! > ${stateDirectory}/ids; wait`;
  await using supervisor = spawnProcess([process.execPath, "-e", SUPERVISOR, stateDirectory, BOOT_ID, script]);
  const read = () => readFileSync(`${stateDirectory}/ids`, "utf8").trim().split(" ").map(Number);
  const ids = await waitFor("the program to run", () => (read().length === 2 ? read() : null), {
    describe: supervisor.output,
  });
  await waitFor("the id on record", () => readRecord(stateDirectory).process);
  supervisor.kill("SIGKILL");
  await supervisor.exited;
  expect(ids.map(isAlive)).toEqual([true, true]);
  return ids;
}

test("what a killed supervisor left running is stopped, with its children", async () => {
  await using directory = await createTemporaryDirectory("leftover");
  const ids = await leaveBehind(directory.path);
  await stopLeftover({ stateDirectory: directory.path, bootId: BOOT_ID, clock: systemClock, signal });
  expect(ids.map(isAlive)).toEqual([false, false]);
  expect(existsSync(fileOf(directory.path))).toBe(false);
  // And once more, with nothing to do.
  await stopLeftover({ stateDirectory: directory.path, bootId: BOOT_ID, clock: systemClock, signal });
});

test("it is found even when the supervisor was killed before it knew the id", async () => {
  await using directory = await createTemporaryDirectory("leftover");
  const ids = await leaveBehind(directory.path);
  writeFileSync(fileOf(directory.path), JSON.stringify({ ...readRecord(directory.path), process: null }));
  await stopLeftover({ stateDirectory: directory.path, bootId: BOOT_ID, clock: systemClock, signal });
  expect(ids.map(isAlive)).toEqual([false, false]);
});

test("of several at the same time, each is stopped", async () => {
  await using directory = await createTemporaryDirectory("leftover");
  const [first = 0, ...firstOthers] = await leaveBehind(directory.path);
  const left = readRecord(directory.path);
  rmSync(`${directory.path}/ids`);
  const [second = 0, ...secondOthers] = await leaveBehind(directory.path);
  writeFileSync(fileOf(directory.path), JSON.stringify({ ...left, others: [readRecord(directory.path)] }));
  await stopLeftover({ stateDirectory: directory.path, bootId: BOOT_ID, clock: systemClock, signal });
  expect([first, ...firstOthers, second, ...secondOthers].map(isAlive)).toEqual([false, false, false, false]);
});

test("of several, those that still run stay on record", async () => {
  await using directory = await createTemporaryDirectory("leftover");
  const ends = new Map<string, () => void>();
  const run = recordingRuns(
    async ({ command }) => {
      await new Promise<void>((resolve) => ends.set(command, resolve));
      return { kind: "exited", code: 0 };
    },
    { stateDirectory: directory.path, bootId: BOOT_ID },
  );
  const start = (command: string) =>
    run({ command, args: [], environment: {}, deadlineMs: 1, clock: systemClock, onLine: async () => {} });
  const [one, two] = [start("one"), start("two")];
  const countLeft = () => 1 + (JSON.parse(readFileSync(fileOf(directory.path), "utf8")).others ?? []).length;
  expect(countLeft()).toBe(2);
  ends.get("one")?.();
  await one;
  expect(countLeft()).toBe(1);
  ends.get("two")?.();
  await two;
  expect(existsSync(fileOf(directory.path))).toBe(false);
});

test("a program that ended by itself leaves nothing on record", async () => {
  await using directory = await createTemporaryDirectory("leftover");
  await using supervisor = spawnProcess([process.execPath, "-e", SUPERVISOR, directory.path, BOOT_ID, "exit 3"]);
  expect((await supervisor.exited).exitCode).toBe(0);
  expect(existsSync(fileOf(directory.path))).toBe(false);
});

const STRANGERS = [
  ["another process has the id now", "1", BOOT_ID],
  ["it was before a reboot", null, "another boot"],
] as const;

test.each(STRANGERS)("nobody is stopped when %s", async (_title, startedAt, bootId) => {
  await using directory = await createTemporaryDirectory("leftover");
  const ids = await leaveBehind(directory.path);
  try {
    const record = readRecord(directory.path);
    const changed = startedAt === null ? record.process : { ...record.process, startedAt };
    writeFileSync(fileOf(directory.path), JSON.stringify({ ...record, process: changed }));
    await stopLeftover({ stateDirectory: directory.path, bootId, clock: systemClock, signal });
    expect(ids.map(isAlive)).toEqual([true, true]);
    expect(existsSync(fileOf(directory.path))).toBe(false);
  } finally {
    for (const id of ids) process.kill(id, "SIGKILL");
  }
});

test("a torn record is no reason not to go on", async () => {
  await using directory = await createTemporaryDirectory("leftover");
  writeFileSync(fileOf(directory.path), '{"processId": 1');
  await stopLeftover({ stateDirectory: directory.path, bootId: BOOT_ID, clock: systemClock, signal });
  expect(existsSync(fileOf(directory.path))).toBe(false);
});
