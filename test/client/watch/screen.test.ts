/** What a terminal shows of a rollout: each state, few and many agents, narrow and low terminals, text that would break it. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createRolloutWatch } from "../../../src/client/watch/rollout-watch.ts";
import { cutToWidth, renderScreen, type ScreenStyle } from "../../../src/client/watch/screen.ts";
import { DEPLOYMENT_STATES } from "../../../src/deployment.ts";
import { createDeployment } from "../../support/deployment-example.ts";

const plain = (text: string) => text;
const STYLE: ScreenStyle = { bold: plain, dim: plain, red: plain, green: plain, yellow: plain };
const SIZE = { columns: 100, rowsMax: 20, style: STYLE, nowMs: 15_000 };

type Fields = Parameters<typeof createDeployment>[0];
const fleetOf = (...all: readonly Fields[]) =>
  all.map((fields, index) => createDeployment({ ...fields, id: `${index}`.padStart(16, "a") }));
const show = (deployments: ReturnType<typeof fleetOf>, size: Partial<typeof SIZE> = {}) =>
  renderScreen([...createRolloutWatch(deployments, 3_000).all.values()], { ...SIZE, ...size });

describe("a line", () => {
  test.each([
    [{ state: "queued" }, "nuc  queued"],
    [{ state: "queued", contact: "offline" }, "nuc  offline      takes it when it returns"],
    [{ state: "fetching" }, "nuc  fetching     12 s"],
    [{ state: "activating" }, "nuc  activating   12 s"],
    [{ state: "rolling-back" }, "nuc  rolling back 12 s"],
    [{ state: "succeeded" }, "nuc  succeeded"],
    [{ state: "failed", reason: "the disk\n is \u001b[31mfull" }, "nuc  failed       the disk is full"],
    [
      { state: "fetching", stalledSince: "2026-01-01T13:05:59Z" },
      "nuc  fetching     no progress since 2026-01-01 13:05 UTC",
    ],
  ] as const)("of %p", (fields, line) => {
    expect(show(fleetOf(fields))).toEqual([line]);
  });

  test("of a download has a bar, speed and time left; of an activation its last line", () => {
    const [deployment] = fleetOf({ state: "fetching" });
    if (deployment === undefined) throw new Error("one was asked for");
    const watch = createRolloutWatch([deployment], 0);
    const facts = {
      deployment: deployment.id,
      agent: deployment.agent,
      paths: 1,
      pathsTotal: 4,
      bytesTotal: 100_000_000,
    };
    for (const second of [0, 1, 2]) {
      const progress = { ...facts, bytes: 10_000_000 * (second + 2) };
      watch.note({ kind: "progress", progress }, second * 1_000);
    }
    expect(renderScreen([...watch.all.values()], { ...SIZE, nowMs: 2_000 })).toEqual([
      "nuc  fetching     ████░░░░░░  40 %  40.0 MB of 100.0 MB, 10.0 MB/s, 6 s left (1 of 4 paths)",
    ]);
    watch.note({ kind: "state", deployment: { ...deployment, state: "activating" } }, 2_000);
    const line = { n: 1, at: "2026-01-01T00:00:00Z", stream: "out", text: "starting\tunits" } as const;
    watch.note({ kind: "log", deployment: deployment.id, agent: "nuc", line }, 3_000);
    expect(renderScreen([...watch.all.values()], { ...SIZE, nowMs: 65_000 })).toEqual([
      "nuc  activating   1 min 3 s  starting units",
    ]);
  });
});

describe("many agents", () => {
  const many = fleetOf(
    ...Array.from({ length: 5_000 }, (_, index): Fields => {
      if (index % 500 === 7) return { agent: `fetching-${index}`, state: "fetching" };
      if (index === 4_000) return { agent: "broken", state: "failed", reason: "no" };
      return { agent: `agent-${index}`, state: index < 2_500 ? "succeeded" : "queued" };
    }),
  );

  test("those at which something happens, what failed, and counts of all", () => {
    const lines = show(many, { rowsMax: 20 });
    expect(lines).toHaveLength(12);
    expect(lines[0]).toBe("fetching-7     fetching     12 s");
    expect(lines.find((line) => line.startsWith("broken"))).toBe("broken         failed       no");
    expect(lines.at(-1)).toBe("5000 agents: 2494 queued, 10 fetching, 2495 succeeded, 1 failed");
  });

  test("are never more lines than there is room, and none wider", () => {
    for (const rowsMax of [1, 2, 5]) expect(show(many, { rowsMax })).toHaveLength(rowsMax);
    expect(show(many, { rowsMax: 1 })[0]).toStartWith("5000 agents: ");
  });
});

test("whatever is shown, it fits", () => {
  const deployment = fc.record({
    agent: fc.stringMatching(/^[a-z][a-z0-9.-]{0,63}$/),
    state: fc.constantFrom(...DEPLOYMENT_STATES),
    contact: fc.constantFrom("online", "offline", "unknown"),
    reason: fc.option(fc.string({ unit: "grapheme" })),
  });
  fc.assert(
    fc.property(
      fc.array(deployment, { maxLength: 8 }),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 6 }),
      (all, columns, rowsMax) => {
        const lines = show(fleetOf(...all), { columns, rowsMax });
        expect(lines.length).toBeLessThanOrEqual(rowsMax);
        for (const line of lines) {
          expect(Bun.stringWidth(line)).toBeLessThanOrEqual(columns);
          expect(line.split(/[\r\n\t]/)).toHaveLength(1);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test.each([
  ["short", 10, "short"],
  ["exactly", 7, "exactly"],
  ["too long", 5, "too …"],
  ["漢字漢字", 5, "漢字…"],
  ["漢字漢字", 4, "漢…"],
  ["x", 0, ""],
] as const)("%s in %d columns is %s", (text, width, expected) => {
  expect(cutToWidth(text, width)).toBe(expected);
});
