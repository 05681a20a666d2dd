/** What keeps a version from being tried twice on a device: made, kept, lifted, and never in the way. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdir, rm, writeFile } from "node:fs/promises";
import fc from "fast-check";
import {
  createQuarantine,
  describeQuarantine,
  ENTRIES_MAX,
  planEntries,
  type QuarantineEntry,
} from "../../../src/agent/activation/quarantine.ts";
import type { ActivationRecord } from "../../../src/agent/activation/record.ts";
import { FAULTS, MODES, OUTCOMES } from "../../../src/deployment.ts";
import { createLogger, type Logger } from "../../../src/log.ts";
import { parseAgentName } from "../../../src/names.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { storePathFor } from "../../support/tiny-path.ts";
import { deploymentIdOf } from "../offers.ts";
import { NEW, OLD, recordOf } from "./records.ts";

const AT_MS = Date.UTC(2026, 10, 22, 13, 5, 59);

let directory: TemporaryDirectory;
let lines: string[];
let logger: Logger;

beforeEach(async () => {
  directory = await createTemporaryDirectory("quarantine");
  lines = [];
  logger = createLogger({ verbose: false, format: "text", write: (line) => lines.push(line) });
});
afterEach(async () => {
  await directory[Symbol.asyncDispose]();
});

const open = () => createQuarantine({ stateDirectory: directory.path, logger });
const ended = (changes: Partial<ActivationRecord> = {}) =>
  recordOf({ stage: "finished", outcome: "rolled-back", fault: "version", reason: "It broke.", ...changes });
const file = () => directory.join("quarantine.json");

describe("an activation that ended", () => {
  test("badly by its own fault is kept, for every later process", async () => {
    await open().settle(ended(), AT_MS);
    expect(await open().find(NEW)).toEqual({
      storePath: NEW,
      deploymentId: recordOf().deploymentId,
      outcome: "rolled-back",
      atMs: AT_MS,
      reason: "It broke.",
    });
    expect(await open().find(OLD)).toBeNull();
    expect(lines).toEqual([]);
  });

  test("in any other way is not", () => {
    const kept: string[] = [];
    for (const outcome of OUTCOMES) {
      for (const fault of [null, ...FAULTS]) {
        if (planEntries([], ended({ outcome, fault }), AT_MS).length > 0) kept.push(`${outcome} ${fault}`);
      }
    }
    expect(kept).toEqual(["rolled-back version", "degraded version"]);
  });

  test("well lifts it, in every mode that makes it live", () => {
    const before = planEntries([], ended(), AT_MS);
    const lifting = MODES.filter((mode) => planEntries(before, ended({ mode, outcome: "succeeded" }), 1).length === 0);
    expect(lifting).toEqual(["switch", "boot", "test"]);
  });

  test("is taken in once, however often it is told", () => {
    const before = planEntries([], ended(), AT_MS);
    expect(planEntries(before, ended(), AT_MS + 1)).toBe(before);
    const later = planEntries(before, ended({ deploymentId: deploymentIdOf("b"), reason: "It broke again." }), 7);
    expect(later.map(({ atMs, reason }) => [atMs, reason])).toEqual([[7, "It broke again."]]);
  });
});

test("of many only the newest are kept, one for each version", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(150), { maxLength: 300 }), (numbers) => {
      let entries: readonly QuarantineEntry[] = [];
      for (const [index, number] of numbers.entries()) {
        const changes = { storePath: storePathFor(`v${number}`), deploymentId: deploymentIdOf(`d${index}`) };
        entries = planEntries(entries, ended(changes), index);
      }
      const newest = [...new Set(numbers.toReversed())].slice(0, ENTRIES_MAX).toReversed();
      expect(entries.map(({ storePath }) => storePath)).toEqual(newest.map((number) => storePathFor(`v${number}`)));
    }),
    { numRuns: 30 },
  );
});

test("a person's wish lifts it, also when it was not there", async () => {
  await open().settle(ended(), AT_MS);
  await open().lift(OLD);
  expect(await open().find(NEW)).not.toBeNull();
  await open().lift(NEW);
  expect(await open().find(NEW)).toBeNull();
});

describe("a file that cannot be used", () => {
  const texts: Readonly<Record<string, string>> = {
    "is torn": '{"version":1,"entries":[{"sto',
    "is empty": "",
    "is of a newer version": '{"version":2,"entries":[]}',
    "names what is no store path": '{"version":1,"entries":[{"storePath":"/etc"}]}',
    "holds a time that is none": JSON.stringify({
      version: 1,
      entries: [{ storePath: NEW, deploymentId: "a", outcome: "degraded", atMs: 1e300, reason: "" }],
    }),
  };
  for (const [name, text] of Object.entries(texts)) {
    test(`because it ${name} holds nothing back, is told of, and is written anew`, async () => {
      await writeFile(file(), text);
      expect(await open().find(NEW)).toBeNull();
      expect(lines).toEqual([expect.stringMatching(/cannot read .*quarantine\.json: it is damaged .*no version/)]);
      await open().settle(ended(), AT_MS);
      expect(await open().find(NEW)).not.toBeNull();
    });
  }

  test("because nothing can be written there counts until the agent ends, and is written when it can be", async () => {
    await mkdir(file());
    const quarantine = open();
    await quarantine.settle(ended(), AT_MS);
    expect(lines.join("\n")).toContain("cannot write");
    expect(await quarantine.find(NEW)).not.toBeNull();
    await rm(file(), { recursive: true });
    await quarantine.settle(ended(), AT_MS);
    expect(await open().find(NEW)).not.toBeNull();
  });
});

test("the reason says when, why, and what to do", () => {
  const [entry] = planEntries([], ended({ outcome: "degraded", reason: "Units failed." }), AT_MS);
  if (entry === undefined) throw new Error("there is no entry");
  expect(describeQuarantine(entry, parseAgentName("nuc"))).toBe(
    "Not tried again: this version ended degraded on this device at 2026-11-22 13:05 UTC. Units failed. " +
      "To try it all the same: nixdeploy retry nuc, or activate --retry",
  );
});
