/** The look after an undo: whether the coordinator lets anybody in from the version that is back, and for how long. */
import { describe, expect, test } from "bun:test";
import { canLogin } from "../../../src/agent/activation/timed-login.ts";
import { createVirtualClock } from "../../support/virtual-clock.ts";

const RANDOM = { bytes: (length: number) => new Uint8Array(length), fraction: () => 0.5 };

function look(
  login: (signal: AbortSignal) => Promise<boolean>,
  options: { maxMs?: number; signal?: AbortSignal } = {},
) {
  const clock = createVirtualClock();
  const { maxMs = 60_000, signal = new AbortController().signal } = options;
  return { clock, result: canLogin({ login, maxMs, signal, clock, random: RANDOM }) };
}
const refused = () => Promise.reject(new Error("ECONNREFUSED"));

describe("whether the old version reaches the coordinator", () => {
  test("any welcome will do, a proof or not", async () => {
    for (const isProof of [true, false]) expect(await look(async () => isProof).result).toBe(true);
  });

  test("a network that comes up late is waited for", async () => {
    const { clock, result } = look(async () => (clock.monotonicMs() < 10_000 ? await refused() : false));
    expect(await result).toBe(true);
  });

  test("not for longer than 15 s, nor than the new version had", async () => {
    for (const [maxMs, waitedMs] of [
      [60_000, 15_000],
      [3_000, 3_000],
    ] as const) {
      const { clock, result } = look(refused, { maxMs });
      expect(await result).toBe(false);
      expect(clock.monotonicMs()).toBe(waitedMs);
    }
  });

  test("a login that hangs is stopped", async () => {
    const hang = (signal: AbortSignal) =>
      new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    const { clock, result } = look(hang);
    expect(await result).toBe(false);
    expect(clock.monotonicMs()).toBeLessThan(16_000);
  });

  test("the end of the supervisor is no answer", async () => {
    const stop = new AbortController();
    const { result } = look(
      async () => {
        stop.abort(new Error("stopped"));
        throw new Error("the socket was closed");
      },
      { signal: stop.signal },
    );
    await expect(result).rejects.toThrow("stopped");
  });
});
