/** Checks run at once, each with its own deadline: one that hangs hides no other. */
import { expect, test } from "bun:test";
import type { Check } from "../../src/doctor/finding.ts";
import { ok } from "../../src/doctor/finding.ts";
import { lookOnce, runChecks } from "../../src/doctor/run-checks.ts";
import { NixdeployError } from "../../src/errors.ts";
import { createManualClock } from "../support/manual-clock.ts";

const check = (name: string, look: Check["look"], deadlineMs?: number): Check => ({
  group: "nix",
  name,
  look,
  ...(deadlineMs === undefined ? {} : { deadlineMs }),
});
const never = () => new Promise<never>(() => {});

test("one that hangs is a finding, the others are found beside it, in their order", async () => {
  const clock = createManualClock();
  const { signal } = new AbortController();
  const seen: string[] = [];
  const hangs = check("hangs", never, 5_000);
  const fails = check("fails", async () => {
    throw new NixdeployError("host", "cannot do it: no", { hint: "Do that.", details: ["a", "b"] });
  });
  const told = check("told", async (over) => {
    over.addEventListener("abort", () => seen.push("over"));
    return await never();
  });
  const checks = [hangs, fails, check("good", async () => [ok("1"), ok("2")]), told];
  const running = runChecks({ checks, clock, signal });
  await clock.advance(5_000);
  await clock.advance(5_000);
  expect((await running).map(({ check: name, verdict, message }) => `${name} ${verdict} ${message}`)).toEqual([
    "hangs fault nothing came of this within 5 s",
    "fails fault cannot do it: no (a; b)",
    "good ok 1",
    "good ok 2",
    "told fault nothing came of this within 10 s",
  ]);
  expect(seen).toEqual(["over"]);
});

test("an interruption ends all of them", async () => {
  const stop = new AbortController();
  const running = runChecks({
    checks: [
      check(
        "hangs",
        (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
      ),
    ],
    clock: createManualClock(),
    signal: stop.signal,
  });
  stop.abort(new NixdeployError("interrupted", "interrupted"));
  expect(running).rejects.toThrow("interrupted");
});

test("what several look at is looked at once", async () => {
  let looks = 0;
  const look = lookOnce(async () => {
    looks += 1;
    return looks;
  });
  expect(await Promise.all([look(), look()])).toEqual([1, 1]);
});
