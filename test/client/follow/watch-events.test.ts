/** Watching all changes: what is told of a lost stream, where it goes on, and when it is given up. */
import { expect, test } from "bun:test";
import type { StreamEvent } from "../../../src/api/events.ts";
import { UNREACHABLE_MAX_MS } from "../../../src/client/follow/follow.ts";
import { type StreamMessage, watchEvents } from "../../../src/client/follow/watch-events.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { createInstantClock } from "../../support/instant-clock.ts";
import { createSeededRandom } from "../../support/seeded-random.ts";

const AWAY = new NixdeployError("unreachable", "cannot connect: nobody listens");
const ENOUGH = new Error("enough");

const gap = (next: number): StreamEvent => ({ event: "gap", data: { after: 0, next, reason: "too-old" } });
const message = (id: string | null, next: number): StreamMessage => ({ id, event: gap(next) });

/** One stream after the other: its messages, then its end, or an error. Behind the last one everything is away. */
type Stream = { readonly messages: readonly StreamMessage[]; readonly error?: Error };

async function watch(streams: readonly Stream[], untilEvents = Number.POSITIVE_INFINITY) {
  const clock = createInstantClock();
  const stop = new AbortController();
  const asked: (string | null)[] = [];
  const told: string[] = [];
  const thrown = await watchEvents({
    async *open(lastEventId) {
      asked.push(lastEventId);
      const stream = streams[asked.length - 1] ?? { messages: [], error: AWAY };
      yield* stream.messages;
      if (stream.error !== undefined) throw stream.error;
    },
    lastEventId: "7",
    async onEvent(event) {
      if (event.event === "gap") told.push(`event ${event.data.next}`);
      if (told.filter((word) => word.startsWith("event")).length === untilEvents) stop.abort(ENOUGH);
    },
    onContact: (contact) => void told.push(contact),
    ...{ clock, random: createSeededRandom(1), signal: stop.signal },
  }).catch((error: unknown) => error);
  return { asked, told, thrown, clock };
}

test("each event is told, and a stream that ends goes on behind the last one that had an id", async () => {
  const first = [message("8", 1), message(null, 2)];
  const { asked, told, thrown } = await watch([{ messages: first }, { messages: [message("9", 3)] }], 3);
  expect(asked).toEqual(["7", "8"]);
  expect(told).toEqual(["event 1", "event 2", "lost", "back", "event 3"]);
  expect(thrown).toBe(ENOUGH);
});

const away: Stream = { messages: [], error: AWAY };
/** It was there, and had nothing to say. */
const quiet: Stream = { messages: [] };

test("a coordinator that is away for a while is told of once, and waited for longer and longer", async () => {
  const streams = [quiet, away, away, { messages: [message("8", 1)] }, away, { messages: [message("9", 2)] }];
  const { told, clock } = await watch(streams, 2);
  expect(told).toEqual(["lost", "back", "event 1", "lost", "back", "event 2"]);
  const [first, , third, fourth] = clock.sleepsMs;
  expect(first).toBeLessThanOrEqual(500);
  expect(third).toBeLessThanOrEqual(2_000);
  // From the beginning again, since it was back.
  expect(fourth).toBeLessThanOrEqual(1_000);
});

test("one that stays away is given up after its time, with what was in the way", async () => {
  const { told, thrown, clock } = await watch([quiet]);
  expect(thrown).toBe(AWAY);
  expect(told).toEqual(["lost"]);
  expect(clock.monotonicMs()).toBeGreaterThanOrEqual(UNREACHABLE_MAX_MS);
  expect(clock.monotonicMs()).toBeLessThan(UNREACHABLE_MAX_MS + 5_000);
});

test("one that was never there is not waited for", async () => {
  const { asked, told, thrown } = await watch([]);
  expect([thrown, asked.length, told]).toEqual([AWAY, 1, []]);
});

test("one that hangs up again and again without a word is given up, too", async () => {
  const { thrown } = await watch(Array.from({ length: 1_000 }, () => ({ messages: [] })));
  expect(thrown).toMatchObject({ kind: "unreachable", message: expect.stringContaining("ends again and again") });
});

test.each([new NixdeployError("denied", "cannot watch: who are you?"), new TypeError("a bug")])(
  "what trying again does not mend ends it: %p",
  async (error) => {
    const { asked, told, thrown } = await watch([{ messages: [], error }]);
    expect([asked.length, told]).toEqual([1, []]);
    expect(thrown).toBe(error);
  },
);
