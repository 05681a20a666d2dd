/** One try of each kind of check: what passes, and how what does not is told. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createServer, type Server } from "node:net";
import type { DriverDeps } from "../../../src/agent/activation/types/driver.ts";
import { createHealthProbe, type HealthSenses } from "../../../src/agent/health/health-probe.ts";
import { createHealthSenses, withoutProxyToThisMachine } from "../../../src/agent/health/health-senses.ts";
import { type ProgramExit, type RunProgramOptions, runProgram } from "../../../src/agent/machine/process.ts";
import { parseUnitStates } from "../../../src/agent/machine/systemd.ts";
import { type HealthCheck, parseOwnHealthChecks } from "../../../src/health-check.ts";
import { createHttpClient } from "../../../src/http/client.ts";
import { readNetworkSettings } from "../../../src/http/settings.ts";
import { systemClock, systemRandom } from "../../../src/runtime.ts";
import { startConnectProxy } from "../../support/connect-proxy.ts";
import { findFreePorts } from "../../support/free-port.ts";
import { storePathFor } from "../../support/tiny-path.ts";
import { recordOf } from "../activation/records.ts";

const SMOKE = `${storePathFor("smoke")}/bin/smoke`;

function checkOf(fields: object): HealthCheck {
  const parsed = parseOwnHealthChecks([{ name: "it", ...fields }], "check");
  const [check] = parsed.kind === "checks" ? parsed.checks : [];
  if (check === undefined) throw new Error(JSON.stringify(parsed));
  return check;
}

let units: ReadonlyMap<string, string> | null;
let ran: RunProgramOptions[];
let exit: ProgramExit;
let environment: Record<string, string>;

beforeEach(() => {
  units = new Map();
  ran = [];
  exit = { kind: "exited", code: 0 };
  environment = {};
});

function senses(): HealthSenses {
  return createHealthSenses({
    services: { readUnitStates: async () => units },
    createHttp: () =>
      createHttpClient({
        ...{ userAgent: "test", clock: systemClock, random: systemRandom },
        env: withoutProxyToThisMachine(environment),
      }),
  });
}

async function tryOnce(fields: object, signal = new AbortController().signal) {
  const refuse = async () => {
    throw new Error("not asked for here");
  };
  const driverDeps: DriverDeps = {
    ...{
      readProfilePath: refuse,
      readCurrentSystem: refuse,
      readNames: refuse,
      readFailedUnits: refuse,
      hasUnit: refuse,
      boot: { readBootedSystem: refuse, readUnproved: refuse, readInhibitors: refuse, findBootLoader: refuse },
    },
    record: recordOf({ environment: { PATH: "/bin" } }),
    clock: systemClock,
    log: async () => {},
    run: async (program) => {
      ran.push(program);
      return exit;
    },
  };
  return await createHealthProbe(senses(), driverDeps)(checkOf(fields), { timeoutMs: 5_000, signal });
}

describe("units", () => {
  const CASES: readonly (readonly [states: Record<string, string> | null, text: string | null])[] = [
    [{ "a.service": "active", "b.socket": "active" }, null],
    [{ "a.service": "active", "b.socket": "activating" }, "b.socket is activating"],
    [{ "a.service": "failed", "b.socket": "not-found" }, "a.service is failed, b.socket is not there"],
    [{ "a.service": "active" }, "b.socket is not there"],
    [null, "systemd does not run here"],
  ];
  test.each(CASES)("that are %j", async (states, text) => {
    units = states === null ? null : new Map(Object.entries(states));
    const trouble = await tryOnce({ kind: "units", units: ["a.service", "b.socket"] });
    expect(trouble?.text ?? null).toBe(text);
    expect(trouble?.isFinal ?? false).toBe(states === null);
  });

  test("are told apart in what systemctl shows", () => {
    const lines = ["LoadState=loaded", "ActiveState=active", "", "LoadState=not-found", "ActiveState=inactive", ""];
    const shown = parseUnitStates(["a.service", "b.service", "c.service"], lines);
    expect([...shown]).toEqual([
      ["a.service", "active"],
      ["b.service", "not-found"],
      ["c.service", "unknown"],
    ]);
  });
});

describe("a TCP port", () => {
  let server: Server;
  let port: number;
  beforeEach(async () => {
    server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    port = typeof address === "object" && address !== null ? address.port : 0;
  });
  afterEach(() => {
    server.close();
  });

  test("that listens passes, by address and by name", async () => {
    for (const host of ["127.0.0.1", "localhost"]) expect(await tryOnce({ kind: "tcp", port, host })).toBeNull();
  });

  test("that nobody listens on does not", async () => {
    const [free = 0] = await findFreePorts(1);
    const trying = tryOnce({ kind: "tcp", port: free });
    await expect(trying).rejects.toThrow(`cannot reach 127.0.0.1 port ${free}: the connection was refused`);
  });

  test("of a host that there is not does not", async () => {
    const trying = tryOnce({ kind: "tcp", port: 1, host: "nowhere.invalid" });
    await expect(trying).rejects.toThrow("cannot reach nowhere.invalid port 1: ");
  });

  test("is given up with its signal", async () => {
    const reason = new Error("too late");
    // Nobody answers from there.
    const trying = tryOnce({ kind: "tcp", port: 1, host: "192.0.2.1" }, AbortSignal.abort(reason));
    await expect(trying).rejects.toThrow("too late");
  });
});

describe("a web server", () => {
  let status: number;
  let asked: string[];
  let server: ReturnType<typeof Bun.serve>;
  beforeEach(() => {
    status = 200;
    asked = [];
    server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        const { pathname } = new URL(request.url);
        asked.push(pathname);
        if (pathname === "/endless") return new Response(endless());
        if (pathname === "/silent") return new Promise<Response>(() => {});
        if (pathname === "/moved") return Response.redirect(new URL("/there", request.url).href, 302);
        return new Response("body", { status });
      },
    });
  });
  afterEach(() => server.stop(true));
  const at = (path: string) => new URL(path, server.url).href;

  function endless(): ReadableStream<Uint8Array> {
    return new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536)) });
  }

  test("that answers with a good status passes", async () => {
    for (status of [200, 204, 299]) expect(await tryOnce({ kind: "http", url: at("/") })).toBeNull();
    status = 401;
    expect(await tryOnce({ kind: "http", url: at("/"), status: [200, 401] })).toBeNull();
  });

  test("that answers with another one does not", async () => {
    for (status of [300, 404, 500]) {
      const trouble = await tryOnce({ kind: "http", url: at("/x") });
      expect(trouble?.text).toBe(`${at("/x")} answers with status ${status} instead of 200 to 299`);
    }
    status = 200;
    const trouble = await tryOnce({ kind: "http", url: at("/"), status: [204, 304] });
    expect(trouble?.text).toEndWith("instead of 204 or 304");
  });

  test("is followed elsewhere only when that is asked for", async () => {
    expect(await tryOnce({ kind: "http", url: at("/moved") })).toMatchObject({
      text: expect.stringContaining("status 302"),
    });
    expect(asked).toEqual(["/moved"]);
    expect(await tryOnce({ kind: "http", url: at("/moved"), followRedirects: true })).toBeNull();
    expect(asked).toEqual(["/moved", "/moved", "/there"]);
  });

  test("whose body has no end passes by its status", async () => {
    expect(await tryOnce({ kind: "http", url: at("/endless") })).toBeNull();
  });

  test("that says nothing is given up with the signal", async () => {
    await expect(tryOnce({ kind: "http", url: at("/silent") }, AbortSignal.timeout(50))).rejects.toThrow();
  });

  test("that is not there is told", async () => {
    const [free = 0] = await findFreePorts(1);
    const trying = tryOnce({ kind: "http", url: `http://127.0.0.1:${free}/` });
    await expect(trying).rejects.toThrow("the connection was refused");
  });

  test("on this machine is asked past all proxies", async () => {
    await using proxy = await startConnectProxy();
    environment = { http_proxy: proxy.url, NO_PROXY: "example.org" };
    expect(await tryOnce({ kind: "http", url: at("/") })).toBeNull();
    expect(proxy.seen).toEqual([]);
    const { findProxy } = readNetworkSettings(withoutProxyToThisMachine(environment));
    const proxyOf = (url: string) => findProxy(new URL(url));
    expect(["http://localhost:1/", "http://[::1]/", "http://127.1.2.3/", "http://example.org/"].map(proxyOf)).toEqual([
      ...[null, null, null, null],
    ]);
    expect(proxyOf("http://elsewhere.test/")).toBe(proxy.url);
  });

  test("cannot be asked where the authorities cannot be read: a failed try, no broken supervisor", async () => {
    environment = { SSL_CERT_FILE: "/nowhere/ca.pem" };
    await expect(tryOnce({ kind: "http", url: at("/") })).rejects.toThrow("cannot read the certificate authorities");
  });
});

describe("a command", () => {
  test("that ends with 0 passes; it gets its words as they are", async () => {
    expect(await tryOnce({ kind: "command", command: [SMOKE, "$(x)", "a b"] })).toBeNull();
    expect(ran).toMatchObject([
      { command: SMOKE, args: ["$(x)", "a b"], deadlineMs: 5_000, environment: { PATH: "/bin" } },
    ]);
  });

  const ENDS: readonly (readonly [exit: ProgramExit, words: string, isFinal: boolean])[] = [
    [{ kind: "exited", code: 3 }, "ended with code 3", false],
    [{ kind: "killed", signal: "SIGSEGV" }, "was ended by SIGSEGV", false],
    [{ kind: "timed-out", afterMs: 5_000 }, "did not end within 5 s and was stopped", false],
    [{ kind: "not-started", reason: "permission denied" }, "could not be started (permission denied)", true],
  ];
  test.each(ENDS)("that ends as %j does not", async (end, words, isFinal) => {
    exit = end;
    expect(await tryOnce({ kind: "command", command: [SMOKE] })).toEqual({ text: `${SMOKE} ${words}`, isFinal });
    // A program of the device may still come.
    const own = await tryOnce({ kind: "command", command: ["/bin/smoke"] });
    expect(own).toEqual({ text: `/bin/smoke ${words}`, isFinal: false });
  });

  test("is stopped with its signal, children included", async () => {
    const stop = new AbortController();
    const lines: string[] = [];
    const ended = runProgram({
      ...{ command: "/bin/sh", args: ["-c", "sleep 60 & echo started; wait"], environment: { PATH: "/bin:/usr/bin" } },
      ...{ deadlineMs: 60_000, clock: systemClock, stop: stop.signal },
      onLine: async (_stream, text) => {
        lines.push(text);
        stop.abort(new Error("enough"));
      },
    });
    expect(await ended).toMatchObject({ kind: "timed-out", afterMs: expect.any(Number) });
    expect(lines).toEqual(["started"]);
  });
});
