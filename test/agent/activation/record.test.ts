/** The record on a simulated disk: whole or not there, read by other versions, clear about what it cannot read. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { recordProof } from "../../../src/agent/activation/proof.ts";
import {
  isCancelRequested,
  readRecord,
  removeRecord,
  requestCancel,
  STAGES,
  writeRecord,
} from "../../../src/agent/activation/record.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { actAs, type SimulatedDisk, simulateDisk } from "../../support/simulated-files.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { NEW, recordOf, SCRIPT } from "./records.ts";

let directory: TemporaryDirectory;
let disk: SimulatedDisk;
beforeEach(async () => {
  directory = await createTemporaryDirectory("record");
  disk = simulateDisk(directory.path);
});
afterEach(async () => {
  disk[Symbol.dispose]();
  await directory[Symbol.asyncDispose]();
});

const path = () => directory.join("activation.json");
const fullRecord = () =>
  recordOf({
    rollbackScript: SCRIPT,
    previous: { profile: null, current: null, failedUnits: null },
    prover: { kind: "agent", unit: "nixdeploy-agent-nuc.service" },
    stage: "finished",
    tries: 3,
    deadlineUptimeMs: 12,
    commitBegun: true,
    unitsFailed: true,
    note: "a note",
    reason: "It failed.",
    outcome: "degraded",
    exitCode: 4,
  });

test("comes back as it was written, readable by its owner only", async () => {
  expect(await readRecord(directory.path)).toBeNull();
  for (const record of [...STAGES.map((stage) => recordOf({ stage })), fullRecord()]) {
    await writeRecord(directory.path, record);
    expect(await readRecord(directory.path)).toEqual(record);
  }
  expect((await stat(path())).mode & 0o777).toBe(0o600);
});

test("of a later version, with more fields, is read", async () => {
  const extended = { ...fullRecord(), loader: "grub", policy: { ...fullRecord().policy, healthChecks: [] } };
  await writeFile(path(), JSON.stringify(extended));
  expect(await readRecord(directory.path)).toEqual(fullRecord());
});

describe("that is", () => {
  const whole = JSON.stringify(fullRecord());
  const texts: Readonly<Record<string, string>> = {
    empty: "",
    "filled with zeros": "\0".repeat(whole.length),
    "no object": "[]",
    "of a version that an old reader would get wrong": JSON.stringify({ ...fullRecord(), version: 2 }),
    "at a stage that does not exist": JSON.stringify({ ...fullRecord(), stage: "dancing" }),
    "about no store path": JSON.stringify({ ...fullRecord(), storePath: "/nix/store/../etc" }),
  };
  for (const [name, text] of Object.entries(texts)) {
    test(`${name} is an error that names the file`, async () => {
      await writeFile(path(), text);
      const error = await readRecord(directory.path).catch((thrown: unknown) => thrown);
      if (!(error instanceof NixdeployError)) throw new Error("no NixdeployError");
      expect(error.kind).toBe("host");
      expect(error.message).toStartWith(`cannot read the record of an activation, ${path()}: `);
      expect(error.hint).toContain("removing the file");
    });
  }

  test("cut at any byte is an error, too", async () => {
    for (let length = 0; length < whole.length; length += 13) {
      await writeFile(path(), whole.slice(0, length));
      await expect(readRecord(directory.path)).rejects.toThrow("cannot read the record");
    }
  });
});

test("is written aside, synced, renamed, and its name is synced", async () => {
  const steps: string[] = [];
  await actAs(
    (step) => steps.push(step),
    () => writeRecord(directory.path, recordOf()),
  );
  expect(steps).toEqual([
    "open activation.json.new",
    "write activation.json.new",
    "sync activation.json.new",
    "rename activation.json.new",
    "sync .",
  ]);
});

test("is the old or the new one after a power cut before any step of a write, and the new one after it", async () => {
  const [before, after] = [recordOf(), recordOf({ stage: "activating" })];
  let state = 1;
  const fraction = () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
  for (let seed = 0; seed < 300; seed += 1) {
    await writeRecord(directory.path, before);
    let step = 0;
    const cut = () => {
      step += 1;
      if (step === 1 + (seed % 6)) throw new Error("power cut");
    };
    const isWritten = await actAs(cut, () => writeRecord(directory.path, after)).then(
      () => true,
      () => false,
    );
    disk.cutPower({ isStrict: seed % 2 === 0, fraction });
    const found = await readRecord(directory.path);
    expect(isWritten ? [after] : [before, after]).toContainEqual(found ?? before);
    expect(found).not.toBeNull();
  }
});

test("goes with everything that belongs to it, and last", async () => {
  await writeRecord(directory.path, recordOf());
  await requestCancel(directory.path, recordOf().deploymentId);
  await recordProof(directory.path, { deploymentId: recordOf().deploymentId, bootId: "boot-1", processId: 7 });
  await writeFile(directory.join("activation.json.new"), "torn");
  expect(await readFile(path(), "utf8")).toContain(NEW);
  const steps: string[] = [];
  await actAs(
    (step) => steps.push(step),
    () => removeRecord(directory.path),
  );
  expect(steps.slice(-2)).toEqual(["remove activation.json", "sync ."]);
  expect(await readdir(directory.path)).toEqual([]);
  await removeRecord(directory.path);
});

test("a cancel is meant for one deployment", async () => {
  expect(await isCancelRequested(directory.path, "a")).toBe(false);
  await requestCancel(directory.path, "a");
  expect(await isCancelRequested(directory.path, "a")).toBe(true);
  expect(await isCancelRequested(directory.path, "b")).toBe(false);
});
