/** The limit on credentials that are no good: who floods is told to wait, and nobody else notices. */
import { describe, expect, test } from "bun:test";
import {
  ADDRESSES_MAX,
  createFailedLogins,
  FAILURE_INTERVAL_MS,
  FAILURES_AT_ONCE,
} from "../../../src/server/access/failed-logins.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createAgentIdentity, openScriptedAgent } from "../../support/scripted-agent.ts";

describe("the limit", () => {
  test("lets so many pass at once, then one for each interval", async () => {
    const clock = createManualClock();
    const failed = createFailedLogins(clock);
    const results = Array.from({ length: FAILURES_AT_ONCE + 3 }, () => failed.note("192.0.2.1"));
    expect(results.filter((result) => result === null)).toHaveLength(FAILURES_AT_ONCE);
    // Those too many do not lengthen it.
    expect(results.slice(-3)).toEqual([FAILURE_INTERVAL_MS, FAILURE_INTERVAL_MS, FAILURE_INTERVAL_MS]);
    await clock.advance(FAILURE_INTERVAL_MS);
    expect([failed.note("192.0.2.1"), failed.note("192.0.2.1")]).toEqual([null, FAILURE_INTERVAL_MS]);
    expect([failed.note("192.0.2.2"), failed.note(null)]).toEqual([null, null]);
  });

  const same: readonly (readonly [a: string, b: string, isSame: boolean])[] = [
    ["2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true],
    ["2001:db8:1:2::1", "2001:0DB8:0001:0002::9", true],
    ["2001:db8:1:2::1", "2001:db8:1:3::1", false],
    ["2001:db8::1", "2001:db8:0:0:1::", true],
    ["::1", "::2", true],
    ["fe80::1%eth0", "fe80::2", true],
    ["192.0.2.1", "192.0.2.2", false],
  ];
  for (const [a, b, isSame] of same) {
    test(`${a} and ${b} are ${isSame ? "one" : "two"}`, () => {
      const failed = createFailedLogins(createManualClock());
      for (let index = 0; index < FAILURES_AT_ONCE; index += 1) failed.note(a);
      expect(failed.note(b) !== null).toBe(isSame);
    });
  }

  test("remembers so many addresses, and forgets the one that failed longest ago", () => {
    const failed = createFailedLogins(createManualClock());
    for (let index = 0; index < FAILURES_AT_ONCE; index += 1) for (const who of ["old", "new"]) failed.note(who);
    for (let index = 0; index < ADDRESSES_MAX - 1; index += 1) {
      failed.note(`10.0.${index >> 8}.${index & 255}`);
      if (index % 1_000 === 0) failed.note("new");
    }
    expect(failed.note("new")).not.toBeNull();
    expect(failed.note("old")).toBeNull();
  });
});

describe("over HTTP", () => {
  const ask = async (server: TestCoordinator, token: string | null, peer = "198.51.100.7", path = "/api/v1/status") =>
    await server.coordinator.fetch(
      new Request(`http://x${path}`, token === null ? {} : { headers: { authorization: `Bearer ${token}` } }),
      { control: false, peer },
    );

  test("429 with Retry-After instead of 401, for that address alone; good tokens and none are answered as ever", async () => {
    await using server = await createTestCoordinator();
    for (let index = 0; index < FAILURES_AT_ONCE; index += 1)
      expect((await ask(server, `nd_admin_wrong${index}`)).status).toBe(401);
    const refused = await ask(server, "nd_admin_wrong");
    expect(refused.status).toBe(429);
    expect(refused.headers.get("retry-after")).toBe(String(FAILURE_INTERVAL_MS / 1_000));
    expect(await refused.json()).toMatchObject({ status: 429, requestId: expect.any(String) });
    expect((await ask(server, "nd_admin_wrong", "198.51.100.7", "/metrics")).status).toBe(429);
    expect((await ask(server, server.adminToken)).status).toBe(200);
    expect((await ask(server, null)).status).toBe(401);
    expect((await ask(server, "nd_admin_wrong", "198.51.100.8")).status).toBe(401);
    await server.clock.advance(FAILURE_INTERVAL_MS);
    expect((await ask(server, "nd_admin_wrong")).status).toBe(401);
  });

  test("behind a proxy the client's address counts, not the proxy's", async () => {
    await using server = await createTestCoordinator();
    const from = async (client: string) => {
      const headers = { authorization: "Bearer nd_admin_wrong", "x-forwarded-for": client };
      const request = new Request("http://x/api/v1/status", { headers });
      return (await server.coordinator.fetch(request, { control: false, peer: "127.0.0.1" })).status;
    };
    for (let index = 0; index < FAILURES_AT_ONCE; index += 1) await from("203.0.113.9");
    expect([await from("203.0.113.9"), await from("203.0.113.10")]).toEqual([429, 401]);
  });
});

test("agents whose logins are refused count too, are told why, and do not flood the log", async () => {
  await using server = await createTestCoordinator();
  const visit = { requestId: "r", control: false, address: "198.51.100.7", route: "" };
  const coordinator = {
    ...server.coordinator,
    openAgentSession: (socket: Parameters<typeof server.coordinator.openAgentSession>[0]) =>
      server.coordinator.openAgentSession(socket, visit),
  };
  for (let index = 0; index < FAILURES_AT_ONCE + 5; index += 1) {
    const agent = openScriptedAgent(coordinator, createAgentIdentity("nuc"));
    await agent.login({});
    expect(agent.framesOf("refused")).toHaveLength(1);
  }
  const refused = server.logged.filter(({ message }) => message === "agent refused");
  expect(refused.filter(({ level }) => level === "warn")).toHaveLength(FAILURES_AT_ONCE);
  expect(refused.filter(({ level }) => level === "debug")).toHaveLength(5);
  // One that is known is let in from the same address.
  const { token } = await server.createToken("agent");
  const good = openScriptedAgent(coordinator, createAgentIdentity("good"));
  await good.login({ enrolmentToken: token });
  expect(good.framesOf("welcome")).toHaveLength(1);
});
