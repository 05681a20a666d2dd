import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { DEPLOYMENT_STATES, type DeploymentState, isTerminal, OUTCOMES, PHASES } from "../../../src/deployment.ts";
import {
  type Lifecycle,
  type LifecycleEvent,
  type StopReason,
  step,
} from "../../../src/server/deployments/lifecycle.ts";

const STOP_REASONS: readonly (StopReason | null)[] = [null, "cancelled", "superseded"];

const EVENTS = {
  offer: { type: "offer" },
  forgotten: { type: "forgotten", newerWaits: false },
  "forgotten-newer": { type: "forgotten", newerWaits: true },
  fetching: { type: "phase", phase: "fetching" },
  activating: { type: "phase", phase: "activating" },
  succeeded: { type: "outcome", outcome: "succeeded", reason: "done" },
  cancelled: { type: "outcome", outcome: "cancelled", reason: "stopped" },
  supersede: { type: "supersede" },
  cancel: { type: "cancel" },
  expire: { type: "expire" },
  restore: { type: "restore" },
} as const satisfies Record<string, LifecycleEvent>;
type EventName = keyof typeof EVENTS;

/** One row per state (`!` with the reason when it was asked to stop), one column per event; `–`: nothing happens. */
const TABLE = `
| state                 | offer   | forgotten  | forgotten-newer | fetching            |
| queued                | offered | –          | –               | fetching            |
| offered               | –       | queued     | superseded      | fetching            |
| offered!cancelled     | –       | cancelled  | cancelled       | fetching!cancelled  |
| offered!superseded    | –       | superseded | superseded      | fetching!superseded |
| fetching              | –       | queued     | superseded      | –                   |
| fetching!cancelled    | –       | cancelled  | cancelled       | –                   |
| fetching!superseded   | –       | superseded | superseded      | –                   |
| activating            | –       | degraded   | degraded        | fetching            |
| activating!superseded | –       | degraded   | degraded        | fetching!superseded |
| rebooting             | –       | degraded   | degraded        | fetching            |
| confirming            | –       | degraded   | degraded        | fetching            |
| rolling-back          | –       | degraded   | degraded        | fetching            |

| state                 | activating            | succeeded | cancelled  | supersede           | cancel                 | expire  |
| queued                | activating            | succeeded | cancelled  | superseded          | cancelled              | expired |
| offered               | activating            | succeeded | cancelled  | offered!superseded  | offered!cancelled      | expired |
| offered!cancelled     | activating!cancelled  | succeeded | cancelled  | –                   | –                      | cancelled |
| offered!superseded    | activating!superseded | succeeded | superseded | –                   | –                      | superseded |
| fetching              | activating            | succeeded | cancelled  | fetching!superseded | fetching!cancelled     | –       |
| fetching!cancelled    | activating!cancelled  | succeeded | cancelled  | –                   | –                      | –       |
| fetching!superseded   | activating!superseded | succeeded | superseded | –                   | –                      | –       |
| activating            | –                     | succeeded | cancelled  | –                   | activating!cancelled   | –       |
| activating!superseded | –                     | succeeded | superseded | –                   | –                      | –       |
| rebooting             | activating            | succeeded | cancelled  | –                   | rebooting!cancelled    | –       |
| confirming            | activating            | succeeded | cancelled  | –                   | confirming!cancelled   | –       |
| rolling-back          | activating            | succeeded | cancelled  | –                   | rolling-back!cancelled | –       |

| state                 | restore   |
| queued                | cancelled |
| offered               | cancelled |
| offered!cancelled     | cancelled |
| offered!superseded    | cancelled |
| fetching              | cancelled |
| fetching!cancelled    | cancelled |
| fetching!superseded   | cancelled |
| activating            | –         |
| activating!superseded | –         |
| rebooting             | –         |
| confirming            | –         |
| rolling-back          | –         |
`;

type Case = { readonly from: string; readonly event: EventName; readonly to: string };

function parseTable(text: string): Case[] {
  const cellsOf = (line: string) => line.split("|").map((cell) => cell.trim());
  return text
    .trim()
    .split("\n\n")
    .flatMap((part) => {
      const [, [, , ...events] = [], ...rows] = [null, ...part.split("\n").map(cellsOf)];
      return rows.flatMap(([, from = "", ...cells]) =>
        events.flatMap((event, column): Case[] =>
          isEventName(event) ? [{ from, event, to: cells[column] ?? "" }] : [],
        ),
      );
    });
}

const isEventName = (text: string): text is EventName => text in EVENTS;
const cases = parseTable(TABLE);

describe("the table", () => {
  for (const { from, event, to } of cases) {
    test(`${from} + ${event}`, () => expect(format(step(parse(from), EVENTS[event]))).toBe(to));
  }

  test("has every live state and every event", () => {
    const live = DEPLOYMENT_STATES.filter((state) => !isTerminal(state));
    const names = Object.keys(EVENTS);
    const missing = live.flatMap((state) =>
      names.filter((name) => !cases.some(({ from, event }) => from === state && event === name)),
    );
    expect(missing).toEqual([]);
  });

  for (const state of DEPLOYMENT_STATES.filter(isTerminal)) {
    test(`${state} absorbs everything`, () => {
      for (const event of Object.values(EVENTS)) expect(step({ state, stopRequested: null }, event)).toBeNull();
    });
  }
});

describe("the table in the doc comment", () => {
  const source = readFileSync(join(import.meta.dir, "../../../src/server/deployments/lifecycle.ts"), "utf8");
  const rows = source
    .split("\n")
    .filter((line) => line.startsWith(" * | "))
    .map((line) => line.split("|").map((cell) => cell.replace(/[¹²³⁴⁵⁶⁷*]/g, "").trim()));
  const [, [, , ...columns] = [], , ...body] = [null, ...rows];
  const statesOf = (column: string): readonly DeploymentState[] => {
    if (column === "terminal") return DEPLOYMENT_STATES.filter(isTerminal);
    if (column.includes("…")) return ["activating", "rebooting", "confirming", "rolling-back"];
    return DEPLOYMENT_STATES.filter((state) => state === column);
  };
  const eventsOf = (name: string): readonly LifecycleEvent[] => {
    switch (name) {
      case "forgotten":
        return [{ type: name, newerWaits: false }];
      case "phase":
        return PHASES.map((phase) => ({ type: "phase", phase }));
      case "outcome":
        return OUTCOMES.map((outcome) => ({ type: "outcome", outcome, reason: "so" }));
      case "offer":
      case "supersede":
      case "cancel":
      case "expire":
      case "restore":
      case "removed":
        return [{ type: name }];
      default:
        return [];
    }
  };
  /** What a cell promises of a deployment that nobody has asked to stop. */
  const promised = (cell: string, state: DeploymentState, event: LifecycleEvent): string => {
    if (cell === "–") return "–";
    if (cell === "ask to stop") return `${state}!${event.type === "supersede" ? "superseded" : "cancelled"}`;
    if (cell === "that phase" && event.type === "phase") return event.phase === state ? "–" : event.phase;
    if (cell === "outcome" && event.type === "outcome") return event.outcome;
    return cell;
  };

  test("says of every state and every event what the code does", () => {
    const seen = new Set<string>();
    for (const [, name = "", ...cells] of body) {
      for (const [index, column] of columns.entries()) {
        for (const state of statesOf(column)) {
          for (const event of eventsOf(name)) {
            seen.add(`${state} ${event.type}`);
            const actual = `${state} + ${name}: ${format(step({ state, stopRequested: null }, event))}`;
            expect(actual).toBe(`${state} + ${name}: ${promised(cells[index] ?? "", state, event)}`);
          }
        }
      }
    }
    const names = body.map(([, name]) => name);
    expect(names).toEqual(expect.arrayContaining([...new Set(Object.values(EVENTS).map(({ type }) => type))]));
    expect(seen.size).toBe(DEPLOYMENT_STATES.length * names.length);
  });
});

describe("reasons", () => {
  const reasons: readonly (readonly [from: string, event: LifecycleEvent, reason: string | null])[] = [
    ["fetching", { type: "outcome", outcome: "failed", reason: "disk full" }, "disk full"],
    [
      "fetching!superseded",
      { type: "outcome", outcome: "cancelled", reason: "stopped" },
      "A newer deployment took its place.",
    ],
    ["queued", { type: "supersede" }, "A newer deployment took its place."],
    ["queued", { type: "cancel" }, "Cancelled before it started."],
    ["queued", { type: "expire" }, "The agent did not come back in time."],
    ["offered", { type: "expire" }, "it may have carried it out"],
    ["offered!cancelled", { type: "expire" }, "it may have carried it out"],
    ["activating", { type: "forgotten", newerWaits: false }, "without any memory of it"],
    ["fetching!cancelled", { type: "forgotten", newerWaits: false }, "asked to stop"],
    ["queued", { type: "offer" }, null],
    ["offered", { type: "cancel" }, null],
  ];
  for (const [from, event, reason] of reasons) {
    test(`${from} + ${event.type}`, () => {
      const actual = step(parse(from), event)?.reason ?? null;
      if (reason === null) expect(actual).toBeNull();
      else expect(actual).toContain(reason);
    });
  }
});

const anyEvent: fc.Arbitrary<LifecycleEvent> = fc.oneof(
  fc.constantFrom<LifecycleEvent>({ type: "offer" }, { type: "supersede" }, { type: "cancel" }, { type: "expire" }),
  fc.record({ type: fc.constant("forgotten" as const), newerWaits: fc.boolean() }),
  fc.record({ type: fc.constant("phase" as const), phase: fc.constantFrom(...PHASES) }),
  fc.record({
    type: fc.constant("outcome" as const),
    outcome: fc.constantFrom(...OUTCOMES),
    reason: fc.constant("so"),
  }),
);
const anyLifecycle: fc.Arbitrary<Lifecycle> = fc
  .record({ state: fc.constantFrom(...DEPLOYMENT_STATES), stopRequested: fc.constantFrom(...STOP_REASONS) })
  .filter(({ state, stopRequested }) => stopRequested === null || (state !== "queued" && !isTerminal(state)));
const NEW: Lifecycle = { state: "queued", stopRequested: null };

describe("whatever happens", () => {
  const history = fc.array(anyEvent, { maxLength: 30 });
  const run = (events: readonly LifecycleEvent[]): Lifecycle[] => {
    let current = NEW;
    return events.map((event) => {
      current = step(current, event) ?? current;
      return current;
    });
  };

  test("a terminal state absorbs, its reason too", () => {
    fc.assert(
      fc.property(anyLifecycle, anyEvent, (from, event) => {
        if (isTerminal(from.state)) expect(step(from, event)).toBeNull();
      }),
    );
  });

  test("nobody is asked to stop what is queued or over", () => {
    fc.assert(
      fc.property(history, (events) => {
        for (const { state, stopRequested } of run(events)) {
          if (state === "queued" || isTerminal(state)) expect(stopRequested).toBeNull();
        }
      }),
    );
  });

  test("a change changes something", () => {
    fc.assert(
      fc.property(anyLifecycle, anyEvent, (from, event) => {
        const change = step(from, event);
        if (change !== null) expect(change).not.toMatchObject({ ...from });
      }),
    );
  });

  test("what was asked once stays asked until the agent answered or forgot", () => {
    fc.assert(
      fc.property(anyLifecycle, anyEvent, (from, event) => {
        const change = step(from, event);
        if (from.stopRequested === null || change === null || isTerminal(change.state)) return;
        expect(change.stopRequested).toBe(from.stopRequested);
      }),
    );
  });

  test("only the agent's word makes it succeed, fail, roll back", () => {
    fc.assert(
      fc.property(anyLifecycle, anyEvent, (from, event) => {
        const state = step(from, event)?.state;
        if (state === "succeeded" || state === "failed" || state === "rolled-back") {
          expect(event).toMatchObject({ type: "outcome", outcome: state });
        }
      }),
    );
  });

  test("it ends when offers reach the agent and the agent answers", () => {
    fc.assert(
      fc.property(history, fc.constantFrom(...OUTCOMES), (events, outcome) => {
        const fair: LifecycleEvent[] = [{ type: "offer" }, { type: "phase", phase: "fetching" }];
        const after = run([...events, ...fair, { type: "outcome", outcome, reason: "so" }]);
        expect(isTerminal(after.at(-1)?.state ?? "queued")).toBe(true);
      }),
    );
  });

  test("it ends when its agent never comes back, unless that has taken it", () => {
    fc.assert(
      fc.property(anyLifecycle, fc.boolean(), (from, isCancelled) => {
        const asked = isCancelled ? (step(from, { type: "cancel" }) ?? from) : from;
        const expired = step(asked, { type: "expire" });
        const isTaken = PHASES.some((phase) => phase === from.state);
        expect(isTerminal((expired ?? asked).state)).toBe(!isTaken);
        // Nothing is claimed that only the agent knows.
        if (from.state === "offered") expect(expired?.reason).toContain("may have");
      }),
    );
  });

  test("cancelled while it waits or is asked, it never runs on silently: it ends or the agent is asked", () => {
    fc.assert(
      fc.property(anyLifecycle, (from) => {
        const after = step(from, { type: "cancel" }) ?? from;
        expect(isTerminal(after.state) || after.stopRequested !== null).toBe(true);
      }),
    );
  });
});

function parse(text: string): Lifecycle {
  const [state, stop] = text.split("!");
  const known = DEPLOYMENT_STATES.find((candidate) => candidate === state);
  if (known === undefined) throw new Error(`no such state: ${text}`);
  return { state: known, stopRequested: STOP_REASONS.find((reason) => reason === stop) ?? null };
}

function format(change: { state: DeploymentState; stopRequested: StopReason | null } | null): string {
  if (change === null) return "–";
  return change.stopRequested === null ? change.state : `${change.state}!${change.stopRequested}`;
}
