/** The HTTP client against real servers on loopback: calls, uploads, bodies, event streams. */
import { describe, expect, test } from "bun:test";
import { createServer, type Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { z } from "zod";
import { NixdeployError } from "../../src/errors.ts";
import {
  ANSWER,
  collect,
  createClient,
  createImpatientClock,
  failureOf,
  never,
  serve,
  serveRaw,
  TOKEN,
} from "../support/http.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { waitFor } from "../support/wait-for.ts";

describe("postBody", () => {
  const post = { headers: { "x-more": "1" }, body: Buffer.from("bytes"), deadlineMs: 60_000, signal: never };

  test("sends bytes without a token, once, and reads the status alone", async () => {
    const seen: unknown[] = [];
    await using server = serve(async (request) => {
      const { method, headers } = request;
      seen.push([method, headers.get("x-more"), headers.get("authorization"), await request.text()]);
      // Without an end.
      return new Response(new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(1024)) }), {
        status: 503,
      });
    });
    await using http = createClient();
    expect(await http.postBody({ ...post, url: server.url })).toEqual({ status: 503, redirectsTo: null });
    expect(seen).toEqual([["POST", "1", null, "bytes"]]);
  });

  test("follows no redirect, and says where it leads without what may be secret", async () => {
    await using server = serve(() => Response.redirect("https://other.example/x?y=secretsecret", 307));
    await using http = createClient();
    expect(await http.postBody({ ...post, url: server.url })).toEqual({
      status: 307,
      redirectsTo: "https://other.example",
    });
  });

  test("gives up when nothing was answered in time, and when it is told to", async () => {
    await using server = serve(() => new Promise<Response>(() => {}));
    const clock = createManualClock();
    await using http = createClient({ clock });
    const failure = failureOf(http.postBody({ ...post, url: server.url }));
    await clock.advance(60_000);
    expect((await failure).message).toContain("nothing came for 60 s");
    const stop = new AbortController();
    const sent = http.postBody({ ...post, url: server.url, signal: stop.signal });
    stop.abort(new Error("stopped"));
    await expect(sent).rejects.toThrow("stopped");
  });
});

describe("requestJson", () => {
  test("sends method, JSON, token and user agent, and gives the parsed answer", async () => {
    await using server = serve(async (request) => {
      const { method, url, headers } = request;
      const names = ["authorization", "user-agent", "content-type", "accept"];
      const sent = names.map((name) => headers.get(name));
      return Response.json({ method, path: new URL(url).pathname, sent, body: await request.json() }, { status: 201 });
    });
    await using http = createClient();
    const schema = z.object({ method: z.string(), path: z.string(), sent: z.array(z.string()), body: z.unknown() });
    const call = { method: "POST", url: `${server.url}api/v1/x?q=1`, token: TOKEN, body: { a: [1] } } as const;
    expect(await http.requestJson({ ...call, schema, signal: never })).toEqual({
      status: 201,
      answer: {
        method: "POST",
        path: "/api/v1/x",
        sent: [`Bearer ${TOKEN}`, "test/1", "application/json", "application/json"],
        body: { a: [1] },
      },
    });
  });

  test("an empty answer is null", async () => {
    await using server = serve(() => new Response(null, { status: 204 }));
    await using http = createClient();
    const answer = await http.requestJson({ method: "DELETE", url: server.url, schema: z.null(), signal: never });
    expect(answer).toEqual({ status: 204, answer: null });
  });

  test("a status that the caller expects is no error", async () => {
    await using server = serve(() => Response.json({ ok: false }, { status: 409 }));
    await using http = createClient();
    const call = { method: "POST", url: server.url, schema: ANSWER, acceptStatuses: [409], signal: never } as const;
    expect(await http.requestJson(call)).toEqual({ status: 409, answer: { ok: false } });
  });

  for (const [status, kind] of [
    [400, "usage"],
    [401, "denied"],
    [404, "not-found"],
    [409, "conflict"],
    [422, "refused"],
    [500, "remote"],
    [503, "unreachable"],
    [507, "remote"],
  ] as const) {
    test(`${status} with a problem is ${kind}, in the server's words`, async () => {
      await using server = serve(() =>
        Response.json(
          { title: "cannot start it", status, detail: "two faults", hint: "Mend them.", errors: ["one", "two"] },
          { status, headers: { "content-type": "application/problem+json" } },
        ),
      );
      await using http = createClient();
      const call = { method: "POST", url: server.url, token: TOKEN, schema: ANSWER, signal: never } as const;
      const { message, hint, details, kind: actual } = await failureOf(http.requestJson(call));
      expect({ actual, message, hint, details }).toEqual({
        actual: kind,
        message: "cannot start it: two faults",
        hint: "Mend them.",
        details: ["one", "two"],
      });
    });
  }

  const html = (status: number) =>
    new Response("<html>secretsecret</html>", { status, headers: { "content-type": "text/html" } });
  for (const [what, answer, kind, message] of [
    ["a page instead of JSON", () => html(200), "remote", "it answered HTTP 200 (text/html), a web page"],
    ["a page that says 404", () => html(404), "remote", "it answered HTTP 404 (text/html)"],
    ["a proxy that says 502", () => html(502), "unreachable", "it answered HTTP 502 (text/html)"],
    ["a proxy that wants a login", () => html(401), "denied", "it answered HTTP 401 (text/html)"],
    [
      "a redirect",
      () => Response.redirect("https://other.example/login?x=secretsecret"),
      "remote",
      "it redirects to https://other.example",
    ],
    ["a proxy that takes no large bodies", () => html(413), "remote", "it answered HTTP 413 (text/html), too large"],
    ["another shape", () => Response.json({ ok: "secretsecret" }), "remote", "its answer has another shape"],
    [
      "no JSON where it says JSON",
      () => new Response("{secretsecret", { headers: { "content-type": "application/json" } }),
      "remote",
      "it answered HTTP 200",
    ],
  ] as const) {
    test(`${what} is ${kind}`, async () => {
      await using server = serve(answer);
      await using http = createClient({ clock: createImpatientClock() });
      const call = { method: "GET", url: server.url, schema: ANSWER, signal: never } as const;
      const error = await failureOf(http.requestJson(call));
      expect(error.kind).toBe(kind);
      expect(error.message).toStartWith(`cannot use ${server.url.slice(0, -1)}: ${message}`);
      expect(error.hint).toBeString();
    });
  }

  test("an endless answer is cut off", async () => {
    const chunk = new Uint8Array(1024 * 1024).fill(0x20);
    await using server = serve(() => {
      async function* spaces() {
        for (;;) {
          yield chunk;
        }
      }
      return new Response(spaces());
    });
    await using http = createClient();
    const error = await failureOf(http.requestJson({ method: "GET", url: server.url, schema: ANSWER, signal: never }));
    expect(error).toMatchObject({ kind: "remote", message: expect.stringContaining("larger than 67.1 MB") });
  });
});

describe("no answer", () => {
  test("a refused connection", async () => {
    const server = serve(() => new Response());
    await server[Symbol.asyncDispose]();
    await using http = createClient({ clock: createImpatientClock() });
    const call = {
      method: "GET",
      url: `${server.url}?t=secretsecret`,
      token: TOKEN,
      schema: ANSWER,
      signal: never,
    } as const;
    expect(await failureOf(http.requestJson(call))).toMatchObject({
      kind: "unreachable",
      message: `cannot reach ${server.url.slice(0, -1)}: the connection was refused`,
      hint: "Is `nixdeploy serve` running there?",
    });
    expect(await failureOf(createClient().openBody(call))).toMatchObject({
      kind: "unreachable",
      message: `cannot reach ${server.url.slice(0, -1)}: the connection was refused`,
    });
  });

  test("an answer that does not come in time", async () => {
    await using server = serve(() => new Promise(() => {}));
    await using http = createClient();
    const call = { method: "POST", url: server.url, schema: ANSWER, silenceMaxMs: 100, signal: never } as const;
    expect(await failureOf(http.requestJson(call))).toMatchObject({
      kind: "unreachable",
      message: `cannot reach ${server.url.slice(0, -1)}: nothing came for 1 s`,
    });
  });

  test("headers of a body that do not come in time", async () => {
    await using server = serve(() => new Promise(() => {}));
    const clock = createManualClock();
    await using http = createClient({ clock });
    const failure = failureOf(http.openBody({ url: server.url, signal: never }));
    await clock.advance(30_000);
    expect(await failure).toMatchObject({
      kind: "unreachable",
      message: expect.stringContaining("nothing came for 30 s"),
    });
  });

  test("an abort throws its reason", async () => {
    await using server = serve(() => new Promise(() => {}));
    await using http = createClient();
    const reason = new NixdeployError("interrupted", "interrupted");
    const stop = new AbortController();
    const calls = [
      http.requestJson({ method: "GET", url: server.url, schema: ANSWER, signal: stop.signal }),
      http.openBody({ url: server.url, signal: stop.signal }),
    ].map((call) => call.catch((error: unknown) => error));
    stop.abort(reason);
    expect(await Promise.all(calls)).toEqual([reason, reason]);
  });
});

describe("trying again", () => {
  async function run(method: "GET" | "POST", statuses: readonly number[], isIdempotent?: true) {
    let requests = 0;
    await using server = serve(() => {
      const status = statuses[requests] ?? 200;
      requests += 1;
      return Response.json({ ok: true, title: "not now", status }, { status });
    });
    const clock = createImpatientClock();
    await using http = createClient({ clock });
    const repeat = isIdempotent === undefined ? {} : { isIdempotent };
    const call = { method, url: server.url, schema: ANSWER, signal: never, ...repeat };
    const kind = await http.requestJson(call).then(
      () => "ok",
      (error: unknown) => (error instanceof NixdeployError ? error.kind : error),
    );
    return { kind, requests, waits: clock.waits };
  }

  test("a GET goes on after 503, 502, 429", async () => {
    const { kind, requests, waits } = await run("GET", [503, 502, 429]);
    expect({ kind, requests }).toEqual({ kind: "ok", requests: 4 });
    expect(waits).toHaveLength(3);
    expect(waits.every((wait, index) => wait >= 0 && wait < 250 * 2 ** index)).toBeTrue();
  });

  test("but not for ever", async () => {
    expect(await run("GET", [503, 503, 503, 503, 503])).toMatchObject({ kind: "unreachable", requests: 4 });
  });

  test("a patient one that may have been carried out goes on as long as it is told to", async () => {
    let [requests, status] = [0, 503];
    await using server = serve(() => {
      requests += 1;
      return Response.json({ ok: true }, { status: requests <= 20 ? status : 200 });
    });
    const impatient = createImpatientClock();
    const waitedMs = () => impatient.waits.reduce((sum, wait) => sum + wait, 0);
    await using http = createClient({ clock: { ...impatient, monotonicMs: waitedMs } });
    const call = { method: "GET", url: server.url, schema: ANSWER, signal: never } as const;
    await expect(http.requestJson({ ...call, patienceMs: 100 })).rejects.toMatchObject({ kind: "unreachable" });
    expect(requests).toBeLessThan(20);
    requests = 0;
    const patient = { ...call, patienceMs: 10 * 60_000 };
    await expect(http.requestJson(patient)).rejects.toMatchObject({ kind: "unreachable" });
    expect(requests).toBe(4);
    [requests, status] = [0, 502];
    await http.requestJson(patient);
    expect(requests).toBe(21);
  });

  test("a POST is sent once", async () => {
    expect(await run("POST", [503])).toMatchObject({ kind: "unreachable", requests: 1 });
  });

  test("a POST that may be repeated is", async () => {
    expect(await run("POST", [503], true)).toMatchObject({ kind: "ok", requests: 2 });
  });

  test("what does not heal is not tried again", async () => {
    expect(await run("GET", [401])).toMatchObject({ kind: "denied", requests: 1 });
    expect(await run("GET", [500])).toMatchObject({ kind: "remote", requests: 1 });
  });
});

test("putBody sends the bytes", async () => {
  await using server = serve(async (request) => {
    const body = await request.bytes();
    return Response.json({ ok: request.method === "PUT" && body.length === 3_000_000 && body[7] === 42 });
  });
  await using http = createClient();
  const body = new Uint8Array(3_000_000).fill(42);
  const { answer } = await http.putBody({ url: server.url, token: TOKEN, body, schema: ANSWER, signal: never });
  expect(answer).toEqual({ ok: true });
});

describe("a part of an upload", () => {
  const MEBIBYTE = 1024 * 1024;

  /** Reads of the request's body only what `read` lets through, and answers at its end. */
  async function serveReader() {
    const sockets = new Set<Socket>();
    const server = createServer({ highWaterMark: 64 * 1024 }, (socket) => {
      sockets.add(socket.pause());
      socket.on("error", () => {});
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" ? address?.port : 0;
    return {
      url: `http://127.0.0.1:${port}/`,
      sockets,
      async [Symbol.asyncDispose]() {
        for (const socket of sockets) socket.destroy();
        await new Promise((resolve) => server.close(resolve));
      },
    };
  }

  test("whose peer vanished is given up after two minutes", async () => {
    await using server = await serveReader();
    const clock = createManualClock();
    await using http = createClient({ clock });
    const body = new Uint8Array(32 * MEBIBYTE);
    let failure: unknown = null;
    const put = http.putBody({ url: server.url, body, schema: ANSWER, signal: never }).catch((error: unknown) => {
      failure = error;
    });
    await waitFor("the connection", () => server.sockets.size > 0);
    await clock.advance(2 * 60_000 - 1);
    expect(failure).toBeNull();
    await clock.advance(1);
    await put;
    expect(failure).toMatchObject({ kind: "unreachable", message: expect.stringContaining("nothing came for 120 s") });
  });

  test("over a slow line takes as long as it takes, as long as something moves", async () => {
    await using server = await serveReader();
    await using http = createClient();
    const body = new Uint8Array(32 * MEBIBYTE);
    const silenceMaxMs = 1_500;
    const put = http.putBody({ url: server.url, body, schema: ANSWER, signal: never, silenceMaxMs });
    const socket = await waitFor("the connection", () => [...server.sockets][0]);
    const startedMs = performance.now();
    let received = 0;
    socket.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (received >= body.length) return void socket.end('HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}');
      // 12 MiB a second.
      socket.pause();
      setTimeout(() => socket.resume(), (chunk.length / MEBIBYTE) * 80);
    });
    socket.resume();
    expect((await put).answer).toEqual({ ok: true });
    expect(performance.now() - startedMs).toBeGreaterThan(silenceMaxMs);
  });
});

describe("openBody", () => {
  test("gives the bytes of the wire, not what they decompress to", async () => {
    const compressed = gzipSync(Buffer.alloc(10_000));
    await using server = serve(() => new Response(compressed, { headers: { "content-encoding": "gzip" } }));
    await using http = createClient();
    await using answer = await http.openBody({ url: server.url, signal: never });
    expect(Buffer.concat(await Array.fromAsync(answer.body)).equals(compressed)).toBeTrue();
  });

  test("asks for the rest, and leaves the judgment of the status to the reader", async () => {
    await using server = serve((request) => new Response(request.headers.get("range"), { status: 404 }));
    await using http = createClient();
    await using answer = await http.openBody({ url: server.url, rangeStart: 1000, signal: never });
    expect(answer.status).toBe(404);
    expect(await collect(answer.body)).toBe("bytes=1000-");
  });

  test("HEAD has headers and no body", async () => {
    await using server = serve((request) => new Response(null, { headers: { "x-method": request.method } }));
    await using http = createClient();
    await using answer = await http.openBody({ url: server.url, method: "HEAD", signal: never });
    expect(answer.headers.get("x-method")).toBe("HEAD");
    expect(await collect(answer.body)).toBe("");
  });

  test("a body that is cut off is no clean end", async () => {
    await using server = await serveRaw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this");
    await using http = createClient();
    await using answer = await http.openBody({ url: server.url, signal: never });
    expect(await failureOf(collect(answer.body))).toMatchObject({ kind: "unreachable" });
  });

  test("what is disposed of is given up", async () => {
    const closed = Promise.withResolvers<void>();
    await using server = serve((request) => {
      request.signal.addEventListener("abort", () => closed.resolve());
      return new Response(new ReadableStream({ pull: async (controller) => controller.enqueue(await endless()) }));
    });
    const endless = async () => new Uint8Array(65_536);
    await using http = createClient();
    {
      await using answer = await http.openBody({ url: server.url, signal: never });
      expect(answer.status).toBe(200);
    }
    await closed.promise;
  });

  test("a redirect is followed, and the token stays with its origin", async () => {
    const seen: string[] = [];
    await using other = serve((request) => {
      seen.push(`other ${request.headers.get("authorization")}`);
      return new Response("moved");
    });
    await using server = serve((request) => {
      const { pathname } = new URL(request.url);
      seen.push(`${pathname} ${request.headers.get("authorization")}`);
      return new Response(null, { status: 302, headers: { location: pathname === "/" ? "/next" : other.url } });
    });
    await using http = createClient();
    await using answer = await http.openBody({ url: server.url, token: TOKEN, signal: never });
    expect(await collect(answer.body)).toBe("moved");
    expect(seen).toEqual([`/ Bearer ${TOKEN}`, `/next Bearer ${TOKEN}`, "other null"]);
  });

  test("a body that is silent for too long is an error, where its reader asks for that", async () => {
    await using server = await serveRaw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this", { isOpen: true });
    const clock = createManualClock();
    await using http = createClient({ clock });
    await using answer = await http.openBody({ url: server.url, silenceMaxMs: 60_000, signal: never });
    const failure = failureOf(collect(answer.body));
    await clock.advance(60_000);
    expect(await failure).toMatchObject({ message: expect.stringContaining("nothing came for 60 s") });
  });

  test("redirects in a circle end", async () => {
    await using server = serve(() => new Response(null, { status: 302, headers: { location: "/" } }));
    await using http = createClient();
    const error = await failureOf(http.openBody({ url: server.url, signal: never }));
    expect(error).toMatchObject({ kind: "remote", message: expect.stringContaining("it redirects too often") });
  });
});

describe("openEventStream", () => {
  const stream = (text: string | ReadableStream) =>
    new Response(text, { headers: { "content-type": "text/event-stream" } });

  test("gives the events and ends with the stream", async () => {
    await using server = serve((request) => {
      const { headers } = request;
      const data = [headers.get("last-event-id"), headers.get("accept"), headers.get("authorization")].join(" ");
      return stream(`: hello\n\nid: 8\nevent: log\ndata: ${data}\n\n`);
    });
    await using http = createClient();
    const events = http.openEventStream({ url: server.url, token: TOKEN, lastEventId: "7", signal: never });
    expect(await Array.fromAsync(events)).toEqual([
      { id: "8", event: "log", data: `7 text/event-stream Bearer ${TOKEN}` },
    ]);
  });

  test("silence is an error that trying again may mend", async () => {
    await using server = serve(() =>
      stream(new ReadableStream({ start: (controller) => controller.enqueue("data: x\n\n") })),
    );
    await using http = createClient();
    const events = http.openEventStream({ url: server.url, lastEventId: null, silenceMaxMs: 200, signal: never });
    const seen: string[] = [];
    const error = await failureOf(
      (async () => {
        for await (const { data } of events) {
          seen.push(data);
        }
      })(),
    );
    expect(seen).toEqual(["x"]);
    expect(error).toMatchObject({ kind: "unreachable", message: expect.stringContaining("nothing came for 1 s") });
  });

  test("a stream that breaks is an error that trying again may mend", async () => {
    const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    await using server = await serveRaw(`${head}9\r\ndata: x\n\n\r\n`);
    await using http = createClient();
    const events = http.openEventStream({ url: server.url, lastEventId: null, signal: never });
    expect(await failureOf(Array.fromAsync(events))).toMatchObject({ kind: "unreachable" });
  });

  for (const [what, answer, kind] of [
    ["a refusal", () => Response.json({ title: "no", status: 401 }, { status: 401 }), "denied"],
    ["something else", () => new Response("<html>"), "remote"],
  ] as const) {
    test(`${what} is ${kind}`, async () => {
      await using server = serve(answer);
      await using http = createClient();
      const events = http.openEventStream({ url: server.url, lastEventId: null, signal: never });
      expect(await failureOf(Array.fromAsync(events))).toMatchObject({ kind });
    });
  }

  test("an abort throws its reason", async () => {
    await using server = serve(() => stream(new ReadableStream({ start: (sink) => sink.enqueue("data: x\n\n") })));
    await using http = createClient();
    const stop = new AbortController();
    const reason = new NixdeployError("interrupted", "interrupted");
    const events = http.openEventStream({ url: server.url, lastEventId: null, signal: stop.signal });
    const reading = (async () => {
      for await (const _ of events) {
        stop.abort(reason);
      }
    })();
    expect(await reading.catch((error: unknown) => error)).toBe(reason);
  });
});
