/** Journals on a real disk: numbered without gaps, whole after any cut, bounded, read in reports. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { appendFile, readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { createChangeSignal } from "../../../src/agent/journal/change-signal.ts";
import { type DeploymentStore, openDeploymentStore } from "../../../src/agent/journal/deployment-store.ts";
import { createJournal, type Journal } from "../../../src/agent/journal/journal.ts";
import { type JournalFile, openJournalFile, START } from "../../../src/agent/journal/journal-file.ts";
import { LOG_LINE_CHARACTERS_MAX, type ReportEntry } from "../../../src/protocol.ts";
import { systemClock } from "../../../src/runtime.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { waitFor } from "../../support/wait-for.ts";
import { deploymentIdOf, offerOf } from "../offers.ts";

let directory: TemporaryDirectory;
let store: DeploymentStore;
const offer = offerOf("a");
const OUTCOME = {
  outcome: "succeeded",
  reason: "It is live.",
  previousPath: null,
  fetchedBytes: 1,
  exitCode: 0,
  phaseMs: {},
} as const;

beforeEach(async () => {
  directory = await createTemporaryDirectory("journal");
  store = await openDeploymentStore({ stateDirectory: directory.path, clock: systemClock, followed: null });
});

afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

async function reopen(): Promise<Journal> {
  await store[Symbol.asyncDispose]();
  store = await openDeploymentStore({ stateDirectory: directory.path, clock: systemClock, followed: null });
  const [journal] = store.journals;
  if (journal === undefined) throw new Error("the journal is gone");
  return journal;
}

async function readAll(journal: Journal): Promise<ReportEntry[]> {
  const all: ReportEntry[] = [];
  for (let place = journal.acknowledged; ; ) {
    const { entries, next } = await journal.read(place);
    if (entries.length === 0) return all;
    all.push(...entries);
    place = next;
  }
}

const openEmpty = (name: string) =>
  openJournalFile({ path: directory.join(name), onEntry: () => {}, isFollowed: false });

/** The same file, on a disk that takes lines in another way. */
function withAppend(file: JournalFile, append: JournalFile["append"]): JournalFile {
  return {
    get end() {
      return file.end;
    },
    append,
    read: file.read,
    find: file.find,
    catchUp: file.catchUp,
    [Symbol.asyncDispose]: async () => {},
  };
}

const journalPath = () => directory.join("deployments", offer.deploymentId, "journal.ndjson");

test("entries come back after a restart as they were written, and the numbers go on", async () => {
  const journal = await store.begin(offer);
  await journal.phase({ phase: "fetching", previousPath: null });
  await journal.log("agent", "first");
  await journal.log("out", 'line with "quotes", \u2028 and \ud800');
  const again = await reopen();
  expect(again.phases.map(({ phase }) => phase)).toEqual(["fetching"]);
  expect(again.offer).toEqual(offer);
  await again.phase({ phase: "activating", previousPath: offer.storePath });
  await again.finish(OUTCOME);
  const entries = await readAll(again);
  expect(entries.map(({ n }) => n)).toEqual([1, 2, 3, 4, 5]);
  expect(entries.map(({ type }) => type)).toEqual(["phase", "log", "log", "phase", "outcome"]);
  expect((await reopen()).outcome?.reason).toBe("It is live.");
});

test("a file cut at any byte of its last line loses that line and nothing else", async () => {
  const journal = await store.begin(offer);
  await journal.phase({ phase: "fetching", previousPath: null });
  await journal.phase({ phase: "activating", previousPath: offer.storePath });
  const whole = await readFile(journalPath(), "utf8");
  const firstLineEnd = whole.indexOf("\n") + 1;
  for (let length = firstLineEnd; length < whole.length; length += 7) {
    await writeFile(journalPath(), whole);
    await truncate(journalPath(), length);
    const again = await reopen();
    expect(again.durable).toEqual({ n: 1, offset: firstLineEnd });
    await again.phase({ phase: "rolling-back", previousPath: null });
    expect((await readAll(again)).map(({ n }) => n)).toEqual([1, 2]);
  }
});

for (const garbage of ["\0\0\0\0\n", '{"n":7}\n', "x".repeat(3_000_000)]) {
  test(`garbage of ${garbage.length} bytes behind the last entry is cut off`, async () => {
    const journal = await store.begin(offer);
    await journal.phase({ phase: "fetching", previousPath: null });
    await appendFile(journalPath(), garbage);
    expect((await reopen()).durable.n).toBe(1);
  });
}

test("acknowledgements are remembered, also when they are set back, and the last one removes the folder", async () => {
  const journal = await store.begin(offer);
  for (let index = 0; index < 10; index += 1) await journal.log("out", `line ${index}`);
  await journal.finish(OUTCOME);
  await store.acknowledge(offer.deploymentId, 4);
  expect((await reopen()).acknowledged.n).toBe(4);
  const [again] = store.journals;
  expect((await readAll(again ?? journal))[0]?.n).toBe(5);
  await store.acknowledge(offer.deploymentId, 2);
  expect((await readAll(again ?? journal))[0]?.n).toBe(3);
  await store.acknowledge(offer.deploymentId, 10);
  expect(store.journals.length).toBe(1);
  await store.acknowledge(offer.deploymentId, 11);
  expect(store.journals).toEqual([]);
  expect(await readdir(directory.join("deployments"))).toEqual([]);
  await store.acknowledge(deploymentIdOf("unknown"), 3);
});

test("a folder without a whole offer was never begun", async () => {
  await Bun.write(directory.join("deployments", "b000000000000000", "journal.ndjson"), "");
  await store.begin(offer);
  await reopen();
  expect(await readdir(directory.join("deployments"))).toEqual([offer.deploymentId]);
});

test("a long line is cut with a mark", async () => {
  const journal = await store.begin(offer);
  await journal.log("out", "x".repeat(LOG_LINE_CHARACTERS_MAX + 5));
  await journal.finish(OUTCOME);
  const [line] = await readAll(journal);
  expect(line?.type === "log" ? line.text : "").toEndWith("x […5 more characters cut off]");
});

test("a report holds at most 2,000 entries and about a mebibyte", async () => {
  const journal = await store.begin(offer);
  for (let index = 0; index < 2_500; index += 1) await journal.log("out", "short");
  for (let index = 0; index < 200; index += 1) await journal.log("out", "y".repeat(16_000));
  await journal.finish(OUTCOME);
  const first = await journal.read(START);
  expect(first.entries.length).toBe(2_000);
  const second = await journal.read(first.next);
  expect(second.next.offset - first.next.offset).toBeLessThanOrEqual(1024 * 1024);
  expect((await readAll(journal)).length).toBe(2_701);
});

test("a line that comes while the disk is at work on the one before is written, too, without anything else to come", async () => {
  await using file = await openEmpty("slow.ndjson");
  const clock = createManualClock();
  const atWork = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const slow = withAppend(file, async (lines, count) => {
    atWork.resolve();
    await goOn.promise;
    await file.append(lines, count);
  });
  const changes = createChangeSignal();
  const journal = createJournal({ offer, file: slow, recovered: [], acknowledged: START, clock, changes });
  await journal.log("agent", "first");
  await clock.advance(1_000);
  await atWork.promise;
  await journal.log("agent", "second");
  goOn.resolve();
  await waitFor("the second line", async () => {
    await clock.advance(1_000);
    return journal.durable.n === 2;
  });
});

describe("output without end", () => {
  test("is kept up to the limit, which the log says; phases and outcome still come", async () => {
    const changes = createChangeSignal();
    await using file = await openEmpty("limited.ndjson");
    const journal = createJournal({
      offer,
      file,
      recovered: [],
      acknowledged: START,
      clock: systemClock,
      changes,
      logBytesMax: 100_000,
    });
    for (let index = 0; index < 10_000; index += 1) await journal.log("out", "z".repeat(100));
    await journal.phase({ phase: "activating", previousPath: null });
    await journal.finish(OUTCOME);
    expect(file.end.offset).toBeLessThan(110_000);
    const texts = (await readAll(journal)).map((entry) => (entry.type === "log" ? entry.text : entry.type));
    expect(texts.filter((text) => text.startsWith("output beyond"))).toHaveLength(1);
    expect(texts.slice(-3)).toEqual(["phase", expect.stringMatching(/^\d+ lines of output were not kept$/), "outcome"]);
  });

  test("on a disk that takes nothing is dropped, counted, and does not stop anything", async () => {
    let isFull = true;
    const changes = createChangeSignal();
    await using file = await openEmpty("full.ndjson");
    const full = withAppend(file, async (lines, count) => {
      if (isFull) throw new Error("ENOSPC");
      await file.append(lines, count);
    });
    const journal = createJournal({
      offer,
      file: full,
      recovered: [],
      acknowledged: START,
      clock: systemClock,
      changes,
    });
    for (let index = 0; index < 20_000; index += 1) await journal.log("out", "z".repeat(100));
    await expect(journal.finish(OUTCOME)).rejects.toThrow("cannot write the deployment's journal");
    isFull = false;
    await journal.finish(OUTCOME);
    const entries = await readAll(journal);
    expect(entries.map(({ n }) => n)).toEqual(entries.map((_, index) => index + 1));
    expect(entries.filter(({ type }) => type === "outcome").length).toBe(1);
    expect(entries.some((entry) => entry.type === "log" && /lines of output were not kept/.test(entry.text))).toBe(
      true,
    );
  });
});
