/** The table of the engine's own documentation, cell by cell; and what no sequence of events may bring about. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { advance, begin, type EngineEvent, RETURNS_MAX, UNDO_TRIES_MAX } from "../../../src/agent/activation/engine.ts";
import {
  type ActivationRecord,
  readRecord,
  SENTENCE_CHARACTERS_MAX,
  STAGES,
  type Stage,
  writeRecord,
} from "../../../src/agent/activation/record.ts";
import { SYSTEM_TYPES } from "../../../src/agent/machine/detect.ts";
import { MODES, type Mode, type Outcome } from "../../../src/deployment.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { NEW, OLD, recordOf } from "./records.ts";

type EventName = "good" | "refused" | "bad" | "cancelled" | "reboot" | "rebooted into new" | "rebooted into old";
/** Stage, or the outcome of the stage `finished`. */
type Next = Stage | Outcome;

const EVENTS: Readonly<Record<EventName, EngineEvent>> = {
  good: { kind: "good", exitCode: null },
  refused: { kind: "refused", reason: "it refused", exitCode: 1 },
  bad: { kind: "bad", reason: "it broke", exitCode: 2 },
  cancelled: { kind: "cancelled" },
  reboot: { kind: "reboot" },
  "rebooted into new": { kind: "rebooted", bootId: "boot-2", runsNew: true },
  "rebooted into old": { kind: "rebooted", bootId: "boot-2", runsNew: false },
};

const AFTER_CHECKING: Readonly<Record<Mode, Next>> = {
  switch: "activating",
  boot: "committing",
  test: "activating",
  "dry-activate": "succeeded",
};

/** What follows a first try; a function where it depends on the mode. */
const TABLE: Readonly<Record<Exclude<Stage, "finished">, Record<EventName, Next | ((mode: Mode) => Next)>>> = {
  checking: {
    good: (mode) => AFTER_CHECKING[mode],
    refused: "failed",
    bad: "failed",
    cancelled: "cancelled",
    reboot: "checking",
    "rebooted into new": "checking",
    "rebooted into old": "checking",
  },
  activating: {
    good: "confirming",
    refused: (mode) => (mode === "boot" ? "undoing" : "failed"),
    bad: "undoing",
    cancelled: (mode) => (mode === "boot" ? "undoing" : "cancelled"),
    reboot: "activating",
    "rebooted into new": "undoing",
    "rebooted into old": "undoing",
  },
  arming: {
    good: "rebooting",
    refused: "undoing",
    bad: "undoing",
    cancelled: "undoing",
    reboot: "arming",
    "rebooted into new": "confirming",
    "rebooted into old": "undoing",
  },
  rebooting: {
    good: "undoing",
    refused: "undoing",
    bad: "undoing",
    cancelled: "undoing",
    reboot: "rebooting",
    "rebooted into new": "confirming",
    "rebooted into old": "undoing",
  },
  confirming: {
    good: (mode) => (mode === "test" ? "succeeded" : "committing"),
    refused: "undoing",
    bad: "undoing",
    cancelled: "undoing",
    reboot: "confirming",
    "rebooted into new": "undoing",
    "rebooted into old": "undoing",
  },
  committing: {
    good: "succeeded",
    refused: (mode) => (mode === "boot" ? "failed" : "undoing"),
    bad: "undoing",
    cancelled: (mode) => (mode === "boot" ? "cancelled" : "undoing"),
    reboot: "committing",
    "rebooted into new": (mode) => (mode === "boot" ? "confirming" : "committing"),
    "rebooted into old": (mode) => (mode === "boot" ? "committing" : "undoing"),
  },
  undoing: {
    good: "rolled-back",
    refused: "undoing",
    bad: "undoing",
    cancelled: "undoing",
    reboot: "returning",
    "rebooted into new": "undoing",
    "rebooted into old": "undoing",
  },
  returning: {
    good: "undoing",
    refused: "undoing",
    bad: "undoing",
    cancelled: "undoing",
    reboot: "returning",
    "rebooted into new": "undoing",
    "rebooted into old": "undoing",
  },
};
const EVENT_NAMES = [
  "good",
  "refused",
  "bad",
  "cancelled",
  "reboot",
  "rebooted into new",
  "rebooted into old",
] as const;
const nextOf = ({ stage, outcome }: ActivationRecord): Next | null => (stage === "finished" ? outcome : stage);

describe("the table", () => {
  for (const stage of STAGES) {
    if (stage === "finished") continue;
    for (const name of EVENT_NAMES) {
      for (const mode of MODES) {
        for (const type of SYSTEM_TYPES) {
          test(`${stage}, ${name}, ${mode}, ${type}`, () => {
            const cell = TABLE[stage][name];
            const record = begin(recordOf({ stage, mode, type }));
            const next = advance(record, EVENTS[name]);
            expect(nextOf(next)).toBe(typeof cell === "function" ? cell(mode) : cell);
            if (next.stage === "finished") expect(next.reason).toMatch(/^[A-Z/].*\.$/);
            if (next.stage !== stage) expect(next).toMatchObject({ tries: 0, deadlineUptimeMs: null });
          });
        }
      }
    }
  }

  test("finished absorbs everything", () => {
    const record = recordOf({ stage: "finished", outcome: "succeeded", reason: "It is live." });
    for (const name of EVENT_NAMES) expect(advance(record, EVENTS[name])).toEqual(record);
  });
});

test("a way back that is bad is tried three times, then degraded, with both reasons", () => {
  let record = recordOf({ stage: "undoing", reason: "units failed", exitCode: 4 });
  for (let count = 1; count <= UNDO_TRIES_MAX; count += 1) {
    expect(record.stage).toBe("undoing");
    record = advance(begin(record), EVENTS.bad);
  }
  expect(record).toMatchObject({ stage: "finished", outcome: "degraded", exitCode: 4 });
  expect(record.reason).toBe(`Units failed; going back to ${OLD} failed: it broke.`);
});

test("a later try that is refused or cancelled may find what an earlier one did", () => {
  for (const [stage, mode] of [
    ["activating", "switch"],
    ["committing", "boot"],
  ] as const) {
    for (const event of [EVENTS.refused, EVENTS.cancelled]) {
      expect(advance(begin(recordOf({ stage, mode, tries: 1 })), event).stage).toBe("undoing");
    }
  }
});

test("the exit code of a rollback is that of what went wrong", () => {
  const undoing = advance(begin(recordOf({ stage: "activating" })), EVENTS.bad);
  const end = advance(begin(undoing), { kind: "good", exitCode: 0 });
  expect(end).toMatchObject({ outcome: "rolled-back", exitCode: 2 });
});

test("a note, and units that failed, are remembered up to the end", () => {
  const live: EngineEvent = { kind: "good", exitCode: 4, unitsFailed: true, note: "new kernel not proved" };
  let record = advance(begin(recordOf({ stage: "activating" })), live);
  record = advance(begin(record), EVENTS.good);
  record = advance(begin(record), EVENTS.good);
  expect(record).toMatchObject({ outcome: "degraded", exitCode: 4 });
  expect(record.reason).toBe(`${NEW} is live; new kernel not proved; some units failed, and the policy is to keep it.`);
});

const BY_REBOOT = ["confirming", "committing"] as const;
const reasons = fc.oneof(fc.string({ minLength: 1 }), fc.constant("x".repeat(SENTENCE_CHARACTERS_MAX * 2)));
const exitCodes = fc.option(fc.integer({ min: 0, max: 255 }));
const events: fc.Arbitrary<EngineEvent> = fc.oneof(
  fc.record({
    ...{ kind: fc.constant("good" as const), exitCode: exitCodes, unitsFailed: fc.boolean(), note: reasons },
    byReboot: fc.boolean(),
  }),
  fc.constant({ kind: "reboot" as const }),
  fc.record({ kind: fc.constantFrom("refused" as const, "bad" as const), reason: reasons, exitCode: exitCodes }),
  fc.constant({ kind: "cancelled" as const }),
  fc.record({ kind: fc.constant("rebooted" as const), bootId: fc.string(), runsNew: fc.boolean() }),
);
const kinds = { mode: fc.constantFrom(...MODES), type: fc.constantFrom(...SYSTEM_TYPES) };
const starts = fc.record(kinds);
/** Whether the supervisor is killed before the event: then another one begins the stage anew. */
const steps = fc.array(fc.record({ event: events, isKilledFirst: fc.boolean() }), { maxLength: 40 });

/** Every record on the way, each as `begin` leaves it, and the last one. */
function walk(start: ActivationRecord, taken: readonly { event: EngineEvent; isKilledFirst: boolean }[]) {
  const records = [start];
  let record = start;
  for (const { event, isKilledFirst } of taken) {
    if (record.stage !== "finished") {
      record = begin(record);
      records.push(record);
      if (isKilledFirst) record = begin(record);
    }
    record = advance(record, event);
    records.push(record);
  }
  return records;
}

describe("whatever happens", () => {
  test("what was committed stays known, the end stays the end, and no stage follows one behind it", () => {
    fc.assert(
      fc.property(starts, steps, (start, taken) => {
        const records = walk(recordOf(start), taken);
        for (const [index, record] of records.entries()) {
          const before = records[index - 1];
          if (before === undefined) continue;
          expect(record.commitBegun || !before.commitBegun).toBe(true);
          // A trial that booted while it was committed has yet to prove itself; a way back may take several reboots.
          const isTried = before.stage === "committing" && record.stage === "confirming" && record.byReboot === true;
          const isBack = before.stage === "returning" && record.stage === "undoing";
          const isBehind = STAGES.indexOf(record.stage) < STAGES.indexOf(before.stage);
          expect({ before: before.stage, stage: record.stage, isBehind }).toMatchObject({
            isBehind: isTried || isBack,
          });
          if (before.stage === "finished") expect(record).toEqual(before);
          expect(record.outcome === null).toBe(record.stage !== "finished");
        }
      }),
    );
  });

  test("succeeded, and degraded by choice, come only behind the stages of the mode; rolled-back only behind undoing", () => {
    fc.assert(
      fc.property(starts, steps, (start, taken) => {
        const records = walk(recordOf(start), taken);
        const end = records.at(-1);
        const seen = new Set(records.map(({ stage }) => stage));
        const isBack = end?.outcome === "rolled-back" || (end?.outcome === "degraded" && seen.has("undoing"));
        expect(seen.has("undoing") && end?.stage === "finished").toBe(isBack);
        const isUntouched = end?.outcome === "failed" || end?.outcome === "cancelled";
        if (isUntouched) expect(seen.has("confirming")).toBe(false);
        if (end?.outcome !== "succeeded" && (end?.outcome !== "degraded" || isBack)) return;
        const needed = {
          switch: ["activating", "confirming", "committing"],
          boot: ["committing"],
          test: ["activating", "confirming"],
          "dry-activate": [],
        } as const;
        const byReboot = end.byReboot === true;
        for (const stage of byReboot ? BY_REBOOT : needed[start.mode]) expect(seen).toContain(stage);
        if (start.mode === "dry-activate") expect(seen.size).toBe(2);
      }),
    );
  });

  test("whoever gets an answer to each stage comes to an end, from any record", () => {
    const any = fc.record({ ...kinds, stage: fc.constantFrom(...STAGES), tries: fc.nat(5) });
    const answers = events.filter(({ kind }) => kind !== "rebooted");
    fc.assert(
      fc.property(any, fc.infiniteStream(answers), (start, stream) => {
        let record = recordOf({ ...start, outcome: start.stage === "finished" ? "failed" : null });
        for (let count = 0; record.stage !== "finished"; count += 1) {
          expect(count).toBeLessThan(STAGES.length + (UNDO_TRIES_MAX + 1) * (RETURNS_MAX + 1));
          const { value } = stream.next();
          // Only an undo asks for a reboot.
          const isOdd = value?.kind === "reboot" && record.stage !== "undoing";
          if (value !== undefined) record = advance(begin(record), isOdd ? EVENTS.bad : value);
        }
      }),
    );
  });

  test("every record can be written and read again", async () => {
    await using directory = await createTemporaryDirectory("engine");
    const all = fc.asyncProperty(starts, steps, async (start, taken) => {
      const last = walk(recordOf(start), taken).at(-1) ?? recordOf();
      await writeRecord(directory.path, last);
      expect(await readRecord(directory.path)).toEqual(last);
    });
    await fc.assert(all, { numRuns: 50 });
  });
});

describe("whose fault a way back is", () => {
  const reasonless = { reason: "it broke", exitCode: null };
  const causes = ["version", "unconfirmed", "elsewhere"] as const;
  const undone = (event: EngineEvent, reachesCoordinator?: boolean) =>
    advance(begin(advance(begin(recordOf({ stage: "confirming" })), event)), {
      kind: "good",
      exitCode: null,
      ...(reachesCoordinator === undefined ? {} : { reachesCoordinator }),
    }).fault;

  test("the version's, unless only the confirmation was missing and the old version is as mute, or it was a cancel", () => {
    const faults = causes.map((cause) =>
      [undefined, true, false].map((reaches) => undone({ kind: "bad", ...reasonless, cause }, reaches)),
    );
    expect(faults).toEqual([
      ["version", "version", "version"],
      ["version", "version", "contact"],
      [null, null, null],
    ]);
    expect(undone({ kind: "bad", ...reasonless })).toBe("version");
    expect(undone({ kind: "rebooted", bootId: "boot-2", runsNew: false }, false)).toBeNull();
  });

  test("of one that stays where it is, the version's", () => {
    const keep = { ...recordOf({ stage: "committing" }), unitsFailed: true };
    expect(advance(begin(keep), EVENTS.good)).toMatchObject({ outcome: "degraded", fault: "version" });
    let stuck = recordOf({ stage: "undoing", cause: "unconfirmed", reason: "no login" });
    while (stuck.stage === "undoing") stuck = advance(begin(stuck), EVENTS.bad);
    expect(stuck).toMatchObject({ outcome: "degraded", fault: "version" });
  });

  test("nobody's where nothing was touched, or all is well", () => {
    expect(advance(begin(recordOf({ stage: "activating" })), EVENTS.refused)).toMatchObject({
      outcome: "failed",
      fault: null,
    });
    expect(advance(begin(recordOf({ stage: "committing" })), EVENTS.good)).toMatchObject({
      outcome: "succeeded",
      fault: null,
    });
  });
});
