/** What every request gets: an id that answer, problem and log share; and a line in the log without secrets. */
import { describe, expect, test } from "bun:test";
import { createTestCoordinator } from "../../support/coordinator.ts";

const DRAWN = /^[0-9a-z]{16}$/;

describe("a request's id", () => {
  test("is in every answer, and in what went wrong", async () => {
    await using server = await createTestCoordinator();
    const paths = ["/healthz", "/", "/metrics", "status", "nothing", "/nothing", "rollouts/0123456789abcdfg"];
    for (const path of paths) {
      for (const token of [server.adminToken, null]) {
        const answer = await server.fetch(path, { token });
        const id = answer.headers.get("x-request-id") ?? "";
        expect([path, id]).toEqual([path, expect.stringMatching(DRAWN)]);
        if (answer.status >= 400) expect(await answer.json()).toMatchObject({ requestId: id, status: answer.status });
      }
    }
  });

  const given: readonly (readonly [given: string, isTaken: boolean])[] = [
    ["4bf92f3577b34da6a3ce929d0e0e4736", true],
    ["Root=1-67891233-abcdef012345678912345678", true],
    ["a", true],
    ["x".repeat(64), true],
    ["x".repeat(65), false],
    ["two words", false],
    ['"quoted"', false],
    ["<script>", false],
    ["", false],
  ];
  for (const [id, isTaken] of given) {
    test(`"${id.slice(0, 40)}" is ${isTaken ? "taken" : "not taken"}`, async () => {
      await using server = await createTestCoordinator();
      const answer = await server.fetch("status", { headers: { "x-request-id": id } });
      const got = answer.headers.get("x-request-id") ?? "";
      if (isTaken) expect(got).toBe(id);
      else expect(got).toMatch(DRAWN);
    });
  }

  test("a HEAD of what is not there", async () => {
    await using server = await createTestCoordinator();
    const request = new Request("http://x/nothing", { method: "HEAD" });
    const answer = await server.coordinator.fetch(request, { control: false });
    expect([answer.status, await answer.text()]).toEqual([404, ""]);
    expect(answer.headers.get("x-request-id")).toMatch(DRAWN);
  });
});

describe("the access log", () => {
  test("has method, path without query, status, time and address, at debug level", async () => {
    await using server = await createTestCoordinator();
    const request = new Request("http://x/api/v1/status?workspace=secret", {
      headers: { "x-request-id": "abc", "x-forwarded-for": "203.0.113.9" },
    });
    await server.coordinator.fetch(request, { control: false, peer: "127.0.0.1" });
    expect(server.logged.filter(({ message }) => message === "request")).toEqual([
      {
        level: "debug",
        message: "request",
        fields: {
          ...{ requestId: "abc", method: "GET", path: "/api/v1/status", status: 401, durationMs: 0 },
          address: "203.0.113.9",
        },
      },
    ]);
  });

  test("has no token that somebody named in a path", async () => {
    await using server = await createTestCoordinator();
    const { token } = await server.createToken("read");
    expect((await server.fetch(`tokens/${token}`, { method: "DELETE" })).status).toBe(204);
    const secret = token.split("_").at(-1) ?? "";
    expect(JSON.stringify(server.logged)).not.toContain(secret);
    expect(JSON.stringify(server.logged)).toContain("/api/v1/tokens/nd_…");
  });
});
