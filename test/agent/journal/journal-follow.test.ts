/** A journal that another process writes: whole entries only, durable before anybody sees them, acknowledged meanwhile. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { appendFileSync } from "node:fs";
import { appendFile, readFile } from "node:fs/promises";
import { writeRecord } from "../../../src/agent/activation/record.ts";
import { openDeploymentJournal } from "../../../src/agent/journal/deployment-folder.ts";
import { type DeploymentStore, openDeploymentStore } from "../../../src/agent/journal/deployment-store.ts";
import { openJournalFile } from "../../../src/agent/journal/journal-file.ts";
import { type ReportEntry, reportEntrySchema } from "../../../src/protocol.ts";
import { systemClock } from "../../../src/runtime.ts";
import { spawnProcess } from "../../support/processes.ts";
import { actAs, simulateDisk } from "../../support/simulated-files.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { waitFor } from "../../support/wait-for.ts";
import { recordOf } from "../activation/records.ts";
import { offerOf } from "../offers.ts";

const offer = offerOf("a");
const ID = offer.deploymentId;

let directory: TemporaryDirectory;
let store: DeploymentStore;
beforeEach(async () => {
  directory = await createTemporaryDirectory("follow");
  store = await openDeploymentStore({ stateDirectory: directory.path, clock: systemClock, followed: null });
});
afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

const path = () => directory.join("deployments", ID, "journal.ndjson");
const lineOf = (n: number, text = `line ${n}`) =>
  `${JSON.stringify({ n, atMs: 1, type: "log", stream: "out", text })}\n`;

/** Another process that writes the journal as a supervisor does: a line every few milliseconds, then the outcome. */
async function writeSupervisor(lines: number): Promise<string> {
  const sources = new URL("../../../src/", import.meta.url).pathname;
  const script = directory.join("supervisor.ts");
  await Bun.write(
    script,
    `import { openDeploymentJournal } from ${JSON.stringify(`${sources}agent/journal/deployment-folder.ts`)};
     import { systemClock } from ${JSON.stringify(`${sources}runtime.ts`)};
     const options = { stateDirectory: ${JSON.stringify(directory.path)}, deploymentId: ${JSON.stringify(ID)} };
     const { journal } = await openDeploymentJournal({ ...options, clock: systemClock });
     await journal.phase({ phase: "confirming", previousPath: null });
     console.log("begun");
     const left = ${lines} - journal.durable.n;
     for (let index = 0; index < left; index += 1) {
       await journal.log("out", "z".repeat(500) + index);
       if (index % 50 === 0) await Bun.sleep(5);
     }
     const facts = { previousPath: null, fetchedBytes: null, exitCode: 0, phaseMs: {} };
     await journal.finish({ outcome: "succeeded", reason: "It is live.", ...facts });`,
  );
  return script;
}

async function readAll(): Promise<ReportEntry[]> {
  const journal = store.find(ID);
  const entries: ReportEntry[] = [];
  for (let place = { n: 0, offset: 0 }; journal !== null; ) {
    const read = await journal.read(place);
    if (read.entries.length === 0) break;
    entries.push(...read.entries);
    place = read.next;
  }
  return entries;
}

test("another process writes, is killed, and writes on: every entry comes once, in order, acknowledged meanwhile", async () => {
  const journal = await store.begin(offer);
  await journal.log("agent", "before");
  await journal.handOver();
  const stop = new AbortController();
  const following = journal.follow(stop.signal);
  const script = await writeSupervisor(3_000);
  {
    await using first = spawnProcess([process.execPath, script]);
    await first.waitForLine(/begun/);
    await waitFor("some entries", () => journal.durable.n > 100);
    first.kill("SIGKILL");
    await first.exited;
  }
  await waitFor("the first phase", () => journal.phases.length === 1);
  const through = journal.durable.n;
  await store.acknowledge(ID, through);
  expect(journal.acknowledged.n).toBe(through);
  await using _second = spawnProcess([process.execPath, script]);
  expect((await following).reason).toBe("It is live.");
  expect(journal.phases.map(({ phase }) => phase)).toEqual(["confirming", "confirming"]);
  const entries = await readAll();
  expect(entries.map(({ n }) => n)).toEqual(entries.map((_, index) => index + 1));
  expect(entries.filter(({ type }) => type === "outcome").length).toBe(1);
  await store.acknowledge(ID, journal.durable.n);
  expect(store.journals).toEqual([]);
});

describe("the follower", () => {
  test("takes no line before it is whole, and every one then", async () => {
    const journal = await store.begin(offer);
    await journal.handOver();
    const stop = new AbortController();
    const following = journal.follow(stop.signal).catch(() => null);
    const whole = lineOf(1) + lineOf(2);
    const firstEnd = lineOf(1).length;
    for (let at = 0; at < whole.length; at += 9) {
      await appendFile(path(), whole.slice(at, at + 9));
      const expected = at + 9 >= whole.length ? 2 : at + 9 >= firstEnd ? 1 : 0;
      await waitFor("the follower", () => journal.durable.n >= expected, { intervalMs: 1 });
      expect(journal.durable.n).toBe(expected);
    }
    stop.abort(new Error("over"));
    await following;
    expect((await readAll()).length).toBe(2);
  });

  test("stops before a line that is none, and goes on when it has been written anew", async () => {
    const journal = await store.begin(offer);
    await appendFile(path(), `${lineOf(1)}{"torn":\n`);
    const file = await openJournalFile({ path: path(), onEntry: () => {}, isFollowed: true });
    expect(file.end.n).toBe(1);
    // The next supervisor cuts it off.
    await using opened = await openDeploymentJournal({ ...offer, stateDirectory: directory.path, clock: systemClock });
    await opened.journal.phase({ phase: "confirming", previousPath: null });
    const seen: number[] = [];
    expect(await file.catchUp((entry) => seen.push(entry.n))).toBe(true);
    expect(seen).toEqual([2]);
    await file[Symbol.asyncDispose]();
    expect(journal.offer).toEqual(offer);
  });

  test("cuts nothing off at a start while an activation is on record", async () => {
    await store.begin(offer);
    await writeRecord(directory.path, recordOf());
    await store[Symbol.asyncDispose]();
    await appendFile(path(), `${lineOf(1)}{"being written`);
    store = await openDeploymentStore({ stateDirectory: directory.path, clock: systemClock, followed: ID });
    expect(store.find(ID)?.durable.n).toBe(1);
    expect(await readFile(path(), "utf8")).toEndWith('{"being written');
  });
});

describe("what is seen is durable:", () => {
  const strictly = { isStrict: true, fraction: () => 0 };

  /** Opens, catches up, and cuts the power; the other process writes on right before each sync, and right after it. */
  async function seenAndKept(isFollowed: boolean): Promise<{ seen: number[]; kept: number }> {
    const file = directory.join("other.ndjson");
    appendFileSync(file, lineOf(1));
    using disk = simulateDisk(directory.path);
    let written = 1;
    const writeLine = () => {
      written += 1;
      appendFileSync(file, lineOf(written));
    };
    const writeOn = () => {
      writeLine();
      // After what is watched is done, before whoever did it goes on.
      queueMicrotask(writeLine);
    };
    const seen: number[] = [];
    const onEntry = (entry: ReportEntry) => void seen.push(entry.n);
    await actAs(writeOn, async () => {
      await using opened = await openJournalFile({ path: file, onEntry, isFollowed });
      for (let count = 0; count < 3 && isFollowed; count += 1) await opened.catchUp(onEntry);
    });
    disk.cutPower(strictly);
    const lines = (await readFile(file, "utf8")).split("\n").slice(0, -1);
    for (const line of lines) reportEntrySchema.parse(JSON.parse(line));
    return { seen, kept: lines.length };
  }

  for (const isFollowed of [true, false]) {
    test(isFollowed ? "by the follower" : "at a start, what a killed process had not synced", async () => {
      const { seen, kept } = await seenAndKept(isFollowed);
      expect(seen).toEqual(seen.map((_, index) => index + 1));
      expect(seen.length).toBeGreaterThan(0);
      expect(kept).toBeGreaterThanOrEqual(seen.length);
    });
  }
});
