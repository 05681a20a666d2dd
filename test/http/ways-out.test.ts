/** The ways from the HTTP client to a server: unix sockets, proxies, authorities of one's own. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { startConnectProxy } from "../support/connect-proxy.ts";
import { ANSWER, collect, createClient, createImpatientClock, failureOf, never, serve } from "../support/http.ts";

const TLS = join(import.meta.dir, "../fixtures/tls");

describe("ways out", () => {
  test("through a unix socket", async () => {
    const path = join(process.env["TMPDIR"] ?? "/tmp", `nixdeploy-http-${process.pid}.sock`);
    const server = Bun.serve({ unix: path, fetch: (request) => Response.json({ ok: request.url.endsWith("/api") }) });
    try {
      await using http = createClient({ socketPath: path });
      const call = { method: "GET", url: "http://localhost/api", schema: ANSWER, signal: never } as const;
      expect((await http.requestJson(call)).answer).toEqual({ ok: true });
      await using answer = await http.openBody(call);
      expect(await collect(answer.body)).toBe('{"ok":true}');
    } finally {
      await server.stop(true);
    }
  });

  test("a unix socket that is not there", async () => {
    await using http = createClient({ socketPath: "/absent/control.sock", clock: createImpatientClock() });
    const call = { method: "GET", url: "http://localhost/", schema: ANSWER, signal: never } as const;
    expect(await failureOf(http.requestJson(call))).toMatchObject({
      kind: "unreachable",
      message: "cannot reach /absent/control.sock: there is no such socket",
    });
  });

  test("through the proxy of the environment, API calls and bodies alike", async () => {
    await using server = serve(() => Response.json({ ok: true }));
    await using proxy = await startConnectProxy();
    await using http = createClient({ env: { HTTP_PROXY: proxy.url } });
    const call = { method: "GET", url: server.url, schema: ANSWER, signal: never } as const;
    expect((await http.requestJson(call)).answer).toEqual({ ok: true });
    expect(proxy.seen).toHaveLength(1);
    await using answer = await http.openBody(call);
    expect(await collect(answer.body)).toBe('{"ok":true}');
    expect(proxy.seen).toHaveLength(2);
    const post = { url: server.url, headers: {}, body: Buffer.from("x"), deadlineMs: 60_000, signal: never };
    expect(await http.postBody(post)).toEqual({ status: 200, redirectsTo: null });
    expect(proxy.seen).toHaveLength(3);
  });

  test("a proxy that refuses is not taken for the server, and its password stays unsaid", async () => {
    await using proxy = await startConnectProxy({ login: "somebody:else" });
    const address = proxy.url.replace("//", "//me:secretsecret@");
    await using http = createClient({
      env: { HTTP_PROXY: address, HTTPS_PROXY: address },
      clock: createImpatientClock(),
    });
    for (const scheme of ["http", "https"]) {
      const call = { method: "GET", url: `${scheme}://deploy.test/`, schema: ANSWER, signal: never } as const;
      expect(await failureOf(http.requestJson(call))).toMatchObject({
        kind: "unreachable",
        message: `cannot reach ${scheme}://deploy.test through the proxy ${proxy.url}: the proxy answered with status 407`,
        hint: expect.stringContaining("wants a login"),
      });
    }
  });

  for (const address of ["socks5://127.0.0.1:1080", "::::"]) {
    test(`a proxy of ${address} is refused in words`, async () => {
      await using http = createClient({ env: { ALL_PROXY: address } });
      const call = { method: "GET", url: "https://deploy.test/", schema: ANSWER, signal: never } as const;
      for (const attempt of [() => http.requestJson(call), () => http.openBody(call)]) {
        expect(await failureOf(attempt())).toMatchObject({
          kind: "host",
          message: expect.stringContaining("cannot use the proxy that the environment names"),
        });
      }
    });
  }

  test("past the proxy where NO_PROXY says so", async () => {
    await using server = serve(() => Response.json({ ok: true }));
    await using proxy = await startConnectProxy();
    await using http = createClient({ env: { HTTP_PROXY: proxy.url, NO_PROXY: "127.0.0.1" } });
    const call = { method: "GET", url: server.url, schema: ANSWER, signal: never } as const;
    await http.requestJson(call);
    await using answer = await http.openBody(call);
    await collect(answer.body);
    expect(proxy.seen).toEqual([]);
  });

  test("past a proxy that only the environment of the process names: the one that was given counts", async () => {
    await using server = serve(() => Response.json({ ok: true }));
    await using proxy = await startConnectProxy();
    const before = process.env["HTTP_PROXY"];
    process.env["HTTP_PROXY"] = proxy.url;
    try {
      await using http = createClient();
      const call = { method: "GET", url: server.url, schema: ANSWER, signal: never } as const;
      await http.requestJson(call);
      await using answer = await http.openBody(call);
      await collect(answer.body);
    } finally {
      if (before === undefined) delete process.env["HTTP_PROXY"];
      else process.env["HTTP_PROXY"] = before;
    }
    expect(proxy.seen).toEqual([]);
  });

  describe("TLS", () => {
    const tls = { key: Bun.file(join(TLS, "key.pem")), cert: Bun.file(join(TLS, "certificate.pem")) };
    const start = () => {
      const headers = { connection: "close" };
      const fetch = () => Response.json({ ok: true }, { headers });
      const server = Bun.serve({ port: 0, hostname: "localhost", tls, fetch });
      return { port: server.port, [Symbol.asyncDispose]: () => server.stop(true) };
    };

    for (const variable of ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"]) {
      test(`an authority of one's own by ${variable}, proxy or not`, async () => {
        await using server = start();
        await using proxy = await startConnectProxy();
        const authorities = { [variable]: join(TLS, "certificate.pem") };
        for (const env of [authorities, { ...authorities, HTTPS_PROXY: proxy.url }]) {
          await using http = createClient({ env });
          const call = {
            method: "GET",
            url: `https://localhost:${server.port}/`,
            schema: ANSWER,
            signal: never,
          } as const;
          expect((await http.requestJson(call)).answer).toEqual({ ok: true });
          await using answer = await http.openBody(call);
          expect(await collect(answer.body)).toBe('{"ok":true}');
        }
        expect(proxy.seen.map((line) => line.split(" ")[0])).toEqual(["CONNECT", "CONNECT"]);
      });
    }

    test("an unknown authority is refused at once, with the way out", async () => {
      await using server = start();
      const clock = createImpatientClock();
      await using http = createClient({ clock });
      const call = { method: "GET", url: `https://localhost:${server.port}/`, schema: ANSWER, signal: never } as const;
      for (const attempt of [() => http.requestJson(call), () => createClient().openBody(call)]) {
        expect(await failureOf(attempt())).toMatchObject({
          kind: "unreachable",
          message: expect.stringContaining("its certificate is not trusted"),
          hint: expect.stringContaining("NIX_SSL_CERT_FILE"),
        });
      }
      expect(clock.waits).toEqual([]);
    });

    test("TLS where the server speaks none", async () => {
      await using server = serve(() => new Response());
      await using http = createClient({ clock: createImpatientClock() });
      const url = server.url.replace("http:", "https:");
      const error = await failureOf(http.requestJson({ method: "GET", url, schema: ANSWER, signal: never }));
      expect(error).toMatchObject({ kind: "unreachable", hint: "Is the address http:// instead?" });
    });
  });
});
