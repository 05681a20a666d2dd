/** When checks are tried, and what ends the wait: on a clock whose time passes only in sleeps, with scripted answers. */
import { beforeEach, describe, expect, test } from "bun:test";
import { awaitHealth, type HealthOptions, type Trouble } from "../../../src/agent/health/health.ts";
import type { HealthCheck } from "../../../src/health-check.ts";
import { createVirtualClock } from "../../support/virtual-clock.ts";

const WINDOW_MS = 60_000;

/** How a check answers to a try at this time, and after how long. */
type Script = (atMs: number, tries: number) => Trouble | null | Promise<Trouble | null>;

let clock: ReturnType<typeof createVirtualClock>;
let tries: string[];
let lines: string[];
let scripts: Map<string, Script>;
let cancelledFromMs: number;
let stop: AbortController;

beforeEach(() => {
  clock = createVirtualClock();
  tries = [];
  lines = [];
  scripts = new Map();
  cancelledFromMs = Number.POSITIVE_INFINITY;
  stop = new AbortController();
});

function checkOf(name: string, script: Script, changes: object = {}): HealthCheck {
  scripts.set(name, script);
  return { name, kind: "tcp", host: "127.0.0.1", port: 1, periodSeconds: 2, timeoutSeconds: 10, ...changes };
}

/** An answer that nobody gives; ends with the signal alone. */
const never: Script = () => new Promise(() => {});
const FINE: Script = () => null;
const refuse =
  (text = "refused"): Script =>
  () => ({ text });
const fineFrom =
  (fromMs: number): Script =>
  (atMs) =>
    atMs >= fromMs ? null : { text: "refused" };

async function run(checks: readonly HealthCheck[], changes: Partial<HealthOptions> = {}) {
  return await awaitHealth({
    ...{ checks, clock, windowSeconds: WINDOW_MS / 1_000, signal: stop.signal },
    async probe({ name }, { signal }) {
      const atMs = clock.monotonicMs();
      tries.push(`${name} ${atMs / 1_000}`);
      const answer = scripts.get(name)?.(atMs, tries.length) ?? null;
      const aborted = new Promise<never>((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      });
      return await Promise.race([answer, aborted]);
    },
    readLeftMs: async () => WINDOW_MS - clock.monotonicMs(),
    isCancelled: async () => clock.monotonicMs() >= cancelledFromMs,
    log: async (text) => void lines.push(text),
    ...changes,
  });
}

describe("checks hold", () => {
  test("when there are none", async () => {
    expect(await run([])).toBeNull();
  });

  test("when each passes at its first try", async () => {
    expect(await run([checkOf("a", FINE), checkOf("b", FINE)])).toBeNull();
    expect(tries).toEqual(["a 0", "b 0"]);
    expect(lines).toEqual(["health check a passed", "health check b passed"]);
  });

  test("when a single one passes, however late", async () => {
    expect(await run([checkOf("a", fineFrom(5_000))])).toBeNull();
    expect(tries).toEqual(["a 0", "a 2", "a 4", "a 6"]);
    // The same trouble is said once.
    expect(lines).toEqual(["health check a failed: refused", "health check a passed"]);
  });

  test("when they pass together: one that passed early is tried again", async () => {
    const brokenBetween: Script = (atMs) => (atMs < 1_000 || atMs >= 8_000 ? null : { text: "gone" });
    expect(await run([checkOf("a", brokenBetween), checkOf("b", fineFrom(4_000))])).toBeNull();
    expect(tries).toEqual(["a 0", "b 0", "b 2", "b 4", "a 4", "b 4", "a 6", "a 8", "a 8", "b 8"]);
  });

  test("at their own periods", async () => {
    const quick = checkOf("quick", fineFrom(1_000), { periodSeconds: 0.5 });
    const slow = checkOf("slow", fineFrom(1_000), { periodSeconds: 30 });
    expect(await run([quick, slow])).toBeNull();
    expect(tries).toEqual(["quick 0", "slow 0", "quick 0.5", "quick 1", "slow 30", "quick 30", "slow 30"]);
  });
});

describe("checks do not hold", () => {
  test("when one fails up to the end of the window; the reason names it and what it said last", async () => {
    const reason = await run([checkOf("a", FINE), checkOf("web", refuse("nobody listens"), { periodSeconds: 25 })]);
    expect(reason).toBe(
      "the health check web did not pass within the confirm window of 60 s (3 tries): nobody listens",
    );
    expect(clock.monotonicMs()).toBe(WINDOW_MS);
  });

  test("when several fail: all are named", async () => {
    const reason = await run(["a", "b"].map((name) => checkOf(name, refuse(name), { periodSeconds: 600 })));
    expect(reason).toBe("the health checks did not pass within the confirm window of 60 s: a: a; b: b");
  });

  test("when one has failed as often as it may, at once, and the others are left alone", async () => {
    const reason = await run([checkOf("a", refuse(), { attempts: 3 }), checkOf("b", never, { timeoutSeconds: 3_600 })]);
    expect(reason).toBe("the health check a failed (3 tries): refused");
    expect(clock.monotonicMs()).toBeLessThan(4_000 + 500);
  });

  test("when one can never pass", async () => {
    const hopeless: Script = () => ({ text: "no program", isFinal: true });
    expect(await run([checkOf("a", hopeless)])).toBe("the health check a failed: no program");
    expect(tries).toEqual(["a 0"]);
  });

  test("when a try does not end: it counts as failed after its timeout", async () => {
    const reason = await run([checkOf("a", never, { timeoutSeconds: 5, attempts: 2 })]);
    expect(reason).toBe("the health check a failed (2 tries): no answer within 5 s");
    expect(tries).toEqual(["a 0", "a 5"]);
  });

  test("when the first try outlasts the window", async () => {
    const reason = await run([checkOf("a", never, { timeoutSeconds: 3_600 })]);
    expect(reason).toContain("within the confirm window of 60 s: its first try did not end");
    expect(clock.monotonicMs()).toBe(WINDOW_MS);
  });

  test("when the window is over already", async () => {
    expect(await run([checkOf("a", never)], { readLeftMs: async () => 0 })).toContain("did not pass within");
    expect(clock.monotonicMs()).toBe(0);
  });

  test("when they pass only in turns", async () => {
    // Each breaks the other: whoever is tried second in a round finds the first one's doing.
    const everySecond = (): Script => {
      let count = 0;
      return () => (count++ % 2 === 0 ? { text: "busy" } : null);
    };
    const reason = await run([checkOf("a", everySecond()), checkOf("b", everySecond())]);
    expect(reason).toMatch(/within the confirm window of 60 s/);
    expect(clock.monotonicMs()).toBe(WINDOW_MS);
  });

  test("when a cancel comes", async () => {
    cancelledFromMs = 3_000;
    expect(await run([checkOf("a", never)])).toBe("a cancel asked to go back");
    expect(clock.monotonicMs()).toBeLessThan(3_500);
  });

  test("when what is thrown is no answer", async () => {
    const broken: Script = () => Promise.reject(new Error("cannot ask systemd"));
    expect(await run([checkOf("a", broken, { attempts: 1 })])).toBe("the health check a failed: cannot ask systemd");
  });
});

test("the end of the supervisor ends the wait, without a verdict", async () => {
  const until: Script = () => {
    stop.abort(new Error("stopped"));
    return null;
  };
  await expect(run([checkOf("a", until), checkOf("b", never)])).rejects.toThrow("stopped");
});

test("a window that cannot be read ends it, and hides nothing", async () => {
  const readLeftMs = () => Promise.reject(new Error("EIO"));
  await expect(run([checkOf("a", never)], { readLeftMs })).rejects.toThrow("EIO");
});
