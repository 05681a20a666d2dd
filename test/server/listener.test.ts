/** What only a real port shows: files and ranges, HEAD, credentials of vanilla Nix, websockets, the control socket. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, statSync } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import { connect } from "node:net";
import { agentListSchema } from "../../src/api/agents.ts";
import { uploadAnswerSchema } from "../../src/api/caches.ts";
import { decodeCoordinatorFrame } from "../../src/frames.ts";
import { formatHashNix32 } from "../../src/nix/hash.ts";
import { parseNarInfo } from "../../src/nix/narinfo.ts";
import { storePathHash } from "../../src/nix/store-path.ts";
import { AGENT_CONNECT_PATH } from "../../src/protocol.ts";
import { type Listener, listen } from "../../src/server/listener.ts";
import { createTestCoordinator, type TestCoordinator } from "../support/coordinator.ts";
import { createAgentIdentity, helloOf } from "../support/scripted-agent.ts";
import { createTinyPath, storePathFor } from "../support/tiny-path.ts";
import { waitFor } from "../support/wait-for.ts";

const PATH = createTinyPath("one", { contents: crypto.getRandomValues(new Uint8Array(5_000)) });
const NAR = `/cache/default/nar/${formatHashNix32(PATH.fileHash)}.nar.zst`;
const NARINFO = `/cache/default/${storePathHash(PATH.storePath)}.narinfo`;
const FILES = ["/cache/default/nix-cache-info", NARINFO, NAR];

type Served = { readonly server: TestCoordinator; readonly listener: Listener; readonly controlSocket: string };

async function serve(server: TestCoordinator): Promise<Served> {
  const controlSocket = `${server.directory}/control.sock`;
  const listener = listen(server.coordinator, { hostname: "127.0.0.1", port: 0, tls: null, controlSocket });
  return { server, listener, controlSocket };
}

let served: Served;
let readToken = "";

beforeAll(async () => {
  served = await serve(await createTestCoordinator());
  await served.server.push(PATH);
  readToken = (await served.server.createToken("read")).token;
});
afterAll(async () => {
  await served.listener[Symbol.asyncDispose]();
  await served.server[Symbol.asyncDispose]();
});

async function get(path: string, headers: Record<string, string> = {}, method = "GET") {
  const answer = await fetch(`${served.listener.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${readToken}`, ...headers },
  });
  return { status: answer.status, headers: answer.headers, body: new Uint8Array(await answer.arrayBuffer()) };
}

async function setPublic(isPublic: boolean): Promise<void> {
  await served.server.fetch("caches/default", { method: "PATCH", json: { public: isPublic } });
}

describe("files of a cache", () => {
  test("nix-cache-info", async () => {
    const { body, headers } = await get("/cache/default/nix-cache-info");
    expect(new TextDecoder().decode(body)).toBe("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 41\n");
    expect(headers.get("content-type")).toBe("text/x-nix-cache-info");
  });

  test("a narinfo leads to its NAR", async () => {
    const { body, headers } = await get(NARINFO);
    const info = parseNarInfo(new TextDecoder().decode(body));
    expect(headers.get("content-type")).toBe("text/x-nix-narinfo");
    expect(info).toMatchObject({ storePath: PATH.storePath, narHash: PATH.narHash, compression: "zstd" });
    expect(info.fileSizeBytes).toBe(PATH.file.length);
    const nar = await get(`/cache/default/${info.url}`);
    expect(nar.headers.get("content-type")).toBe("application/x-nix-nar");
    expect(nar.headers.get("content-length")).toBe(String(PATH.file.length));
    expect(Buffer.from(nar.body).equals(Buffer.from(PATH.file))).toBe(true);
  });

  for (const path of FILES) {
    test(`HEAD ${path.slice(0, 25)} says its length and sends nothing`, async () => {
      const [head, whole] = [await get(path, {}, "HEAD"), await get(path)];
      expect(head.status).toBe(200);
      expect(head.body).toHaveLength(0);
      expect(head.headers.get("content-length")).toBe(String(whole.body.length));
      expect(head.headers.get("etag")).toBe(whole.headers.get("etag"));
    });

    for (const method of ["POST", "PUT", "DELETE"]) {
      test(`${method} ${path.slice(0, 25)} is not allowed`, async () => {
        const { status, headers } = await get(path, {}, method);
        expect([status, headers.get("allow")]).toEqual([405, "GET, HEAD"]);
      });
    }
  }

  const absent = [
    `/cache/default/${storePathHash(storePathFor("absent"))}.narinfo`,
    `/cache/default/${"e".repeat(32)}.narinfo`,
    "/cache/default/x.narinfo",
    "/cache/default/secret",
    `/cache/default/nar/${"0".repeat(52)}.nar.zst`,
    `/cache/default/nar/${"e".repeat(52)}.nar.zst`,
    `/cache/default/nar/${formatHashNix32(PATH.fileHash)}.nar.xz`,
    "/cache/default/nar/..%2f..%2fcoordinator.db",
    "/cache/other/nix-cache-info",
    "/cache/-/nix-cache-info",
  ];
  for (const path of absent) {
    test(`nothing is at ${path.slice(0, 40)}`, async () => {
      for (const method of ["GET", "HEAD"])
        expect([method, (await get(path, {}, method)).status]).toEqual([method, 404]);
    });
  }

  test("a NAR whose file is gone is not there, and nothing of the inside is shown", async () => {
    const { server } = served;
    const lost = createTinyPath("lost");
    await server.push(lost);
    const name = formatHashNix32(lost.fileHash);
    await rm(`${server.directory}/nars/${name.slice(0, 2)}/${name}.nar.zst`);
    const answer = await get(`/cache/default/nar/${name}.nar.zst`);
    expect(answer.status).toBe(404);
    expect(new TextDecoder().decode(answer.body)).not.toContain("/");
    expect(server.logged.filter(({ level }) => level === "error")).toMatchObject([
      { message: "a NAR file is missing" },
    ]);
    server.logged.length = 0;
  });
});

describe("ranges", () => {
  const etag = `"${formatHashNix32(PATH.fileHash)}"`;
  const { length } = PATH.file;
  const cases: readonly (readonly [headers: Record<string, string>, status: number, from: number, to: number])[] = [
    [{ range: "bytes=0-9" }, 206, 0, 10],
    [{ range: "bytes=1000-" }, 206, 1_000, length],
    [{ range: "bytes=-5" }, 206, length - 5, length],
    [{ range: `bytes=10-${length * 2}` }, 206, 10, length],
    [{ range: "bytes=10-19", "if-range": etag }, 206, 10, 20],
    [{ range: "bytes=10-19", "if-range": '"another"' }, 200, 0, length],
    [{ range: `bytes=${length}-` }, 416, 0, 0],
  ];
  for (const [headers, status, from, to] of cases) {
    test(JSON.stringify(headers).slice(0, 60), async () => {
      const answer = await get(NAR, headers);
      expect(answer.status).toBe(status);
      expect(Buffer.from(answer.body).equals(Buffer.from(PATH.file.subarray(from, to)))).toBe(true);
      if (status === 206) expect(answer.headers.get("content-range")).toBe(`bytes ${from}-${to - 1}/${length}`);
      if (status === 416) expect(answer.headers.get("content-range")).toBe(`bytes */${length}`);
    });
  }
});

describe("what the client has already", () => {
  for (const path of [NARINFO, NAR]) {
    test(path.slice(0, 25), async () => {
      const etag = (await get(path)).headers.get("etag") ?? "";
      for (const known of [etag, `"x", ${etag}`, `W/${etag}`, "*"]) {
        const answer = await get(path, { "if-none-match": known });
        expect([known, answer.status, answer.body.length]).toEqual([known, 304, 0]);
        expect(answer.headers.get("etag")).toBe(etag);
      }
      expect((await get(path, { "if-none-match": '"x"' })).status).toBe(200);
    });
  }
});

describe("who may read", () => {
  const basic = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString("base64")}` });

  test("a private cache: nobody without a credential, and Nix is asked for one", async () => {
    for (const path of [...FILES, "/cache/other/nix-cache-info"]) {
      for (const headers of [{ authorization: "" }, { authorization: "Bearer nd_read_x" }, basic("user:wrong")]) {
        const answer = await get(path, headers);
        expect([path, answer.status]).toEqual([path, 401]);
        expect(answer.headers.get("www-authenticate")).toStartWith("Basic realm=");
      }
    }
  });

  test("a private cache: bearer, basic with any user, and proxies keep nothing", async () => {
    for (const path of FILES) {
      for (const headers of [{}, basic(`:${readToken}`), basic(`nix:${readToken}`)]) {
        expect((await get(path, headers)).status).toBe(200);
      }
    }
    expect((await get(NAR)).headers.get("cache-control")).toBe("private, max-age=31536000, immutable");
    expect((await get(NARINFO)).headers.get("cache-control")).toStartWith("private");
  });

  test("a private cache: a token that may not read it learns nothing", async () => {
    const { token } = await served.server.createToken("agent");
    expect((await get(NARINFO, { authorization: `Bearer ${token}` })).status).toBe(404);
  });

  test("a public cache: everyone, whatever credential they have", async () => {
    await setPublic(true);
    for (const path of FILES) {
      for (const headers of [{ authorization: "" }, { authorization: "Bearer nonsense" }]) {
        expect((await get(path, headers)).status).toBe(200);
      }
    }
    expect((await get(NAR)).headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
    await setPublic(false);
    expect((await get(NAR, { authorization: "" })).status).toBe(401);
  });

  test("a token that is revoked reads nothing more", async () => {
    const { id, token } = await served.server.createToken("read");
    const headers = { authorization: `Bearer ${token}` };
    expect((await get(NAR, headers)).status).toBe(200);
    await served.server.fetch(`tokens/${id}`, { method: "DELETE" });
    expect((await get(NAR, headers)).status).toBe(401);
  });
});

describe("the control socket", () => {
  test("is for its owner only, and needs no token", async () => {
    expect(statSync(served.controlSocket).mode & 0o777).toBe(0o600);
    const answer = await fetch("http://control/api/v1/tokens", { unix: served.controlSocket });
    expect(answer.status).toBe(200);
  });

  test("replaces one that a killed process left, and goes with its coordinator", async () => {
    await using server = await createTestCoordinator();
    const first = await serve(server);
    await Bun.write(`${server.directory}/left-over`, "");
    await first.listener[Symbol.asyncDispose]();
    expect(existsSync(first.controlSocket)).toBe(false);
    await Bun.write(first.controlSocket, "left behind");
    const second = await serve(server);
    expect(await (await fetch("http://control/healthz", { unix: second.controlSocket })).text()).toBe("ok\n");
    await second.listener[Symbol.asyncDispose]();
  });

  test("a port that is taken is said so", async () => {
    await using server = await createTestCoordinator();
    const port = Number(new URL(served.listener.url).port);
    const controlSocket = `${server.directory}/control.sock`;
    const again = () => listen(server.coordinator, { hostname: "127.0.0.1", port, tls: null, controlSocket });
    expect(again).toThrow(`cannot listen on 127.0.0.1:${port}: it is in use`);
  });
});

describe("agents", () => {
  async function openSocket(url: string) {
    const socket = new WebSocket(`${url.replace(/^http/, "ws")}${AGENT_CONNECT_PATH}`);
    const frames: string[] = [];
    const closed = new Promise<number>((resolve) => socket.addEventListener("close", ({ code }) => resolve(code)));
    socket.addEventListener("message", ({ data }) => frames.push(String(data)));
    const challenge = await waitFor("the challenge", () => frames[0]);
    const decoded = decodeCoordinatorFrame(challenge);
    if (decoded.kind !== "frame" || decoded.frame.kind !== "challenge") throw new Error(`no challenge: ${challenge}`);
    return { socket, frames, closed, nonce: decoded.frame.nonce };
  }

  async function logIn(server: TestCoordinator, url: string, name: string) {
    const { token } = await server.createToken("agent");
    const opened = await openSocket(url);
    opened.socket.send(JSON.stringify({ ...helloOf(createAgentIdentity(name), opened.nonce), enrolmentToken: token }));
    await waitFor("the welcome", () => opened.frames.find((text) => text.includes('"welcome"')));
    return opened;
  }

  const contact = async (server: TestCoordinator, name: string) => {
    const { agents } = agentListSchema.parse(await (await server.fetch("agents")).json());
    return agents.find((agent) => String(agent.name) === name)?.contact;
  };

  test("connect by websocket, and are gone when they hang up", async () => {
    const { server, listener } = served;
    const { socket } = await logIn(server, listener.url, "nuc");
    expect(await contact(server, "nuc")).toBe("online");
    socket.close();
    await waitFor("the agent to be gone", async () => (await contact(server, "nuc")) === "unknown");
  });

  test("are told when they send what is no text, or too much of it", async () => {
    for (const [data, code] of [
      [new Uint8Array(5), 1003],
      ["x".repeat(5 * 1024 * 1024), 1006],
    ] as const) {
      const { socket, closed } = await openSocket(served.listener.url);
      socket.send(data);
      expect([code, 1009]).toContain(await closed);
    }
  });

  test("whoever asks without a websocket is told so", async () => {
    expect((await get(AGENT_CONNECT_PATH)).status).toBe(426);
  });

  test("are recorded as gone when the coordinator stops in good order", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    const { listener } = await serve(server);
    const { closed } = await logIn(server, listener.url, "nuc");
    await server.clock.advance(5_000);
    await listener[Symbol.asyncDispose]();
    expect(await closed).toBe(1001);
    await server.coordinator[Symbol.asyncDispose]();
    await server.restart();
    const { agents } = agentListSchema.parse(await (await server.fetch("agents")).json());
    expect(agents).toMatchObject([{ lastSeenAt: "2026-01-01T00:00:05.000Z" }]);
  });
});

describe("connections that break", () => {
  test("in the middle of a part: what arrived counts, and it is no bug of ours", async () => {
    const { server, listener } = served;
    const path = createTinyPath("broken", { contents: crypto.getRandomValues(new Uint8Array(500_000)) });
    const upload = "0123456789abcdfg";
    const url = `/api/v1/caches/default/nars/${formatHashNix32(path.narHash)}?upload=${upload}&offset=0&narSize=${path.nar.length}`;
    const socket = connect(Number(new URL(listener.url).port), "127.0.0.1");
    socket.write(
      `PUT ${url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${server.adminToken}\r\nContent-Length: ${path.file.length}\r\n\r\n`,
    );
    socket.write(path.file.subarray(0, 100_000));
    const incoming = `${server.directory}/nars/incoming`;
    await waitFor("the first bytes on the disk", async () => {
      const [name] = await readdir(incoming);
      return name !== undefined && (await stat(`${incoming}/${name}`)).size > 0;
    });
    socket.destroy();
    const offset = await waitFor("the upload to be free", async () => {
      const answer = await server.upload(path, { upload, offset: 1, fileHash: null, body: new Uint8Array(0) });
      return answer.status === 409 ? uploadAnswerSchema.parse(await answer.json()).offset : null;
    });
    expect(offset).toBeGreaterThan(0);
    expect(offset).toBeLessThanOrEqual(100_000);
    expect((await server.upload(path, { upload, offset, body: path.file.subarray(offset) })).status).toBe(200);
    expect(server.logged.filter(({ level }) => level === "error")).toEqual([]);
  });

  test("a follower that hangs up leaves no sleeper behind", async () => {
    await using server = await createTestCoordinator();
    const { listener } = await serve(server);
    await server.push(PATH);
    const agent = await server.connectAgent("nuc");
    await agent.disconnect();
    const rollout = await server.activate(PATH, "nuc");
    // By then the agent counts as offline, and what else was due by the clock is done.
    await server.clock.advance(120_000);
    const before = server.clock.sleepers;
    const hangUp = new AbortController();
    const headers = { authorization: `Bearer ${server.adminToken}` };
    const url = `${listener.url}/api/v1/rollouts/${rollout.id}/follow`;
    const answer = await fetch(url, { headers, signal: hangUp.signal });
    await answer.body?.getReader().read();
    await waitFor("the follower to wait", () => server.clock.sleepers > before);
    hangUp.abort();
    await waitFor("the follower to be gone", () => server.clock.sleepers === before);
    await listener[Symbol.asyncDispose]();
  });
});
