/** Who runs us, read from our cgroup: with cgroups of version 1, of both, and of version 2. */
import { expect, test } from "bun:test";
import { askAgain, parseOwnService } from "../../../src/agent/machine/systemd.ts";
import { createInstantClock } from "../../support/instant-clock.ts";

const AGENT = "nixdeploy-agent-nuc.service";
const HYBRID = `9:name=systemd:/user.slice/user-1000.slice/user@1000.service/app.slice/${AGENT}
8:pids:/user.slice/user-1000.slice/user@1000.service
1:cpu:/
0::/user.slice/user-1000.slice/user@1000.service/app.slice/${AGENT}`;

const CASES = [
  ["a service of the system", `0::/system.slice/${AGENT}`, { unit: AGENT, scope: "system" }],
  ["one with a subgroup of its slice", `0::/system.slice/system-a.slice/${AGENT}`, { unit: AGENT, scope: "system" }],
  ["a service of a person", HYBRID, { unit: AGENT, scope: "user" }],
  ["one outside all slices", `0::/user.slice/user-1.slice/user@1.service/${AGENT}`, { unit: AGENT, scope: "user" }],
  ["a person's manager itself", "0::/user.slice/user-1000.slice/user@1000.service/init.scope", null],
  ["a manager's own controllers", "8:pids:/user.slice/user-1000.slice/user@1000.service", null],
  ["a session", "0::/user.slice/user-1000.slice/session-3.scope", null],
  ["no group at all", "0::/", null],
  ["nothing", "", null],
] as const;

for (const [what, groups, expected] of CASES) {
  test(`${what} is told by the cgroup`, () => expect(parseOwnService(groups)).toEqual(expected));
}

test("a question is put again while the manager does not answer, and given up after ten seconds", async () => {
  const clock = createInstantClock();
  let failuresLeft = 3;
  const ask = async () => {
    failuresLeft -= 1;
    if (failuresLeft >= 0) throw new Error("Transport endpoint is not connected");
    return "answer";
  };
  expect(await askAgain(ask, clock)).toBe("answer");
  expect(clock.sleepsMs).toEqual([500, 500, 500]);
  failuresLeft = Number.POSITIVE_INFINITY;
  const beginMs = clock.monotonicMs();
  await expect(askAgain(ask, clock)).rejects.toThrow("not connected");
  expect(clock.monotonicMs() - beginMs).toBe(10_000);
});
