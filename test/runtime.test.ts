/** The clock of the machine: what timers of the runtime cannot do by themselves. */
import { expect, test } from "bun:test";
import { systemClock } from "../src/runtime.ts";

const SOON_MS = 200;

/** What comes first: the end of the sleep, or of `SOON_MS`. */
async function sleepSoon(durationMs: number): Promise<"slept" | "sleeping"> {
  const stop = new AbortController();
  const slept = systemClock.sleep(durationMs, stop.signal).then(
    () => "slept" as const,
    () => "sleeping" as const,
  );
  void systemClock.sleep(SOON_MS, stop.signal).then(
    () => stop.abort(new Error("enough")),
    () => {},
  );
  return await slept;
}

// A timer of more than 2^31 - 1 ms fires at once.
for (const [text, durationMs] of [
  ["1 ms", 1],
  ["25 days", 25 * 86_400_000],
  ["ten years", 3_660 * 86_400_000],
] as const) {
  test(`a sleep of ${text} ends when it is over, not before`, async () => {
    expect(await sleepSoon(durationMs)).toBe(durationMs < SOON_MS ? "slept" : "sleeping");
  });
}

test("an abort ends it with its reason, also one that came before", async () => {
  const reason = new Error("enough");
  const stop = new AbortController();
  const slept = systemClock.sleep(60_000, stop.signal);
  stop.abort(reason);
  expect(await slept.catch((error: unknown) => error)).toBe(reason);
  expect(await systemClock.sleep(1, stop.signal).catch((error: unknown) => error)).toBe(reason);
});
