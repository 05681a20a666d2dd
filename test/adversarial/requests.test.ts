/**
 * Requests that no client of ours sends, byte by byte over a real port: whatever comes, the answer is not a 500, the
 * coordinator logs no bug (its disposal checks that), and it goes on answering.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { formatHashNix32 } from "../../src/nix/hash.ts";
import { storePathHash } from "../../src/nix/store-path.ts";
import { AGENT_CONNECT_PATH } from "../../src/protocol.ts";
import { type Listener, listen } from "../../src/server/listener.ts";
import { createTestCoordinator, type TestCoordinator } from "../support/coordinator.ts";
import { createTinyPath } from "../support/tiny-path.ts";
import { createChance } from "./mutator.ts";

const PATH = createTinyPath("one", { contents: new Uint8Array(5_000).map((_, index) => index * 7) });
const NAR = `/cache/default/nar/${formatHashNix32(PATH.fileHash)}.nar.zst`;
const NARINFO = `/cache/default/${storePathHash(PATH.storePath)}.narinfo`;
const HASH = formatHashNix32(PATH.narHash);
const ID = "0123456789abcdfg";

let server: TestCoordinator;
let listener: Listener;

beforeAll(async () => {
  server = await createTestCoordinator();
  await server.push(PATH);
  const controlSocket = `${server.directory}/control.sock`;
  listener = listen(server.coordinator, { hostname: "127.0.0.1", port: 0, tls: null, controlSocket });
});
afterAll(async () => {
  await listener[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

/** Sends the bytes, says no more, and gives all that came back. */
async function exchange(request: string | Uint8Array): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const chunks: Uint8Array[] = [];
  const socket = connect(Number(new URL(listener.url).port), "127.0.0.1");
  socket.on("data", (chunk: Uint8Array) => chunks.push(chunk));
  socket.on("error", () => {
    // A reset is an answer too.
  });
  socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
  socket.end(request);
  return await promise;
}

const CREDENTIAL = () => `Authorization: Bearer ${server.adminToken}\r\n`;
const statusOf = (answer: string) => Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0);
const get = (target: string, headers = "", method = "GET") =>
  exchange(`${method} ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${CREDENTIAL()}${headers}\r\n`);

async function expectHealthy(answer: string): Promise<void> {
  expect(statusOf(answer)).not.toBe(500);
  // Bun's own error page, and anything of our source.
  expect(answer).not.toMatch(/<html|\.ts:\d|node_modules|at async/i);
  expect((await fetch(`${listener.url}/healthz`)).status).toBe(200);
}

const WORDS = [
  "%",
  "%zz",
  "%ff%fe",
  "%00",
  "%2e%2e",
  "..",
  "../../etc/passwd",
  "%2f",
  "//",
  "\\",
  "é",
  "a".repeat(5_000),
  "?x",
];

describe("targets", () => {
  const places = [
    (word: string) => `/${word}`,
    (word: string) => `/cache/${word}/nix-cache-info`,
    (word: string) => `/cache/default/${word}`,
    (word: string) => `/cache/default/nar/${word}`,
    (word: string) => `${NAR}${word}`,
    (word: string) => `/api/v1/${word}`,
    (word: string) => `/api/v1/caches/${word}`,
    (word: string) => `/api/v1/deployments/${word}/log`,
    (word: string) => `/api/v1/rollouts/${word}/follow`,
    (word: string) => `/api/v1/agents?workspace=${word}`,
    (word: string) => `/api/v1/deployments?agent=${word}&limit=${word}`,
    (word: string) => `/rollouts/${word}`,
  ];
  for (const place of places) {
    test(place("…"), async () => {
      for (const word of WORDS) await expectHealthy(await get(place(word)));
    });
  }

  test("that are no paths", async () => {
    for (const target of [
      "*",
      "http://evil/api/v1/status",
      "http://[/",
      "//evil/x",
      "x",
      "?",
      "#",
      "/\0",
      "http://x:99999/",
    ]) {
      await expectHealthy(await get(target));
    }
  });

  test("a host that is none", async () => {
    for (const host of ["", "[", "a b", "x:99999", "é", "x/y", "@", "\0", "x\r\nHost: y"]) {
      const answer = await exchange(
        `GET /api/v1/status HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${CREDENTIAL()}\r\n`,
      );
      await expectHealthy(answer);
    }
    await expectHealthy(await exchange("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"));
    await expectHealthy(await exchange("GET /healthz HTTP/1.0\r\n\r\n"));
  });
});

describe("the query of an upload", () => {
  const good: Readonly<Record<string, string>> = { upload: ID, offset: "0", narSize: String(PATH.nar.length) };
  const numbers = [
    "",
    "-1",
    "1.5",
    "1e400",
    "0x10",
    "9007199254740993",
    "99999999999999999999",
    "NaN",
    "Infinity",
    " 1",
    "1 ",
    "%31",
    "null",
  ];
  const texts = [
    "",
    "x",
    "../../x",
    "%00",
    "0123456789ABCDEF",
    "0123456789abcdf\u00e9",
    "a".repeat(3_000),
    HASH.toUpperCase(),
    `${HASH}0`,
  ];
  for (const [key, values] of Object.entries({ upload: texts, offset: numbers, narSize: numbers, fileHash: texts })) {
    test(key, async () => {
      for (const value of values) {
        const query = new URLSearchParams({ ...good, [key]: value });
        const answer = await server.fetch(`caches/default/nars/${HASH}?${query}`, {
          method: "PUT",
          body: new Uint8Array(),
        });
        // An offset that is a number may be another one than the coordinator expects.
        expect([key, value, answer.status]).toSatisfy(([, , status]) => [200, 400, 409, 422].includes(Number(status)));
      }
    });
  }

  test("each given twice", async () => {
    const query = `upload=${ID}&upload=..&offset=0&offset=5&narSize=1&narSize=9`;
    const answer = await server.fetch(`caches/default/nars/${HASH}?${query}`, {
      method: "PUT",
      body: new Uint8Array(),
    });
    expect(answer.status).toBeLessThan(500);
  });

  test("the NarHash in the path", async () => {
    for (const text of texts.filter((each) => each !== "")) {
      const query = new URLSearchParams(good);
      const answer = await server.fetch(`caches/default/nars/${encodeURIComponent(text)}?${query}`, {
        method: "PUT",
        body: new Uint8Array(),
      });
      expect([text, answer.status]).toEqual([text, 400]);
    }
  });
});

describe("parts of a file", () => {
  const size = PATH.file.length;
  const bodyOf = (answer: string) => answer.slice(answer.indexOf("\r\n\r\n") + 4);
  const file = Buffer.from(PATH.file).toString("latin1");

  test.each<[string, number, string]>([
    ["bytes=0-", 206, file],
    ["bytes=0-0", 206, file.slice(0, 1)],
    [`bytes=${size - 1}-`, 206, file.slice(-1)],
    ["bytes=10-19", 206, file.slice(10, 20)],
    ["bytes=10-99999999", 206, file.slice(10)],
    ["bytes=-5", 206, file.slice(-5)],
  ])("%s", async (range, status, body) => {
    const answer = await get(NAR, `Range: ${range}\r\n`);
    expect(statusOf(answer)).toBe(status);
    expect(bodyOf(answer) === body).toBe(true);
  });

  test("ranges that make no sense are ignored or refused, and never give other bytes", async () => {
    const ranges = [
      "bytes=",
      "bytes=-",
      "bytes=5",
      "bytes=9-3",
      "bytes=a-b",
      "bytes=0x0-5",
      "bytes=--5",
      "items=0-5",
      "bytes 0-5",
    ];
    const large = [
      "bytes=99999999-",
      `bytes=${size}-`,
      "bytes=9007199254740993-",
      "bytes=-0",
      "bytes=99999999999999999999999-5",
    ];
    const several = ["bytes=0-1,5-6", "bytes=0-1, 0-1, 0-1", `bytes=${"0-1,".repeat(500)}`, "bytes=0-,0-,0-"];
    for (const range of [...ranges, ...large, ...several]) {
      const answer = await get(NAR, `Range: ${range}\r\n`);
      const status = statusOf(answer);
      if (status === 200) expect([range, bodyOf(answer) === file]).toEqual([range, true]);
      else if (status === 206) expect([range, file.includes(bodyOf(answer))]).toEqual([range, true]);
      else expect([range, [400, 416].includes(status)]).toEqual([range, true]);
      await expectHealthy(answer);
    }
  });

  test("an entity tag is compared, whatever stands around it", async () => {
    const etag = /\r\netag: ("[^\r]*)/i.exec(await get(NAR))?.[1] ?? "";
    const cases: readonly (readonly [string, number])[] = [
      [etag, 304],
      [`W/${etag}`, 304],
      ["*", 304],
      [`"other", ${etag}`, 304],
      [etag.slice(0, -1), 200],
      [etag.replaceAll('"', ""), 200],
      ['"', 200],
      [",,,", 200],
      [`"${"x,".repeat(2_000)}"`, 200],
    ];
    for (const target of [NAR, NARINFO]) {
      const own = /\r\netag: ("[^\r]*)/i.exec(await get(target))?.[1] ?? "";
      for (const [text, status] of cases) {
        const answer = await get(target, `If-None-Match: ${text.replaceAll(etag, own)}\r\n`);
        expect([target, text, statusOf(answer)]).toEqual([target, text, status]);
      }
    }
  });
});

describe("messages", () => {
  test("cut off anywhere", async () => {
    const whole = `POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\n${CREDENTIAL()}Content-Length: 15\r\n\r\n{"kind":"read"}`;
    for (let length = 0; length < whole.length; length += 9) await exchange(whole.slice(0, length));
    await expectHealthy(await exchange(whole));
  });

  test("with lengths that contradict each other", async () => {
    const start = `POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${CREDENTIAL()}`;
    for (const rest of [
      "Content-Length: -1\r\n\r\n",
      "Content-Length: 99999999999999999999\r\n\r\n{}",
      "Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}",
      "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
      "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
      "Transfer-Encoding: chunked, gzip\r\n\r\n{}",
      "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
      `X: ${"y".repeat(100_000)}\r\n\r\n`,
      `${"X: y\r\n".repeat(5_000)}\r\n`,
    ]) {
      await expectHealthy(await exchange(start + rest));
    }
  });

  test("with bytes of chance", async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const chance = createChance(seed);
    const whole = Buffer.from(
      `PUT /api/v1/caches/default/nars/${HASH}?upload=${ID}&narSize=9 HTTP/1.1\r\nHost: x\r\n${CREDENTIAL()}Content-Length: 3\r\n\r\nabc`,
    );
    for (let count = 0; count < 200; count += 1) {
      const damaged = Buffer.from(whole);
      for (let changes = 0; changes < 3; changes += 1) {
        damaged[Math.floor(chance() * damaged.length)] = Math.floor(chance() * 256);
      }
      const answer = await exchange(damaged);
      expect([seed, count, statusOf(answer)]).not.toEqual([seed, count, 500]);
    }
    await expectHealthy(await get("/api/v1/status"));
  });
});

describe("websockets of agents", () => {
  const frames: readonly (string | Uint8Array)[] = [
    "",
    "null",
    "[".repeat(100_000),
    '{"kind":"hello"}',
    '{"kind":"ping"}',
    '{"kind":"nobody knows this"}',
    `{"kind":"report","deploymentId":"${ID}","entries":[${'{"type":"log"},'.repeat(1_999)}0]}`,
    new Uint8Array([0, 1, 2]),
    "x".repeat(5 * 1024 * 1024),
  ];
  for (const frame of frames) {
    test(`a first frame ${JSON.stringify(String(frame).slice(0, 40))}`, async () => {
      const socket = new WebSocket(`${listener.url.replace("http", "ws")}${AGENT_CONNECT_PATH}`);
      const received: string[] = [];
      const closed = Promise.withResolvers<void>();
      socket.onmessage = ({ data }) => {
        if (received.push(String(data)) === 1) {
          socket.send(frame);
          if (String(frame).includes("nobody knows")) socket.close();
        }
      };
      socket.onclose = () => closed.resolve();
      await closed.promise;
      for (const text of received) expect(text.length).toBeLessThan(4_096);
      await expectHealthy(await get("/api/v1/status"));
    });
  }
});
