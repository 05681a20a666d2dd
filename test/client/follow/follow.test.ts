import { describe, expect, test } from "bun:test";
import type { DeploymentDto, FollowEvent } from "../../../src/api/deployments.ts";
import {
  type FollowMessage,
  type FollowOptions,
  followDeployments,
  UNREACHABLE_MAX_MS,
} from "../../../src/client/follow/follow.ts";
import { toFollowFailure } from "../../../src/client/follow/follow-failure.ts";
import type { FollowNote } from "../../../src/client/follow/follow-state.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { parseRolloutId } from "../../../src/names.ts";
import { systemClock, systemRandom } from "../../../src/runtime.ts";
import { createDeployment } from "../../support/deployment-example.ts";
import { createInstantClock } from "../../support/instant-clock.ts";

/** What one opening of the stream gives: events, then a clean end or an error. */
type Stream = { readonly events: readonly FollowMessage[]; readonly last?: "end" | "hang" | Error };

const change = (id: string, fields: Partial<Record<keyof DeploymentDto, unknown>>): FollowMessage => ({
  id,
  event: { event: "deployment", data: createDeployment(fields) },
});
const end: FollowMessage = { id: "9", event: { event: "end", data: {} } };
const log = (id: string, ...numbers: number[]): FollowMessage => {
  const { id: deployment, agent } = createDeployment();
  const lines = numbers.map((n) => ({ n, at: "2026-01-01T00:00:00Z", stream: "out" as const, text: `line ${n}` }));
  return { id, event: { event: "log", data: { deployment, agent, lines } } satisfies FollowEvent };
};
const unreachable = () => new NixdeployError("unreachable", "connection refused");

function play(streams: readonly Stream[]) {
  const seenIds: (string | null)[] = [];
  const openEvents: FollowOptions["openEvents"] = async function* (lastEventId, signal) {
    const stream = streams[seenIds.length] ?? { events: [], last: unreachable() };
    seenIds.push(lastEventId);
    yield* stream.events;
    if (stream.last instanceof Error) throw stream.last;
    if (stream.last === "hang") {
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
    }
  };
  return { openEvents, seenIds };
}

async function follow(streams: readonly Stream[], options: Partial<FollowOptions> = {}) {
  const { openEvents, seenIds } = play(streams);
  const notes: FollowNote[] = [];
  const contacts: string[] = [];
  const clock = createInstantClock();
  const result = await followDeployments({
    openEvents,
    deployments: [createDeployment()],
    until: "settled",
    timeoutMs: null,
    clock,
    random: systemRandom,
    signal: new AbortController().signal,
    onNote: (note) => {
      notes.push(note);
    },
    onContact: (contact) => void contacts.push(contact),
    ...options,
  });
  const numbers = notes.flatMap((note) => (note.kind === "log" ? [note.line.n] : []));
  const states = notes.flatMap((note) => (note.kind === "state" ? [note.deployment.state] : []));
  return { result, seenIds, contacts, clock, numbers, states };
}

describe("followDeployments", () => {
  test("reports changes and lines until the end, and no more", async () => {
    const events = [
      change("1", {}),
      change("2", { state: "fetching" }),
      log("3", 1, 2),
      change("4", { state: "succeeded" }),
      log("5", 3),
      end,
    ];
    const { result, numbers, states, contacts } = await follow([{ events, last: "hang" }]);
    expect(result.end).toEqual({ kind: "over", exitCode: 0 });
    expect([states, numbers, contacts]).toEqual([["fetching", "succeeded"], [1, 2, 3], []]);
  });

  test("goes on where a cut stream ended, and drops what comes twice", async () => {
    const { result, numbers, seenIds, contacts } = await follow([
      { events: [change("1", { state: "fetching" }), log("2", 1, 2)], last: unreachable() },
      { events: [], last: unreachable() },
      { events: [log("2", 1, 2), log("3", 3), change("4", { state: "failed" })], last: "end" },
      { events: [end] },
    ]);
    expect(result.end).toEqual({ kind: "over", exitCode: 1 });
    expect(numbers).toEqual([1, 2, 3]);
    expect(seenIds).toEqual([null, "2", "2", "4"]);
    expect(contacts).toEqual(["lost", "back", "lost", "back"]);
  });

  test("an agent that is offline is no reason to wait; one that was not heard of yet is", async () => {
    const offline = await follow([], { deployments: [createDeployment({ contact: "offline" })] });
    expect([offline.result.end, offline.seenIds]).toEqual([{ kind: "over", exitCode: 0 }, []]);
    const events = [change("1", { contact: "unknown" }), change("1", { contact: "offline" })];
    const later = await follow([{ events, last: "hang" }], { deployments: [createDeployment({ contact: "unknown" })] });
    expect(later.result.end).toEqual({ kind: "over", exitCode: 0 });
  });

  test("until final, it waits for the offline agent as well", async () => {
    const events = [change("2", { state: "succeeded" }), end];
    const deployments = [createDeployment({ contact: "offline" })];
    const { result, states } = await follow([{ events }], { deployments, until: "final" });
    expect([result.end, states]).toEqual([{ kind: "over", exitCode: 0 }, ["succeeded"]]);
  });

  test("gives up when the coordinator stays away for two minutes, not before", async () => {
    const { result, clock, contacts } = await follow([{ events: [change("1", { state: "fetching" })] }]);
    expect(result.end).toMatchObject({ kind: "unreachable", cause: { message: "connection refused" } });
    expect(result.deployments).toMatchObject([{ state: "fetching" }]);
    const waitedMs = clock.sleepsMs.reduce((total, sleep) => total + sleep, 0);
    expect(waitedMs).toBeGreaterThanOrEqual(UNREACHABLE_MAX_MS);
    expect(waitedMs).toBeLessThan(UNREACHABLE_MAX_MS + 5_000);
    expect(contacts).toEqual(["lost"]);
  });

  test("has the patience for a coordinator whose own host goes back, too", async () => {
    const extraPatienceMs = 60_000;
    const { clock } = await follow([{ events: [change("1", { state: "confirming" })] }], { extraPatienceMs });
    const waitedMs = clock.sleepsMs.reduce((total, sleep) => total + sleep, 0);
    expect(waitedMs).toBeGreaterThanOrEqual(UNREACHABLE_MAX_MS + extraPatienceMs);
    expect(waitedMs).toBeLessThan(UNREACHABLE_MAX_MS + extraPatienceMs + 5_000);
  });

  test("waits as long as the longest confirm window of what has not ended, which a device may set itself", async () => {
    const events = [change("1", { state: "confirming", confirmWindowMs: 300_000 })];
    const { clock } = await follow([{ events }], { extraPatienceMs: 60_000 });
    const waitedMs = clock.sleepsMs.reduce((total, sleep) => total + sleep, 0);
    expect(waitedMs).toBeGreaterThanOrEqual(UNREACHABLE_MAX_MS + 300_000);
    expect(waitedMs).toBeLessThan(UNREACHABLE_MAX_MS + 300_000 + 5_000);
  });

  test("two minutes count anew after each contact", async () => {
    const flaky: Stream[] = Array.from({ length: 200 }, () => ({ events: [change("1", { state: "fetching" })] }));
    const { result } = await follow([...flaky, { events: [change("2", { state: "succeeded" }), end] }]);
    expect(result.end).toEqual({ kind: "over", exitCode: 0 });
  });

  test("a coordinator that goes away after the last word was said does not change it", async () => {
    const { result } = await follow([{ events: [change("1", { state: "degraded" })], last: unreachable() }]);
    expect(result.end).toEqual({ kind: "over", exitCode: 1 });
  });

  test("the time is up", async () => {
    const events = [change("1", { state: "activating" })];
    const { result } = await follow([{ events, last: "hang" }], { clock: systemClock, timeoutMs: 20 });
    expect(result.end).toEqual({ kind: "timeout" });
    expect(result.deployments).toMatchObject([{ state: "activating" }]);
  });

  test("an interruption detaches", async () => {
    const controller = new AbortController();
    const { result } = await follow([{ events: [change("1", { state: "fetching" })], last: "hang" }], {
      signal: controller.signal,
      onNote: () => controller.abort(),
    });
    expect(result.end).toEqual({ kind: "interrupted" });
  });

  test("a revoked token ends it at once", async () => {
    const denied = new NixdeployError("denied", "the token was revoked");
    const run = follow([{ events: [change("1", { state: "fetching" })] }, { events: [], last: denied }]);
    await expect(run).rejects.toBe(denied);
  });
});

describe("toFollowFailure", () => {
  const rolloutId = parseRolloutId("rrrrrrrrrrrrrrrr");
  const running = createDeployment({ state: "fetching" });
  const failed = createDeployment({ state: "failed", reason: "the disk is full" });
  const parked = createDeployment({ contact: "offline" });

  test.each([
    ["all good", { kind: "over", exitCode: 0 }, [parked], null, ""],
    ["one failed", { kind: "over", exitCode: 1 }, [failed], "refused", "cannot deploy to nuc"],
    ["one of two failed", { kind: "over", exitCode: 1 }, [failed, parked], "refused", "1 of 2 agents"],
    ["time is up", { kind: "timeout" }, [running, running], "unreachable", "2 deployments go on"],
    ["time is up, one has failed", { kind: "timeout" }, [running, failed], "refused", "1 of 2 agents"],
    ["coordinator gone", { kind: "unreachable", cause: unreachable() }, [running], "unreachable", "connection refused"],
    ["interrupted", { kind: "interrupted" }, [running], "interrupted", "1 deployment goes on"],
  ] as const)("%s", (_what, followEnd, deployments, kind, text) => {
    const failure = toFollowFailure({ end: followEnd, deployments }, rolloutId);
    expect(failure?.kind ?? null).toBe(kind);
    expect(failure?.message ?? "").toContain(text);
  });

  test("says how to go on, and why each bad one is bad", () => {
    const interrupted = toFollowFailure({ end: { kind: "interrupted" }, deployments: [running] }, rolloutId);
    expect(interrupted?.hint).toBe(
      "Follow with: nixdeploy logs rrrrrrrrrrrrrrrr --follow, or cancel with: nixdeploy cancel rrrrrrrrrrrrrrrr",
    );
    const timeout = toFollowFailure({ end: { kind: "timeout" }, deployments: [running, failed] }, rolloutId);
    expect(timeout?.details).toEqual(["nuc: failed: the disk is full"]);
    expect(timeout?.hint).toContain("the time is up; 1 deployment goes on");
  });
});

describe("a log", () => {
  const over = change("2", { state: "succeeded" });

  test.each<readonly [string, readonly Stream[], boolean]>([
    ["is whole when the coordinator has said so", [{ events: [log("1", 1), over, end], last: "end" }], false],
    ["is cut when it was lost for good before that", [{ events: [log("1", 1), over], last: unreachable() }], true],
    ["is whole when it was there again", [{ events: [over], last: "end" }, { events: [log("3", 1), end] }], false],
  ])("%s", async (_, streams, isLogCut) => {
    const { result } = await follow(streams, { until: "final" });
    expect(result).toMatchObject({ end: { kind: "over", exitCode: 0 }, isLogCut });
  });
});
