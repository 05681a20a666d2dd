/** A watch looks again when something happens, bundles what comes at once, looks now and then anyway, and survives a restart. */
import { expect, test } from "bun:test";
import type { StreamEvent } from "../../../src/api/events.ts";
import type { WatchStatusOptions } from "../../../src/client/watch/watch-status.ts";
import { watchStatus } from "../../../src/client/watch/watch-status.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { impatientRandom } from "../../support/run-command.ts";
import { waitFor } from "../../support/wait-for.ts";

const away = () => new NixdeployError("unreachable", "cannot reach it");

function createScene() {
  const clock = createManualClock();
  const stop = new AbortController();
  const seen: number[] = [];
  const contacts: string[] = [];
  const events: unknown[] = [];
  let looks = 0;
  let isAway = false;
  let emit: (event: StreamEvent) => void = () => {};
  let cut: () => void = () => {};
  async function* open(_id: string | null, signal: AbortSignal) {
    if (isAway) throw away();
    const queue: StreamEvent[] = [];
    let wake = Promise.withResolvers<void>();
    let isCut = false;
    emit = (event) => {
      queue.push(event);
      wake.resolve();
    };
    cut = () => {
      isCut = true;
      wake.resolve();
    };
    yield { id: "0", event: { event: "position" as const, data: { after: 0 } } };
    // Nobody may be waiting at that moment.
    signal.addEventListener("abort", () => {
      wake.promise.catch(() => {});
      wake.reject(signal.reason);
    });
    for (;;) {
      for (const event of queue.splice(0)) yield { id: null, event };
      if (isCut) throw away();
      await wake.promise;
      wake = Promise.withResolvers<void>();
    }
  }
  const options: WatchStatusOptions = {
    coordinator: {
      async loadStatus() {
        if (isAway) throw away();
        looks += 1;
        return looks as never;
      },
      listAgents: async () => [],
      openEvents: () => open,
    },
    workspace: undefined,
    onSeen: async ({ status }) => void seen.push(Number(status)),
    onEvent: async (event) => void events.push(event),
    onContact: async (contact) => void contacts.push(contact),
    clock,
    random: impatientRandom,
    signal: stop.signal,
  };
  const running = watchStatus(options);
  running.catch(() => {});
  return {
    ...{ clock, stop, seen, events, contacts, running },
    happen: () => emit({ event: "gap", data: { after: 1, next: 2, reason: "too-old" } }),
    cut: () => cut(),
    setAway: (value: boolean) => {
      isAway = value;
    },
  };
}

test("looks at once, again for all that happens within a second, and anyway after ten", async () => {
  const scene = createScene();
  await waitFor("the first look", () => scene.seen.length === 1);
  for (let count = 0; count < 5; count += 1) scene.happen();
  await waitFor("the events", () => scene.events.length === 5);
  await scene.clock.advance(1_000);
  await waitFor("the second look", () => scene.seen.length === 2);
  await scene.clock.advance(1_000);
  await scene.clock.advance(8_000);
  expect(scene.seen).toEqual([1, 2]);
  await scene.clock.advance(1_000);
  await waitFor("the look without a reason", () => scene.seen.length === 3);
  scene.stop.abort(new NixdeployError("interrupted", "interrupted"));
  expect(scene.running).rejects.toThrow("interrupted");
});

test("a coordinator that restarts is waited for, and looked at when it is back", async () => {
  const scene = createScene();
  await waitFor("the first look", () => scene.seen.length === 1);
  scene.setAway(true);
  scene.cut();
  await waitFor("the loss", () => scene.contacts.includes("lost"));
  for (let second = 0; second < 15; second += 1) await scene.clock.advance(1_000);
  expect(scene.seen).toEqual([1]);
  scene.setAway(false);
  for (let second = 0; second < 12; second += 1) await scene.clock.advance(1_000);
  await waitFor("a look", () => scene.seen.length > 1);
  await waitFor("the return", () => scene.contacts.includes("back"));
  expect(scene.events).toEqual([]);
  scene.stop.abort(new NixdeployError("interrupted", "interrupted"));
  expect(scene.running).rejects.toThrow("interrupted");
});

test("one that is away for good is given up", async () => {
  const scene = createScene();
  await waitFor("the first look", () => scene.seen.length === 1);
  scene.setAway(true);
  scene.cut();
  for (let second = 0; second < 140; second += 1) await scene.clock.advance(1_000);
  expect(scene.running).rejects.toThrow("cannot reach it");
});
