/** Servers that are no coordinator, or none that can be trusted: where a wrong URL leads. */
import { listen, type TCPSocketListener } from "bun";
import type { TestCertificate } from "../../support/certificates.ts";

export type OddServers = AsyncDisposable & {
  /** Name → origin, for the tables. */
  readonly origins: Readonly<Record<string, string>>;
};

const PAGE = "<!doctype html><title>Welcome</title>";
const HTML = { "content-type": "text/html; charset=utf-8" };

const ANSWERS: Readonly<Record<string, () => Response>> = {
  "html-200": () => new Response(PAGE, { headers: HTML }),
  "html-404": () => new Response(PAGE, { status: 404, headers: HTML }),
  "html-401": () => new Response(PAGE, { status: 401, headers: HTML }),
  "html-500": () => new Response(PAGE, { status: 500, headers: HTML }),
  "html-502": () => new Response(PAGE, { status: 502, headers: HTML }),
  "json-other": () => Response.json({ hello: "world" }),
  "json-list": () => Response.json([1, 2, 3]),
  "json-cut": () => new Response('{"version": "0.1', { headers: { "content-type": "application/json" } }),
  "json-404": () => Response.json({ message: "Not Found" }, { status: 404 }),
  empty: () => new Response(null, { status: 204 }),
  "redirect-elsewhere": () => Response.redirect("https://login.example.org/?next=/", 302),
  "redirect-here": () => new Response(null, { status: 302, headers: { location: "/login" } }),
  "redirect-nowhere": () => new Response(null, { status: 302 }),
};

export function startOddServers(certificate: TestCertificate): OddServers {
  const servers = Object.entries(ANSWERS).map(([name, answer]) => ({ name, server: serve(answer) }));
  const tls = serve(() => Response.json({}), {
    cert: Bun.file(certificate.certificateFile),
    key: Bun.file(certificate.keyFile),
  });
  const raw = {
    ssh: listenRaw((socket) => socket.write("SSH-2.0-OpenSSH_9.2p1\r\n")),
    "hanging-up": listenRaw((socket) => socket.end()),
  };
  const origins = {
    ...Object.fromEntries(servers.map(({ name, server }) => [name, server.url.origin])),
    ...Object.fromEntries(Object.entries(raw).map(([name, { port }]) => [name, `http://127.0.0.1:${port}`])),
    tls: tls.url.origin,
    "tls-as-http": tls.url.origin.replace("https:", "http:"),
    "http-as-tls": (servers[0]?.server.url.origin ?? "").replace("http:", "https:"),
    // Port 9 is "discard", which nobody offers any more.
    closed: "http://127.0.0.1:9",
    unknown: "http://nowhere.invalid",
  };
  return {
    origins,
    async [Symbol.asyncDispose]() {
      await Promise.all([...servers.map(({ server }) => server), tls].map((server) => server.stop(true)));
      for (const { stop } of Object.values(raw)) stop();
    },
  };
}

function serve(fetch: () => Response, tls?: { readonly cert: Bun.BunFile; readonly key: Bun.BunFile }) {
  return Bun.serve({ hostname: "127.0.0.1", port: 0, fetch, ...(tls === undefined ? {} : { tls }) });
}

type Talk = (socket: { write(text: string): unknown; end(): unknown }) => unknown;

function listenRaw(onOpen: Talk): { readonly port: number; stop(): void } {
  const listener: TCPSocketListener = listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { open: (socket) => void onOpen(socket), data() {} },
  });
  return { port: listener.port, stop: () => listener.stop(true) };
}
