import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { DeploymentDto, FollowEvent } from "../../../src/api/deployments.ts";
import {
  type Contact,
  createFollowState,
  decideCutShort,
  decideFollow,
  type Standing,
  standingOf,
} from "../../../src/client/follow/follow-state.ts";
import { formatDeploymentLine, formatProgress, summarize } from "../../../src/client/follow/follow-text.ts";
import { DEPLOYMENT_STATES, type DeploymentState } from "../../../src/deployment.ts";
import { createDeployment as deployment, EXAMPLE_HASH_PART as HASH } from "../../support/deployment-example.ts";

const CONTACTS: readonly Contact[] = ["online", "offline", "unknown"];

/** Standing by contact: online, offline, unknown. */
const STANDINGS: Readonly<Record<DeploymentState, readonly [Standing, Standing, Standing]>> = {
  queued: ["running", "parked", "running"],
  offered: ["running", "parked", "running"],
  fetching: ["running", "running", "running"],
  activating: ["running", "running", "running"],
  rebooting: ["running", "running", "running"],
  confirming: ["running", "running", "running"],
  "rolling-back": ["running", "running", "running"],
  succeeded: ["good", "good", "good"],
  failed: ["bad", "bad", "bad"],
  "rolled-back": ["bad", "bad", "bad"],
  degraded: ["bad", "bad", "bad"],
  superseded: ["bad", "bad", "bad"],
  cancelled: ["bad", "bad", "bad"],
  expired: ["bad", "bad", "bad"],
};

describe("the exit code of every state and contact", () => {
  const cells = DEPLOYMENT_STATES.flatMap((state) =>
    CONTACTS.map((contact, index) => [state, contact, STANDINGS[state][index] ?? "running"] as const),
  );

  test.each(cells)("%s, %s: %s", (state, contact, expected) => {
    expect(standingOf(state, contact)).toBe(expected);
    const verdict = decideFollow([deployment({ state, contact })]);
    const cutShort = decideCutShort([deployment({ state, contact })]);
    switch (expected) {
      case "running":
        expect([verdict, cutShort]).toEqual([{ kind: "running" }, 75]);
        break;
      case "parked":
        expect([verdict, cutShort]).toEqual([{ kind: "over", exitCode: 0, final: false }, 75]);
        break;
      case "good":
        expect([verdict, cutShort]).toEqual([{ kind: "over", exitCode: 0, final: true }, 75]);
        break;
      case "bad":
        expect([verdict, cutShort]).toEqual([{ kind: "over", exitCode: 1, final: true }, 1]);
        break;
      default:
        expected satisfies never;
    }
  });

  test("one that runs keeps a rollout going, whatever the others are", () => {
    const others = [deployment({ state: "failed" }), deployment({ state: "succeeded" })];
    expect(decideFollow([...others, deployment({ state: "confirming" })])).toEqual({ kind: "running" });
    expect(decideCutShort([...others, deployment({ state: "confirming" })])).toBe(1);
  });

  test("one bad among good and parked makes 1", () => {
    const good = deployment({ state: "succeeded" });
    const parked = deployment({ state: "queued", contact: "offline" });
    expect(decideFollow([good, parked])).toEqual({ kind: "over", exitCode: 0, final: false });
    expect(decideFollow([good, parked, deployment({ state: "superseded" })])).toMatchObject({ exitCode: 1 });
  });
});

describe("what a follower takes in", () => {
  const start = (...deployments: readonly DeploymentDto[]) =>
    createFollowState(deployments.length === 0 ? [deployment()] : deployments);
  const told = (data: DeploymentDto): FollowEvent => ({ event: "deployment", data });
  const line = (n: number) => ({ n, at: "2026-01-01T00:00:00Z", stream: "out" as const, text: `line ${n}` });
  const logEvent = (...numbers: number[]): FollowEvent => ({
    event: "log",
    data: { deployment: deployment().id, agent: deployment().agent, lines: numbers.map(line) },
  });

  test("a state that did not change is no news; a changed one is", () => {
    const state = start();
    expect(state.apply(told(deployment()))).toEqual([]);
    const data = deployment({ state: "fetching" });
    expect(state.apply(told(data))).toEqual([{ kind: "state", deployment: data }]);
    expect([...state.deployments.values()]).toEqual([data]);
  });

  test("a queued agent that turns out offline is news, unknown is not yet", () => {
    const state = start();
    expect(state.apply(told(deployment({ contact: "unknown" })))).toEqual([]);
    expect(state.apply(told(deployment({ contact: "offline" })))).toHaveLength(1);
  });

  test("lines that a reopened stream repeats are dropped", () => {
    const state = start();
    expect(state.apply(logEvent(1, 2, 3))).toHaveLength(3);
    expect(state.apply(logEvent(2, 3, 4))).toMatchObject([{ kind: "log", agent: "nuc", line: { n: 4 } }]);
    expect(state.apply(logEvent(1))).toEqual([]);
    expect(state.apply(logEvent(4))).toEqual([]);
  });

  test("a state that was passed through is news once, and never after an end", () => {
    const state = createFollowState([deployment({ state: "fetching" })]);
    const { id, agent } = deployment({});
    const pass = (passed: DeploymentState) =>
      state.apply({ event: "phase", data: { deployment: id, agent, state: passed, at: "2026-01-01T00:00:00.000Z" } });
    expect(pass("activating")).toMatchObject([{ kind: "state", deployment: { state: "activating" } }]);
    expect(pass("activating")).toEqual([]);
    expect(state.verdict()).toEqual({ kind: "running" });
    state.apply({ event: "deployment", data: deployment({ state: "succeeded" }) });
    expect(pass("confirming")).toEqual([]);
    expect(state.verdict()).toMatchObject({ kind: "over", exitCode: 0 });
  });

  test("end is remembered", () => {
    const state = start();
    expect(state.ended).toBe(false);
    state.apply({ event: "end", data: {} });
    expect(state.ended).toBe(true);
  });

  test("its verdict is that of its deployments, after any events, of some that it did not know as well", () => {
    const one = fc.record({
      id: fc.constantFrom("a", "b", "c", "d").map((letter) => letter.repeat(16)),
      state: fc.constantFrom(...DEPLOYMENT_STATES),
      contact: fc.constantFrom(...CONTACTS),
    });
    fc.assert(
      fc.property(fc.array(one), (all) => {
        const state = start(deployment());
        for (const fields of all) {
          state.apply(told(deployment(fields)));
          expect(state.verdict()).toEqual(decideFollow(state.deployments.values()));
        }
      }),
    );
  });
});

describe("text", () => {
  test.each([
    [{}, `nuc: queued /nix/store/${HASH}-system`],
    [{ contact: "offline" }, "nuc is offline: it takes this deployment when it returns"],
    [{ state: "offered" }, "nuc: offered to the agent"],
    [{ state: "rolling-back", reason: "probe failed" }, "nuc: rolling back"],
    [{ state: "failed", reason: "the disk\u001b[2J is full" }, "nuc: failed: the disk[2J is full"],
    [{ state: "rolled-back", reason: "no proof in time" }, "nuc: rolled back: no proof in time"],
    [{ state: "succeeded" }, "nuc: succeeded"],
  ])("formatDeploymentLine(%p)", (fields, expected) => {
    expect(formatDeploymentLine(deployment(fields))).toBe(expected);
  });

  test("formatProgress", () => {
    const { id, agent } = deployment();
    const progress = { deployment: id, agent, paths: 12, pathsTotal: 40, bytes: 3_100_000, bytesTotal: 20_000_000 };
    expect(formatProgress(progress)).toBe("nuc: fetching 12 of 40 paths, 3.1 MB of 20.0 MB");
  });

  test.each([
    [{ state: "succeeded", finishedAt: "2026-01-01T00:00:00.850Z" }, "succeeded", "850 ms", ""],
    [{ state: "failed", reason: "no", finishedAt: "2026-01-01T00:03:05Z" }, "failed", "3 min 5 s", "no"],
    [{ state: "degraded", finishedAt: "2026-01-01T02:10:05Z" }, "degraded", "2 h 10 min", ""],
    [
      { state: "succeeded", startedAt: "2026-01-01T00:00:10Z", finishedAt: "2026-01-01T00:00:22Z" },
      "succeeded",
      "12 s",
      "",
    ],
    [{ contact: "offline" }, "queued", "-", "offline: takes it when it returns"],
    [{ state: "fetching" }, "fetching", "-", ""],
  ])("summarize(%p)", (fields, outcome, duration, reason) => {
    const { url } = deployment();
    expect(summarize(deployment(fields))).toEqual({ agent: "nuc", outcome, duration, reason, url });
  });
});
