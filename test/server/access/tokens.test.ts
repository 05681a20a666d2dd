import { describe, expect, test } from "bun:test";
import { problemSchema } from "../../../src/api/problem.ts";
import { tokenListSchema } from "../../../src/api/tokens.ts";
import { createTestCoordinator } from "../../support/coordinator.ts";
import { readEventStream } from "../../support/event-stream.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const MINUTE_MS = 60_000;

describe("making tokens", () => {
  test("the answer has the token once; the list never has it", async () => {
    await using server = await createTestCoordinator();
    const created = await server.createToken("push");
    expect(created).toMatchObject({ kind: "push", workspace: "default", expiresAt: null });
    const answer = await server.fetch("tokens");
    const text = await answer.text();
    expect(text).not.toContain(created.token);
    expect(text).not.toContain(created.token.slice(-49));
    const { tokens } = tokenListSchema.parse(JSON.parse(text));
    expect(tokens.map(({ kind }) => kind).toSorted()).toEqual(["admin", "push"]);
    expect(tokens.find(({ id }) => id === created.id)).toMatchObject({
      kind: "push",
      lastUsedAt: null,
      revokedAt: null,
    });
  });

  test("a description and an expiry are kept", async () => {
    await using server = await createTestCoordinator();
    const json = { kind: "read", description: "for the laptop", expiresInMs: 90 * MINUTE_MS };
    expect(await (await server.fetch("tokens", { json })).json()).toMatchObject({
      expiresAt: "2026-01-01T01:30:00.000Z",
    });
    const { tokens } = tokenListSchema.parse(await (await server.fetch("tokens")).json());
    expect(tokens).toContainEqual(
      expect.objectContaining({ description: "for the laptop", expiresAt: "2026-01-01T01:30:00.000Z" }),
    );
  });

  const bad: readonly (readonly [what: string, json: unknown, status: number])[] = [
    ["an unknown kind", { kind: "root" }, 400],
    ["no kind", {}, 400],
    ["no object", [], 400],
    ["a workspace that does not exist", { kind: "push", workspace: "other" }, 404],
    ["an expiry in the past", { kind: "push", expiresInMs: -1 }, 400],
    ["an expiry beyond all calendars", { kind: "push", expiresInMs: Number.MAX_SAFE_INTEGER }, 400],
    ["an endless description", { kind: "push", description: "x".repeat(201) }, 400],
  ];
  for (const [what, json, status] of bad) {
    test(`refuses ${what}`, async () => {
      await using server = await createTestCoordinator();
      const answer = await server.fetch("tokens", { json });
      expect(answer.status).toBe(status);
      expect(answer.headers.get("content-type")).toBe("application/problem+json");
      expect(problemSchema.parse(await answer.json()).status).toBe(status);
      expect(tokenListSchema.parse(await (await server.fetch("tokens")).json()).tokens).toHaveLength(1);
    });
  }

  test("a body that is not JSON is refused with a sentence", async () => {
    await using server = await createTestCoordinator();
    const answer = await server.fetch("tokens", { method: "POST", body: "{" });
    expect(answer.status).toBe(400);
    expect(problemSchema.parse(await answer.json()).title).toContain("not JSON");
  });

  test("a body without end is cut off, whatever its length was said to be", async () => {
    await using server = await createTestCoordinator();
    let sentBytes = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        sentBytes += 1024 * 1024;
        controller.enqueue(new Uint8Array(1024 * 1024).fill(0x20));
        if (sentBytes >= 64 * 1024 * 1024) controller.close();
      },
    });
    const answer = await server.fetch("tokens", { method: "POST", body });
    expect(answer.status).toBe(400);
    expect(problemSchema.parse(await answer.json()).title).toContain("too large");
    expect(sentBytes).toBeLessThan(20 * 1024 * 1024);
  });
});

describe("a token counts", () => {
  test("until it expires, to the millisecond", async () => {
    await using server = await createTestCoordinator();
    const { token } = await server.createToken("activate", { expiresInMs: MINUTE_MS });
    await server.clock.advance(MINUTE_MS - 1);
    expect((await server.fetch("agents", { token })).status).toBe(200);
    await server.clock.advance(1);
    expect((await server.fetch("agents", { token })).status).toBe(401);
  });

  test("until it is revoked, by id or by its whole text", async () => {
    await using server = await createTestCoordinator();
    for (const spell of [({ id }: { id: string }) => id, ({ token }: { token: string }) => token]) {
      const created = await server.createToken("activate");
      expect((await server.fetch("agents", { token: created.token })).status).toBe(200);
      expect((await server.fetch(`tokens/${spell(created)}`, { method: "DELETE" })).status).toBe(204);
      expect((await server.fetch("agents", { token: created.token })).status).toBe(401);
      const { tokens } = tokenListSchema.parse(await (await server.fetch("tokens")).json());
      expect(tokens.find(({ id }) => id === created.id)?.revokedAt).toBe("2026-01-01T00:00:00.000Z");
    }
  });

  test("by its whole text, which is not repeated where it is not known", async () => {
    await using server = await createTestCoordinator();
    await using other = await createTestCoordinator();
    const { id, token } = await other.createToken("push");
    const answer = await server.fetch(`tokens/${token}`, { method: "DELETE" });
    const text = await answer.text();
    expect([answer.status, text.includes(id), text.includes(token.slice(-40))]).toEqual([404, true, false]);
    expect(JSON.stringify(server.logged)).not.toContain(token.slice(-40));
  });

  test("revoking again keeps the first time", async () => {
    await using server = await createTestCoordinator();
    const { id } = await server.createToken("push");
    await server.fetch(`tokens/${id}`, { method: "DELETE" });
    await server.clock.advance(MINUTE_MS);
    expect((await server.fetch(`tokens/${id}`, { method: "DELETE" })).status).toBe(204);
    const { tokens } = tokenListSchema.parse(await (await server.fetch("tokens")).json());
    expect(tokens.find((token) => token.id === id)?.revokedAt).toBe("2026-01-01T00:00:00.000Z");
  });

  const unknown: readonly (readonly [id: string, status: number])[] = [
    ["0123456789abcdfg", 404],
    ["short", 400],
  ];
  for (const [id, status] of unknown) {
    test(`revoking ${id} answers ${status}`, async () => {
      await using server = await createTestCoordinator();
      expect((await server.fetch(`tokens/${id}`, { method: "DELETE" })).status).toBe(status);
    });
  }

  test("its last use is remembered, a minute at a time", async () => {
    await using server = await createTestCoordinator();
    const created = await server.createToken("read");
    const lastUse = async () => {
      const { tokens } = tokenListSchema.parse(await (await server.fetch("tokens")).json());
      return tokens.find(({ id }) => id === created.id)?.lastUsedAt;
    };
    await server.fetch("agents", { token: created.token });
    expect(await lastUse()).toBe("2026-01-01T00:00:00.000Z");
    await server.clock.advance(59_000);
    await server.fetch("agents", { token: created.token });
    expect(await lastUse()).toBe("2026-01-01T00:00:00.000Z");
    await server.clock.advance(1_000);
    await server.fetch("agents", { token: created.token });
    expect(await lastUse()).toBe("2026-01-01T00:01:00.000Z");
  });

  test("after a restart too", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    const { token } = await server.createToken("read");
    const before = server.adminToken;
    await server.restart();
    expect((await server.fetch("agents", { token })).status).toBe(200);
    expect(server.adminToken).toBe(before);
  });
});

describe("a revoked token ends the streams it opened", () => {
  const ways = ["revoked", "expired"] as const;
  for (const way of ways) {
    test(way, async () => {
      await using server = await createTestCoordinator();
      const path = createTinyPath("one");
      await server.push(path);
      await server.connectAgent("nuc");
      const rollout = await server.activate(path, "nuc");
      const { id, token } = await server.createToken("read", way === "expired" ? { expiresInMs: MINUTE_MS } : {});
      const stream = readEventStream(await server.fetch(`rollouts/${rollout.id}/follow`, { token }));
      await stream.next();
      if (way === "revoked") await server.fetch(`tokens/${id}`, { method: "DELETE" });
      const rest = stream.rest();
      if (way === "expired") await server.clock.advance(MINUTE_MS);
      expect(await rest).toEqual([]);
    });
  }
});

describe("credentials", () => {
  test("bearer and basic are the same", async () => {
    await using server = await createTestCoordinator();
    const { token } = await server.createToken("read");
    const basic = (user: string) => `Basic ${Buffer.from(`${user}:${token}`).toString("base64")}`;
    for (const authorization of [`Bearer ${token}`, `bearer  ${token}`, basic("anyone"), basic("")]) {
      expect((await server.fetch("agents", { token: null, headers: { authorization } })).status).toBe(200);
    }
  });

  test("nothing else is", async () => {
    await using server = await createTestCoordinator();
    const { token } = await server.createToken("read");
    const other = `${token.slice(0, 24)}${"0".repeat(49)}`;
    const wrong = [
      token,
      "Bearer",
      "Bearer ",
      `Digest ${token}`,
      `Basic ${Buffer.from(token).toString("base64")}`,
      `Bearer ${other}`,
      `Bearer ${token.replace("nd_read_", "nd_admin_")}`,
      "Basic ====",
    ];
    for (const authorization of wrong) {
      const answer = await server.fetch("agents", { token: null, headers: { authorization } });
      expect([authorization, answer.status]).toEqual([authorization, 401]);
      expect(answer.headers.get("www-authenticate")).toStartWith("Bearer");
    }
  });

  test("an agent reads the cache with its own for a day", async () => {
    await using server = await createTestCoordinator();
    const agent = await server.connectAgent("nuc");
    const token = agent.framesOf("welcome")[0]?.readCredential ?? "";
    expect((await server.fetch("caches/default", { token })).status).toBe(200);
    expect((await server.fetch("agents", { token })).status).toBe(404);
    const forged = [
      token.replace(/_[^_]+_/, "_0123456789abcdfg_"),
      `${token.slice(0, -1)}${token.endsWith("A") ? "B" : "A"}`,
    ];
    for (const text of forged) expect((await server.fetch("caches/default", { token: text })).status).toBe(401);
    await server.clock.advance(25 * 60 * MINUTE_MS);
    expect((await server.fetch("caches/default", { token })).status).toBe(401);
  });
});
