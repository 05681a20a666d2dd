/** A coordinator that stops: what is being done is finished, what goes on for ever ends, and nobody waits long. */
import { describe, expect, test } from "bun:test";
import { planReconnect } from "../../src/agent/link/connection.ts";
import { formatGoodbye, parseGoodbye } from "../../src/goodbye.ts";
import { formatHashNix32 } from "../../src/nix/hash.ts";
import { AGENT_CONNECT_PATH } from "../../src/protocol.ts";
import { listen, planReturn } from "../../src/server/listener.ts";
import { createTestCoordinator, type TestCoordinator } from "../support/coordinator.ts";
import { createTinyPath } from "../support/tiny-path.ts";
import { waitFor } from "../support/wait-for.ts";

const PATH = createTinyPath("one", { contents: crypto.getRandomValues(new Uint8Array(5_000)) });

function serve(server: TestCoordinator) {
  const controlSocket = `${server.directory}/control.sock`;
  const listener = listen(server.coordinator, { hostname: "127.0.0.1", port: 0, tls: null, controlSocket });
  const request = (path: string, init: RequestInit = {}) =>
    fetch(`${listener.url}${path}`, { headers: { authorization: `Bearer ${server.adminToken}` }, ...init });
  return { listener, request };
}

/** A body that is sent as far as the test says. */
function createSlowBody(first: Uint8Array) {
  let controller: ReadableStreamDefaultController<Uint8Array> | null = null;
  const body = new ReadableStream<Uint8Array>({
    start(given) {
      controller = given;
      given.enqueue(first);
    },
  });
  return {
    body,
    finish(rest: Uint8Array) {
      controller?.enqueue(rest);
      controller?.close();
    },
  };
}

const PART = `/api/v1/caches/default/nars/${formatHashNix32(PATH.narHash)}?upload=0123456789abcdfg&offset=0&narSize=${PATH.nar.length}&fileHash=${formatHashNix32(PATH.fileHash)}`;

async function uploadedBytes(server: TestCoordinator): Promise<number> {
  const text = await (await server.fetch("/metrics")).text();
  return Number(/^nixdeploy_cache_uploaded_bytes_total (\d+)$/m.exec(text)?.[1] ?? 0);
}

describe("a coordinator that stops", () => {
  test("takes the rest of an upload, and no new connection", async () => {
    await using server = await createTestCoordinator();
    const { listener, request } = serve(server);
    const slow = createSlowBody(PATH.file.subarray(0, 1_000));
    const answer = request(PART, { method: "PUT", body: slow.body });
    await waitFor("the first bytes", async () => (await uploadedBytes(server)) > 0);
    const stopped = listener[Symbol.asyncDispose]();
    await waitFor("the port to be closed", async () => {
      return await request("/healthz").then(
        () => false,
        () => true,
      );
    });
    slow.finish(PATH.file.subarray(1_000));
    expect(await (await answer).json()).toMatchObject({ complete: true });
    await stopped;
  });

  test("waits for an upload that stands still, but not for long", async () => {
    await using server = await createTestCoordinator();
    const { listener, request } = serve(server);
    const slow = createSlowBody(PATH.file.subarray(0, 1_000));
    const answer = request(PART, { method: "PUT", body: slow.body }).then(
      () => "answered",
      () => "cut",
    );
    await waitFor("the first bytes", async () => (await uploadedBytes(server)) > 0);
    const startedMs = performance.now();
    await listener[Symbol.asyncDispose]();
    expect(performance.now() - startedMs).toBeGreaterThan(4_000);
    expect(await answer).toBe("cut");
  }, 60_000);

  test("ends the stream of a follower, who goes on where it was", async () => {
    await using server = await createTestCoordinator();
    const { listener, request } = serve(server);
    await server.publishUnseen(PATH);
    await server.connectAgent("nuc");
    const rollout = await server.activate(PATH, "nuc");
    const stream = await request(`/api/v1/rollouts/${rollout.id}/follow`);
    const received: string[] = [];
    const read = (async () => {
      for await (const chunk of stream.body ?? []) received.push(Buffer.from(chunk).toString());
      return "ended";
    })();
    await waitFor("the first event", () => received.join("").includes("event: deployment"));
    await listener[Symbol.asyncDispose]();
    // Ended, not broken: a client need not guess whether something got lost.
    expect(await read).toBe("ended");
    expect(received.join("")).not.toContain("event: end");
    expect(received.join("")).toMatch(/id: \d+\.\d+\n/);
  });

  test("says goodbye to agents, and when to come back; is not ready any more", async () => {
    await using server = await createTestCoordinator();
    const { listener } = serve(server);
    const socket = new WebSocket(`${listener.url.replace("http", "ws")}${AGENT_CONNECT_PATH}`);
    const closed = new Promise<string>((resolve) =>
      socket.addEventListener("close", ({ code, reason }) => resolve(`${code} ${reason}`)),
    );
    await new Promise((resolve) => socket.addEventListener("message", resolve, { once: true }));
    await listener[Symbol.asyncDispose]();
    expect(await closed).toBe("1001 the coordinator stops; come back within 1 s");
    expect((await server.fetch("/readyz")).status).toBe(503);
  });
});

describe("agents that were told when to come back", () => {
  test.each([
    [0, 1],
    [500, 1],
    [501, 2],
    [10_000, 20],
    [1_000_000, 60],
  ])("%p agents within %p s", (agents, seconds) => expect(planReturn(agents)).toBe(seconds));

  test("draw their first wait from that time, all others wait as ever", () => {
    const message = `connection lost: ${formatGoodbye("the coordinator stops", 20)}`;
    expect(planReconnect({ message, wasConnected: true })).toEqual({ baseMs: 20_000, maxMs: 60_000 });
    for (const end of [
      { message, wasConnected: false },
      { message: "connection lost: closed with code 1006", wasConnected: true },
      { message: "connection lost: come back within 20 s!", wasConnected: true },
    ])
      expect(planReconnect(end)).toEqual({ baseMs: 1_000, maxMs: 60_000 });
    expect(parseGoodbye("x; come back within 99 s")).toBe(60_000);
  });
});
