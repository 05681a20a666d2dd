/** When a webhook tries again, when it gives up, which changes go into which delivery. */
import { describe, expect, test } from "bun:test";
import type { EventRow } from "../../../src/server/database/events.ts";
import {
  BATCH_BYTES_MAX,
  formatWebhookEvents,
  parseWebhookEvents,
  takeBatch,
} from "../../../src/server/webhooks/payload.ts";
import {
  GIVE_UP_AFTER_MS,
  isTooLate,
  NO_TROUBLE,
  planNextAttempt,
  type Trouble,
} from "../../../src/server/webhooks/schedule.ts";

const HOUR_MS = 3_600_000;

describe("the next try", () => {
  test("comes later each time, at a random moment, never after more than an hour", () => {
    let trouble: Trouble = NO_TROUBLE;
    const longest: number[] = [];
    for (let failure = 0; failure < 14; failure += 1) {
      longest.push(planNextAttempt(trouble, { nowMs: 0, fraction: 0.999_999_999 }).next_attempt_ms);
      expect(planNextAttempt(trouble, { nowMs: 0, fraction: 0 }).next_attempt_ms).toBe(1_000);
      trouble = planNextAttempt(trouble, { nowMs: 0, fraction: 0.5 });
    }
    expect(longest.slice(0, 4)).toEqual([5_000, 10_000, 20_000, 40_000]);
    expect(Math.max(...longest)).toBe(HOUR_MS);
    expect(longest).toEqual([...longest].sort((a, b) => a - b));
  });

  test("it is remembered when the first one failed", () => {
    const first = planNextAttempt(NO_TROUBLE, { nowMs: 5, fraction: 0 });
    expect(planNextAttempt(first, { nowMs: 9_000, fraction: 0 })).toMatchObject({ failing_since_ms: 5, failures: 2 });
  });
});

test.each([
  ["nothing has failed", null, 0, 99 * HOUR_MS, false],
  ["just before 24 h of failing", 0, -HOUR_MS, GIVE_UP_AFTER_MS - 1, false],
  ["24 h of failing, older", 0, -9 * HOUR_MS, GIVE_UP_AFTER_MS, true],
  ["24 h of failing, but it happened later", 0, HOUR_MS, GIVE_UP_AFTER_MS, false],
  ["24 h after it happened", 0, HOUR_MS, GIVE_UP_AFTER_MS + HOUR_MS, true],
])("given up: %s", (_what, failing_since_ms, newestMs, nowMs, isLate) => {
  expect(isTooLate({ failing_since_ms }, { newestMs, nowMs })).toBe(isLate);
});

function row(id: number, kind: string, data: object = {}): EventRow {
  const about = { rollout_id: null, deployment_id: null, agent_id: null };
  return { id, at_ms: id, workspace_id: "w", kind, ...about, data: JSON.stringify(data) };
}

describe("a delivery", () => {
  const rows = [
    row(3, "rollout"),
    row(5, "deployment", { state: "fetching" }),
    row(6, "deployment", { state: "failed" }),
    row(7, "agent", { state: "failed" }),
    row(8, "later-kind"),
  ];
  test.each([
    ["all", null, [3, 5, 6, 7, 8]],
    ["some kinds", ["rollout", "agent"], [3, 7]],
    ["deployments", ["deployment"], [5, 6]],
    ["ends of deployments", ["outcome"], [6]],
    ["nothing", ["progress"], []],
  ])("takes %s, and passes over the others", (_what, wanted, ids) => {
    const { batch, throughId } = takeBatch(rows, { wanted, afterId: 2 });
    expect(batch.map(({ id }) => id)).toEqual(ids);
    expect(throughId).toBe(8);
  });

  test("has at most 100 changes, and goes on behind the last", () => {
    const many = Array.from({ length: 250 }, (_, index) => row(index + 1, index % 2 === 0 ? "agent" : "progress"));
    const { batch, throughId } = takeBatch(many, { wanted: ["agent"], afterId: 0 });
    expect([batch.length, batch.at(-1)?.id, throughId]).toEqual([100, 199, 200]);
  });

  test("is bounded in bytes, but for one that is too large alone", () => {
    const large = (id: number) => row(id, "rollout", { description: "é".repeat(BATCH_BYTES_MAX / 4) });
    expect(takeBatch([large(1), large(2), large(3)], { wanted: null, afterId: 0 })).toMatchObject({ throughId: 1 });
    const small = row(2, "agent");
    expect(
      takeBatch([row(1, "rollout", { a: "x".repeat(BATCH_BYTES_MAX) }), small], { wanted: null, afterId: 0 }),
    ).toMatchObject({
      throughId: 1,
    });
  });

  test("kinds are remembered, all of them too, and words of a later version passed over", () => {
    expect(parseWebhookEvents(formatWebhookEvents(["outcome", "rollout"]))).toEqual(["rollout", "outcome"]);
    expect(parseWebhookEvents(formatWebhookEvents(null))).toBeNull();
    expect(parseWebhookEvents("agent,later")).toEqual(["agent"]);
  });
});
