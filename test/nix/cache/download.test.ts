/** The download engine against a cache over real HTTP and a store in memory: whatever goes wrong, nothing false gets in. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { NixdeployError } from "../../../src/errors.ts";
import { createHttpClient, type HttpClient } from "../../../src/http/client.ts";
import { parseCacheName } from "../../../src/names.ts";
import { createCoordinatorCache } from "../../../src/nix/cache/download/coordinator-cache.ts";
import { type FetchClosureOptions, fetchClosure } from "../../../src/nix/cache/download/fetch-closure.ts";
import type { ImportProgress } from "../../../src/nix/cache/download/import-closure.ts";
import type { NarInfo } from "../../../src/nix/narinfo.ts";
import { createSignatureVerifier } from "../../../src/nix/signature.ts";
import { publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { type Clock, systemClock, systemRandom } from "../../../src/runtime.ts";
import { failureOf } from "../../support/failure.ts";
import { type FaultyCache, narInfoOf, planOf, startFaultyCache } from "../../support/faulty-cache.ts";
import { createInstantClock } from "../../support/instant-clock.ts";
import { createMemoryDaemon, type MemoryDaemon } from "../../support/memory-daemon.ts";
import { createTinyPath, narHashOf, type TinyPath } from "../../support/tiny-path.ts";

const KEY = secretKeyFromSeed("team-1", new Uint8Array(32).fill(1));
const OTHER_KEY = secretKeyFromSeed("other-1", new Uint8Array(32).fill(2));

const leaf = createTinyPath("leaf", { contents: randomBytes(40_000) });
const library = createTinyPath("library", { contents: randomBytes(70_000), references: [leaf.storePath] });
const app = createTinyPath("app", { references: [leaf.storePath, library.storePath] });
const ALL = [leaf, library, app];

let cache: FaultyCache;
let daemon: MemoryDaemon;
let http: HttpClient;

beforeEach(async () => {
  cache = await startFaultyCache(ALL);
  cache.plan = planOf(ALL.map((path) => narInfoOf(path, KEY)));
  daemon = createMemoryDaemon();
  http = createHttpClient({ userAgent: "test", env: {}, clock: systemClock, random: systemRandom });
});

afterEach(async () => {
  expect(daemon.connections.open).toBe(0);
  await http[Symbol.asyncDispose]();
  await cache[Symbol.asyncDispose]();
});

/** Incompressible, and the same in every run. */
function randomBytes(length: number): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (let index = 0; index * 32 < length; index += 1) {
    blocks.push(createHash("sha256").update(`${length} ${index}`).digest());
  }
  return new Uint8Array(Buffer.concat(blocks).subarray(0, length));
}

/** Pauses between tries take no time; watchdogs, which sleep longer, wait for the real network. */
function createPauseClock(): Clock {
  const instant = createInstantClock();
  return {
    ...instant,
    sleep: (durationMs, signal) => (durationMs < 15_000 ? instant : systemClock).sleep(durationMs, signal),
  };
}

type Changes = Partial<FetchClosureOptions> & { readonly clock?: Clock; readonly credential?: () => string };

async function fetchApp(changes: Changes = {}) {
  const clock = changes.clock ?? createPauseClock();
  await using rootDaemon = await daemon.connect({ signal: new AbortController().signal });
  return await fetchClosure({
    storePath: app.storePath,
    sources: [
      {
        reader: createCoordinatorCache({
          coordinatorUrl: cache.url,
          cacheName: parseCacheName("default"),
          cachePath: "/cache/default",
          credential: changes.credential ?? (() => "secret"),
          http,
          clock,
          random: systemRandom,
        }),
        verifier: createSignatureVerifier([publicKeyOf(KEY)]),
        trustedKeys: [publicKeyOf(KEY)],
      },
    ],
    rootDaemon,
    connectDaemon: daemon.connect,
    readStoreFreeBytes: async () => 1e9,
    random: systemRandom,
    signal: new AbortController().signal,
    onPlanned: () => {},
    onProgress: () => {},
    ...changes,
    clock,
  });
}

/** The plan with one path's narinfo changed after it was signed, or signed anew. */
function planWith(path: TinyPath, change: (info: NarInfo) => NarInfo): void {
  cache.plan = planOf(ALL.map((each) => (each === path ? change(narInfoOf(each, KEY)) : narInfoOf(each, KEY))));
}

describe("a good cache", () => {
  test("brings the closure, references first, under temporary roots", async () => {
    const progress: ImportProgress[] = [];
    const fetched = await fetchApp({ onProgress: (step) => progress.push(step) });
    expect(fetched.paths).toEqual([leaf.storePath, library.storePath, app.storePath]);
    expect(fetched.fetchedBytes).toBe(leaf.file.length + library.file.length + app.file.length);
    expect([...daemon.valid.keys()]).toEqual([leaf.storePath, library.storePath, app.storePath]);
    expect(daemon.tempRoots).toEqual(new Set(ALL.map((path) => path.storePath)));
    expect(progress.at(-1)).toEqual({
      paths: 3,
      pathsTotal: 3,
      bytes: fetched.fetchedBytes,
      bytesTotal: fetched.fetchedBytes,
    });
    expect(cache.requests.map((request) => request.token)).toEqual(["secret", "secret", "secret"]);
  });

  test("is asked only for what is missing", async () => {
    daemon.valid.set(leaf.storePath, narInfoOf(leaf, KEY));
    expect((await fetchApp()).fetchedBytes).toBe(library.file.length + app.file.length);
    expect(cache.requests.length).toBe(2);
    expect((await fetchApp()).fetchedBytes).toBe(0);
  });

  test("every compression it may use is read", async () => {
    for (const compression of ["none", "xz", "gzip", "br"] as const) {
      const tiny = createTinyPath(`with-${compression}`, { contents: randomBytes(20_000) });
      const file = await compress(compression, tiny.nar);
      const info = narInfoOf(tiny, KEY, { compression, fileHash: null, fileSizeBytes: file.length });
      cache.files.set(`/cache/default/${info.url}`, file);
      cache.plan = planOf([info]);
      await fetchApp({ storePath: tiny.storePath });
      expect(daemon.valid.has(tiny.storePath)).toBe(true);
    }
  });
});

describe("a connection that breaks", () => {
  test("at any byte is continued from there", async () => {
    let continuedAt = 0;
    for (const cutAfterBytes of [0, 1, 2, 100, 4_096, 20_000, leaf.file.length - 1]) {
      daemon.valid.clear();
      cache.requests.length = 0;
      cache.decide = ({ index }) => (index === 0 ? { cutAfterBytes } : null);
      await fetchApp();
      expect(daemon.valid.size).toBe(3);
      // The client may drop bytes that arrived together with the end of the connection.
      const [first, second] = cache.requests;
      expect(second?.path).toBe(first?.path ?? "");
      expect(second?.rangeStart).toBeLessThanOrEqual(cutAfterBytes);
      continuedAt = Math.max(continuedAt, second?.rangeStart ?? 0);
    }
    expect(continuedAt).toBeGreaterThan(0);
  });

  test("again and again, a few bytes further each time, still ends well", async () => {
    cache.decide = () => ({ cutAfterBytes: 9_000 });
    await fetchApp();
    expect(daemon.valid.size).toBe(3);
  });

  test("is continued by a server that knows no ranges", async () => {
    cache.decide = ({ index }) => (index === 0 ? { cutAfterBytes: 1_000 } : { ignoreRange: true });
    await fetchApp();
    expect(daemon.valid.size).toBe(3);
  });

  test("is given up after 15 minutes without a byte", async () => {
    const clock = createPauseClock();
    cache.decide = () => ({ status: 503 });
    const error = await failureOf(fetchApp({ clock }));
    expect(error.kind).toBe("unreachable");
    expect(error.message).toContain("nothing arrived for 15 minutes (the cache answered with status 503)");
    expect(clock.monotonicMs()).toBeGreaterThanOrEqual(15 * 60_000);
    expect(daemon.valid.size).toBe(0);
  });

  test("at a login page of the network is taken up when the page is gone", async () => {
    cache.planPages = 3;
    cache.decide = ({ index }) => (index < 5 ? { isPage: true } : null);
    await fetchApp();
    expect(daemon.valid.size).toBe(3);
  });

  test("at a login page that stays is given up after 15 minutes", async () => {
    const clock = createPauseClock();
    cache.planPages = Number.MAX_SAFE_INTEGER;
    const error = await failureOf(fetchApp({ clock }));
    expect(error.message).toContain("it answered HTTP 200 (text/html), a web page");
    expect(clock.monotonicMs()).toBeGreaterThanOrEqual(15 * 60_000);
  });

  test("is not continued with another file", async () => {
    cache.decide = ({ index }) => (index === 0 ? { cutAfterBytes: 1_000 } : { etag: '"new"' });
    expect((await failureOf(fetchApp())).message).toContain("changed while it was downloaded");
  });

  test("ends at once when the deployment is cancelled", async () => {
    const cancel = new AbortController();
    cache.decide = () => {
      cancel.abort(new Error("cancelled"));
      return { status: 503 };
    };
    const cancelled = fetchApp({ signal: cancel.signal, clock: systemClock });
    await expect(cancelled).rejects.toThrow("cancelled");
  });
});

describe("a credential that is refused", () => {
  test("is taken anew", async () => {
    const credentials = ["old", "new"];
    cache.decide = ({ token }) => (token === "old" ? { status: 401 } : null);
    await fetchApp({ credential: () => credentials[Math.min(cache.requests.length, 1)] ?? "" });
    expect(daemon.valid.size).toBe(3);
  });

  test("and stays refused ends the fetch after two minutes", async () => {
    const clock = createPauseClock();
    cache.decide = () => ({ status: 401 });
    expect((await failureOf(fetchApp({ clock }))).kind).toBe("denied");
    expect(clock.monotonicMs()).toBeLessThan(4 * 60_000);
  });
});

describe("a cache that lies or is damaged", () => {
  const cases: readonly (readonly [what: string, prepare: () => void, message: RegExp])[] = [
    ["the path is unknown", () => (cache.plan = () => null), /the cache default does not have it/],
    [
      "a reference is missing",
      () => (cache.plan = planOf([narInfoOf(app, KEY), narInfoOf(leaf, KEY)])),
      /lacks .*library.* which .*app needs/,
    ],
    ["no signature", () => planWith(leaf, (info) => ({ ...info, signatures: [] })), /leaf: it has no signature/],
    [
      "a stranger's signature",
      () => planWith(leaf, () => narInfoOf(leaf, OTHER_KEY)),
      /names other-1, none that is valid under the keys .*\(team-1\)/,
    ],
    [
      "another hash than signed",
      () => planWith(leaf, (info) => ({ ...info, narHash: app.narHash })),
      /none that is valid/,
    ],
    [
      "a NAR elsewhere",
      () => planWith(leaf, (info) => ({ ...info, url: "http://evil.example/x" })),
      /no file below the cache/,
    ],
    [
      "a way out of the cache",
      () => planWith(leaf, (info) => ({ ...info, url: "nar/%2e%2e/%2e%2e/admin" })),
      /no file below the cache/,
    ],
    ["bzip2", () => planWith(leaf, (info) => ({ ...info, compression: "bzip2" })), /compressed with bzip2/],
    ["404 for the file", () => cache.files.clear(), /leaf: the cache answered with status 404/],
    ["a file that lost its end", () => damageFile(leaf, leaf.file.subarray(0, -5)), /instead of the announced/],
    [
      "a file that is too long",
      () => damageFile(leaf, Buffer.concat([leaf.file, leaf.file])),
      /instead of the announced/,
    ],
    [
      "a flipped byte",
      () => damageFile(leaf, flip(leaf.file, 20_000)),
      /leaf: (its content has the hash|it cannot be decompressed|its file is not the one)/,
    ],
    [
      "another path's file of announced size",
      () => servesOther(leaf, library),
      /larger than the|its content has the hash/,
    ],
    ["a NAR that is larger than signed", () => servesOther(leaf, bigger), /larger than the \d+ bytes/],
    ["a NAR that is smaller than signed", () => servesOther(library, leaf), /ends after \d+ of \d+ bytes/],
    ["a wrong FileHash", () => planWith(leaf, (info) => ({ ...info, fileHash: app.fileHash })), /wrong FileHash/],
    ["no narinfo at all", () => (cache.plan = () => ["StorePath: nonsense\n"]), /cannot use the plan/],
  ];
  const bigger = createTinyPath("bigger", { contents: new Uint8Array(5_000_000) });

  for (const [what, prepare, message] of cases) {
    test(what, async () => {
      prepare();
      const error = await failureOf(fetchApp());
      expect(error.message).toMatch(message);
      expect(daemon.valid.has(app.storePath)).toBe(false);
      for (const [storePath, info] of daemon.valid) {
        expect(ALL.some((path) => path.storePath === storePath && path.narHash === info.narHash)).toBe(true);
      }
    });
  }

  function damageFile(path: TinyPath, file: Uint8Array): void {
    cache.files.set(`/cache/default/${narInfoOf(path, KEY).url}`, file);
  }

  /** The narinfo is signed and right about the NAR; the file, with its true FileHash, is another one. */
  function servesOther(path: TinyPath, other: TinyPath): void {
    damageFile(path, other.file);
    planWith(path, (info) => ({ ...info, fileHash: other.fileHash, fileSizeBytes: other.file.length }));
  }

  function flip(bytes: Uint8Array, index: number): Uint8Array {
    const copy = new Uint8Array(bytes);
    copy[index] = (copy[index] ?? 0) ^ 0xff;
    return copy;
  }
});

describe("the device", () => {
  test("a full disk is noticed before the first byte, with what it needs and has", async () => {
    const error = await failureOf(fetchApp({ readStoreFreeBytes: async () => 50_000 }));
    expect(error.message).toMatch(/the disk is full: it needs 121\.5 kB, the store has 50\.0 kB free/);
    expect(cache.requests.length).toBe(0);
  });

  test("paths that a garbage collection takes are fetched again", async () => {
    let collections = 0;
    daemon.afterAdd = (info) => {
      if (info.storePath === app.storePath && collections++ === 0) daemon.valid.delete(leaf.storePath);
    };
    await fetchApp();
    expect(daemon.valid.size).toBe(3);
    expect(cache.requests.length).toBe(4);
  });

  test("paths that vanish every time end the fetch", async () => {
    daemon.afterAdd = () => daemon.valid.delete(leaf.storePath);
    cache.plan = planOf([narInfoOf(leaf, KEY)]);
    const error = await failureOf(fetchApp({ storePath: leaf.storePath }));
    expect(error.message).toContain("1 imported paths are not valid");
  });

  test("an import that the daemon refuses is the error, and other imports end", async () => {
    daemon.beforeAdd = async (info) => {
      if (info.storePath === leaf.storePath) throw new NixdeployError("host", "no space left");
    };
    expect((await failureOf(fetchApp())).message).toBe("no space left");
  });

  test("every failing import, one after the other, and then success: nothing false, nothing left open", async () => {
    for (let failing = 0; failing < 3; failing += 1) {
      daemon.valid.clear();
      let count = 0;
      daemon.beforeAdd = async () => {
        if (count++ === failing) throw new NixdeployError("host", "fault");
      };
      expect((await failureOf(fetchApp())).message).toBe("fault");
      expect(daemon.valid.size).toBe(failing);
      expect(daemon.connections.open).toBe(0);
    }
  });
});

async function compress(compression: "none" | "xz" | "gzip" | "br", bytes: Uint8Array): Promise<Uint8Array> {
  switch (compression) {
    case "none":
      return bytes;
    case "gzip":
      return gzipSync(bytes);
    case "br":
      return brotliCompressSync(bytes);
    case "xz": {
      const child = Bun.spawn(["xz", "--stdout"], { stdin: bytes, stdout: "pipe" });
      return new Uint8Array(await new Response(child.stdout).arrayBuffer());
    }
    default:
      return compression satisfies never;
  }
}

test("the announced hash of a NAR is what the test data has", () => {
  expect(narHashOf(leaf.nar)).toBe(leaf.narHash);
});
