/** The websocket against real servers: what works, and what each failure says. */
import { describe, expect, test } from "bun:test";
import { createServer } from "node:net";
import { join } from "node:path";
import { websocketUrl } from "../../../src/agent/link/login.ts";
import { createMessageQueue } from "../../../src/agent/link/message-queue.ts";
import type { DialOptions } from "../../../src/agent/link/message-socket.ts";
import { createWebSocketDialer } from "../../../src/agent/link/websocket.ts";
import { readNetworkSettings } from "../../../src/http/settings.ts";
import { startConnectProxy } from "../../support/connect-proxy.ts";
import { waitFor } from "../../support/wait-for.ts";

const TLS = join(import.meta.dir, "../../fixtures/tls");

const dial = (url: string, options: Partial<DialOptions> = {}, env: Record<string, string> = {}) =>
  createWebSocketDialer(readNetworkSettings(env))({
    url,
    handshakeMaxMs: 2_000,
    messageBytesMax: 1_000,
    signal: new AbortController().signal,
    ...options,
  });

function startEcho() {
  const closes: number[] = [];
  const server = Bun.serve({
    port: 0,
    fetch: (request, self) => (self.upgrade(request) ? undefined : new Response("no", { status: 400 })),
    websocket: {
      message(socket, message) {
        if (message === "bye") socket.close(4_001, "as you wish");
        else if (message === "large") socket.send("x".repeat(2_000));
        else socket.send(`echo ${String(message)}`);
      },
      close: (_socket, code) => void closes.push(code),
    },
  });
  return { url: `ws://127.0.0.1:${server.port}/`, closes, server, [Symbol.asyncDispose]: () => server.stop(true) };
}

test("messages go both ways, in order, until one side says goodbye", async () => {
  await using echo = startEcho();
  const socket = await dial(echo.url);
  for (const text of ["a", "b", "bye"]) socket.send(text);
  const received: string[] = [];
  for await (const text of socket.messages) received.push(text);
  expect(received).toEqual(["echo a", "echo b"]);
  expect(socket.closeReason).toBe("as you wish");
  socket.send("into the void");
});

test("our goodbye, and our end without one", async () => {
  await using echo = startEcho();
  (await dial(echo.url)).close();
  await waitFor("the goodbye", () => echo.closes.includes(1000));
  const stop = new AbortController();
  const socket = await dial(echo.url, { signal: stop.signal });
  stop.abort(new Error("over"));
  for await (const _ of socket.messages) throw new Error("nothing was sent");
  await waitFor("the end", () => echo.closes.length === 2);
});

for (const scheme of ["ws", "wss"] as const) {
  test(`${scheme} goes through the proxy that the environment names`, async () => {
    const secure = startSecure();
    await using echo = startEcho();
    await using proxy = await startConnectProxy();
    const host = scheme === "ws" ? `127.0.0.1:${echo.server.port}` : `localhost:${secure.port}`;
    const env = { HTTP_PROXY: proxy.url, HTTPS_PROXY: proxy.url, SSL_CERT_FILE: join(TLS, "certificate.pem") };
    const socket = await dial(`${scheme}://${host}/`, {}, env);
    expect(proxy.seen).toEqual([`CONNECT ${host}`]);
    socket.close();
    await secure.stop(true);
  });
}

test("a message above the limit ends the connection", async () => {
  await using echo = startEcho();
  const socket = await dial(echo.url);
  socket.send("large");
  const received: string[] = [];
  for await (const text of socket.messages) received.push(text);
  expect(received).toEqual([]);
});

describe("what cannot be reached", () => {
  const answering = (status: number) => Bun.serve({ port: 0, fetch: () => new Response("no", { status }) });

  for (const [status, hint] of [
    [401, /Is it a nixdeploy coordinator/],
    [404, /Is it a nixdeploy coordinator/],
    [200, /Is it a nixdeploy coordinator/],
    [502, /tried again/],
  ] as const) {
    test(`answers ${status}`, async () => {
      const server = answering(status);
      const failure = dial(`ws://127.0.0.1:${server.port}/`);
      await expect(failure).rejects.toMatchObject({
        kind: "unreachable",
        message: expect.stringContaining(`it answered with status ${status} instead of a websocket`),
        hint: expect.stringMatching(hint),
      });
      await server.stop(true);
    });
  }

  test("redirects: where to", async () => {
    const location = "https://deploy.example/deploy/api/v1/agent/connect";
    const server = Bun.serve({ port: 0, fetch: () => Response.redirect(location, 301) });
    await expect(dial(`ws://127.0.0.1:${server.port}/deploy/api/v1/agent/connect`)).rejects.toMatchObject({
      kind: "unreachable",
      message: expect.stringContaining("it redirects to https://deploy.example"),
      hint: "Is https://deploy.example/deploy the coordinator's address?",
    });
    await server.stop(true);
  });

  test("is behind a proxy that wants a login: which proxy, and no password", async () => {
    await using proxy = await startConnectProxy({ login: "somebody:else" });
    const env = { HTTP_PROXY: proxy.url.replace("//", "//me:secret@") };
    const failure = await dial("ws://deploy.test/", {}, env).catch((error: unknown) => error);
    expect(failure).toMatchObject({
      kind: "unreachable",
      message: `cannot connect to ws://deploy.test/ through the proxy ${proxy.url}: the proxy answered with status 407`,
      hint: expect.stringContaining("wants a login"),
    });
  });

  test("refuses the connection", async () => {
    const server = answering(200);
    const url = `ws://127.0.0.1:${server.port}/`;
    await server.stop(true);
    await expect(dial(url)).rejects.toThrow("nothing listens there");
  });

  test("says nothing", async () => {
    const server = createServer(() => {}).listen(0, "127.0.0.1");
    await waitFor("the port", () => server.address());
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    await expect(dial(`ws://127.0.0.1:${port}/`, { handshakeMaxMs: 100 })).rejects.toMatchObject({
      kind: "unreachable",
    });
    server.close();
  });

  test("has a certificate of its own, until the environment names its authority", async () => {
    const server = startSecure();
    const url = `wss://localhost:${server.port}/`;
    await expect(dial(url)).rejects.toThrow("its TLS certificate is not accepted");
    for (const name of ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"]) {
      const socket = await dial(url, {}, { [name]: join(TLS, "certificate.pem") });
      socket.close();
    }
    await server.stop(true);
  });
});

test("the address of the websocket is below the coordinator's", () => {
  expect(websocketUrl("https://host/prefix")).toBe("wss://host/prefix/api/v1/agent/connect");
  expect(websocketUrl("http://host:8470")).toBe("ws://host:8470/api/v1/agent/connect");
});

test("a queue asks its producer to pause, and lets it go on when half is free", async () => {
  const asked: string[] = [];
  const queue = createMessageQueue({
    lengthMax: 4,
    onFull: () => asked.push("pause"),
    onDrained: () => asked.push("resume"),
  });
  for (const text of ["1", "2", "3", "4", "5"]) queue.push(text);
  queue.end();
  const received: string[] = [];
  for await (const text of queue.messages) {
    received.push(text);
    if (received.length === 2) expect(asked).toEqual(["pause"]);
  }
  expect(received).toEqual(["1", "2", "3", "4", "5"]);
  expect(asked).toEqual(["pause", "resume"]);
});

function startSecure() {
  return Bun.serve({
    port: 0,
    tls: { cert: Bun.file(join(TLS, "certificate.pem")), key: Bun.file(join(TLS, "key.pem")) },
    fetch: (request, self) => (self.upgrade(request) ? undefined : new Response("no")),
    websocket: { message() {} },
  });
}
