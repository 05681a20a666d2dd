/** The limit to silence, with a clock that stands still until it is moved. */
import { expect, test } from "bun:test";
import { createSilenceLimit } from "../../src/http/silence.ts";
import { createManualClock } from "../support/manual-clock.ts";

const MINUTE_MS = 60_000;

function setUp() {
  const clock = createManualClock();
  const stop = new AbortController();
  const reason = () => new Error("nothing came for a minute");
  const limit = createSilenceLimit({ clock, silenceMaxMs: MINUTE_MS, reason, signal: stop.signal });
  return { clock, stop, limit, [Symbol.dispose]: limit[Symbol.dispose] };
}

test("ends after a silence of just that length", async () => {
  using setup = setUp();
  await setup.clock.advance(MINUTE_MS - 1);
  expect(setup.limit.signal.aborted).toBeFalse();
  await setup.clock.advance(1);
  expect(setup.limit.signal.reason).toEqual(new Error("nothing came for a minute"));
});

test("a byte now and then goes on for ever", async () => {
  using setup = setUp();
  for (let byte = 0; byte < 100; byte += 1) {
    await setup.clock.advance(MINUTE_MS - 1);
    setup.limit.progressed();
  }
  expect(setup.limit.signal.aborted).toBeFalse();
  await setup.clock.advance(MINUTE_MS);
  expect(setup.limit.signal.aborted).toBeTrue();
});

/** Gives what the test pushes; closing it would wait for ever, as of a connection that hangs. */
function createPipe() {
  let wake = Promise.withResolvers<IteratorResult<Uint8Array>>();
  const chunks: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]: () => ({ next: () => wake.promise, return: () => new Promise(() => {}) }),
  };
  const settle = (result: IteratorResult<Uint8Array>) => {
    const { resolve } = wake;
    wake = Promise.withResolvers();
    resolve(result);
  };
  return {
    chunks,
    push: () => settle({ done: false, value: new Uint8Array(1) }),
    end: () => settle({ done: true, value: undefined }),
  };
}

test("a body of one byte every 59 s is read to its end", async () => {
  using setup = setUp();
  const pipe = createPipe();
  const reading = Array.fromAsync(setup.limit.watch(pipe.chunks));
  for (let byte = 0; byte < 5; byte += 1) {
    await setup.clock.advance(MINUTE_MS - 1_000);
    pipe.push();
  }
  await setup.clock.advance(1_000);
  pipe.end();
  expect(await reading).toHaveLength(5);
});

test("a body that falls silent ends, though its connection never does", async () => {
  using setup = setUp();
  const pipe = createPipe();
  const failure = Array.fromAsync(setup.limit.watch(pipe.chunks)).catch((error: unknown) => error);
  pipe.push();
  await setup.clock.advance(MINUTE_MS);
  expect(await failure).toEqual(new Error("nothing came for a minute"));
});

test("what the reader does in between is no silence", async () => {
  using setup = setUp();
  const pipe = createPipe();
  const reading = setup.limit.watch(pipe.chunks)[Symbol.asyncIterator]();
  const first = reading.next();
  pipe.push();
  await first;
  await setup.clock.advance(10 * MINUTE_MS);
  expect(setup.limit.signal.aborted).toBeFalse();
  const second = reading.next().catch((error: unknown) => error);
  await setup.clock.advance(MINUTE_MS - 1);
  expect(setup.limit.signal.aborted).toBeFalse();
  await setup.clock.advance(1);
  expect(await second).toEqual(new Error("nothing came for a minute"));
});

test("ends at once with the signal that was given, whatever is waited for", async () => {
  using setup = setUp();
  const waits = [setup.limit.waitFor(new Promise(() => {})), Array.fromAsync(setup.limit.watch(createPipe().chunks))];
  setup.stop.abort(new Error("interrupted"));
  const failures = await Promise.all(waits.map((wait) => wait.catch((error: unknown) => error)));
  expect(failures).toEqual([new Error("interrupted"), new Error("interrupted")]);
});

test("leaves no sleeper behind", async () => {
  const setup = setUp();
  expect(setup.clock.sleepers).toBe(1);
  setup[Symbol.dispose]();
  await setup.clock.advance(0);
  expect(setup.clock.sleepers).toBe(0);
});
