/** A closure out of several caches over real HTTP: who is asked for what, with which credential, and whose keys count. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHttpClient, type HttpClient } from "../../../src/http/client.ts";
import { parseCacheName } from "../../../src/names.ts";
import { createCoordinatorCache } from "../../../src/nix/cache/download/coordinator-cache.ts";
import { fetchClosure } from "../../../src/nix/cache/download/fetch-closure.ts";
import { createHttpCache } from "../../../src/nix/cache/download/http-cache.ts";
import type { ClosureSource } from "../../../src/nix/cache/download/nar-source.ts";
import { formatNarInfo } from "../../../src/nix/narinfo.ts";
import { createSignatureVerifier } from "../../../src/nix/signature.ts";
import { publicKeyOf, type SecretKey, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { storePathHash } from "../../../src/nix/store-path.ts";
import { type Clock, systemClock, systemRandom } from "../../../src/runtime.ts";
import { type FaultyCache, narInfoOf, narUrlOf, planOf, startFaultyCache } from "../../support/faulty-cache.ts";
import { createInstantClock } from "../../support/instant-clock.ts";
import { createMemoryDaemon, type MemoryDaemon } from "../../support/memory-daemon.ts";
import { createTinyPath, type TinyPath } from "../../support/tiny-path.ts";

const OURS = secretKeyFromSeed("ours-1", new Uint8Array(32).fill(1));
const SECOND = secretKeyFromSeed("second-1", new Uint8Array(32).fill(2));
const FOREIGN = secretKeyFromSeed("foreign-1", new Uint8Array(32).fill(3));
const CREDENTIAL = "nda_secret";

const leaf = createTinyPath("leaf");
const library = createTinyPath("library", { references: [leaf.storePath] });
const app = createTinyPath("app", { references: [leaf.storePath, library.storePath] });

let ours: FaultyCache;
let second: FaultyCache;
let foreign: FaultyCache;
let http: HttpClient;
let daemon: MemoryDaemon;
const { signal } = new AbortController();

beforeEach(async () => {
  [ours, second, foreign] = await Promise.all([startFaultyCache(), startFaultyCache(), startFaultyCache()]);
  http = createHttpClient({ userAgent: "test", env: {}, clock: systemClock, random: systemRandom });
  daemon = createMemoryDaemon();
});

afterEach(async () => {
  await http[Symbol.asyncDispose]();
  for (const cache of [ours, second, foreign]) await cache[Symbol.asyncDispose]();
});

/** As a coordinator's cache has them: with a plan, narinfos and files. */
function fillOwn(cache: FaultyCache, key: SecretKey, ...paths: readonly TinyPath[]): void {
  cache.plan = planOf(paths.map((path) => narInfoOf(path, key)));
  fill(cache, { at: "/cache/default", key, paths });
}

const fillForeign = (key: SecretKey, ...paths: readonly TinyPath[]) => fill(foreign, { at: "", key, paths });

function fill(cache: FaultyCache, what: { at: string; key: SecretKey; paths: readonly TinyPath[] }): void {
  for (const path of what.paths) {
    const text = formatNarInfo(narInfoOf(path, what.key));
    cache.files.set(`${what.at}/${storePathHash(path.storePath)}.narinfo`, Buffer.from(text));
    cache.files.set(`${what.at}/${narUrlOf(path)}`, path.file);
  }
}

/** Pauses between tries take no time; watchdogs, which sleep longer, wait for the real network. */
function createPauseClock(): Clock {
  const instant = createInstantClock();
  return {
    ...instant,
    sleep: (durationMs, signal) => (durationMs < 15_000 ? instant : systemClock).sleep(durationMs, signal),
  };
}

const parts = () => ({ http, clock: createPauseClock(), random: systemRandom });
const trust = (...keys: readonly SecretKey[]) => ({
  verifier: createSignatureVerifier(keys.map(publicKeyOf)),
  trustedKeys: keys.map(publicKeyOf),
});
const own = (cache: FaultyCache, name: string, ...keys: readonly SecretKey[]): ClosureSource => ({
  reader: createCoordinatorCache({
    ...parts(),
    coordinatorUrl: cache.url,
    cacheName: parseCacheName(name),
    cachePath: "/cache/default",
    credential: () => CREDENTIAL,
  }),
  ...trust(...keys),
});
const stranger = (...keys: readonly SecretKey[]): ClosureSource => ({
  reader: createHttpCache({ ...parts(), name: parseCacheName("foreign"), url: foreign.url, credential: null }),
  ...trust(...keys),
});

async function fetchApp(...sources: readonly ClosureSource[]) {
  await using rootDaemon = await daemon.connect({ signal });
  return await fetchClosure({
    ...parts(),
    storePath: app.storePath,
    sources,
    rootDaemon,
    connectDaemon: daemon.connect,
    readStoreFreeBytes: async () => null,
    signal,
    onPlanned: () => {},
    onProgress: () => {},
  });
}

const narsAskedOf = (cache: FaultyCache) => cache.requests.filter(({ path }) => path.includes("/nar/")).length;

describe("the first cache that has the path has its closure", () => {
  test("the default, and then nobody else is asked", async () => {
    for (const cache of [ours, second]) fillOwn(cache, cache === ours ? OURS : SECOND, leaf, library, app);
    fillForeign(FOREIGN, leaf, library, app);
    await fetchApp(own(ours, "ours", OURS), own(second, "second", SECOND), stranger(FOREIGN));
    expect([narsAskedOf(ours), narsAskedOf(second), foreign.requests.length]).toEqual([3, 0, 0]);
    expect(daemon.valid.has(app.storePath)).toBe(true);
  });

  test("the second, when the default lacks it", async () => {
    fillOwn(ours, OURS, leaf);
    fillOwn(second, SECOND, leaf, library, app);
    await fetchApp(own(ours, "ours", OURS), own(second, "second", SECOND), stranger(FOREIGN));
    expect([narsAskedOf(ours), narsAskedOf(second), foreign.requests.length]).toEqual([0, 3, 0]);
  });

  test("one whose key does not count is passed over, and is the reason when nobody else has it", async () => {
    fillOwn(ours, SECOND, leaf, library, app);
    fillOwn(second, SECOND, leaf, library, app);
    await fetchApp(own(ours, "ours", OURS), own(second, "second", SECOND));
    expect(narsAskedOf(ours)).toBe(0);
    daemon = createMemoryDaemon();
    second.plan = () => null;
    await expect(fetchApp(own(ours, "ours", OURS), own(second, "second", SECOND))).rejects.toThrow(
      /second-1, none that is valid under the keys this device trusts \(ours-1\)/,
    );
    expect(daemon.valid.has(app.storePath)).toBe(false);
  });
});

describe("what only a foreign cache has", () => {
  test("comes from there, and what it refers to from ours where we have it", async () => {
    fillOwn(ours, OURS, leaf);
    fillForeign(FOREIGN, leaf, library, app);
    await fetchApp(own(ours, "ours", OURS), stranger(FOREIGN));
    expect([narsAskedOf(ours), narsAskedOf(foreign)]).toEqual([1, 2]);
    expect(daemon.valid.has(app.storePath)).toBe(true);
  });

  test("it never gets our credential, and ours does", async () => {
    fillOwn(ours, OURS, leaf);
    fillForeign(FOREIGN, library, app);
    await fetchApp(own(ours, "ours", OURS), stranger(FOREIGN));
    expect(foreign.requests.length).toBeGreaterThan(0);
    expect(new Set(foreign.requests.map(({ token }) => token))).toEqual(new Set([null]));
    expect(new Set(ours.requests.map(({ token }) => token))).toEqual(new Set([CREDENTIAL]));
  });

  test("keys of one cache say nothing about another's", async () => {
    // Signed by the default's key, which does not count there; and the other way round.
    fillForeign(OURS, leaf, library, app);
    await expect(fetchApp(own(ours, "ours", OURS), stranger(FOREIGN))).rejects.toThrow(/keys this device trusts/);
    fillOwn(ours, FOREIGN, leaf, library, app);
    foreign.files.clear();
    await expect(fetchApp(own(ours, "ours", OURS), stranger(FOREIGN))).rejects.toThrow(/keys this device trusts/);
    expect(daemon.valid.size).toBe(0);
  });

  test("the narinfo of another path is refused", async () => {
    fillForeign(FOREIGN, leaf, library, app);
    const other = formatNarInfo(narInfoOf(leaf, FOREIGN));
    foreign.files.set(`/${storePathHash(app.storePath)}.narinfo`, Buffer.from(other));
    await expect(fetchApp(own(ours, "ours", OURS), stranger(FOREIGN))).rejects.toThrow(/the narinfo of .*leaf/);
  });

  test.each([401, 403, 404, 410])("status %d means that it does not have it", async (status) => {
    foreign.decide = () => ({ status });
    await expect(fetchApp(own(ours, "ours", OURS), stranger(FOREIGN))).rejects.toThrow(
      /none of the caches ours, foreign has it/,
    );
  });

  test("what nobody has is named, with who needs it", async () => {
    fillForeign(FOREIGN, library, app);
    await expect(fetchApp(own(ours, "ours", OURS), stranger(FOREIGN))).rejects.toThrow(
      /none of the caches ours, foreign has .*-leaf, which .*needs/,
    );
  });

  test("one that is away for too long is the reason, and is asked no more", async () => {
    const start = performance.now();
    foreign.decide = () => ({ status: 503 });
    await expect(fetchApp(own(ours, "ours", OURS), stranger(FOREIGN))).rejects.toThrow(/answered with status 503/);
    expect(performance.now() - start).toBeLessThan(5_000);
  });

  test("a short absence is waited for", async () => {
    fillForeign(FOREIGN, leaf, library, app);
    foreign.decide = ({ index }) => (index < 3 ? { status: 503 } : null);
    await fetchApp(own(ours, "ours", OURS), stranger(FOREIGN));
    expect(daemon.valid.has(app.storePath)).toBe(true);
  });

  test("a closure of hundreds of paths", async () => {
    const chain: TinyPath[] = [];
    for (let index = 0; index < 300; index += 1) {
      const references = chain.slice(-3).map((path) => path.storePath);
      chain.push(createTinyPath(`link-${index}`, { references }));
    }
    const top = createTinyPath("app", { references: chain.slice(-20).map((path) => path.storePath) });
    fillForeign(FOREIGN, ...chain, top);
    await using rootDaemon = await daemon.connect({ signal });
    const fetched = await fetchClosure({
      ...parts(),
      storePath: top.storePath,
      sources: [own(ours, "ours", OURS), stranger(FOREIGN)],
      rootDaemon,
      connectDaemon: daemon.connect,
      readStoreFreeBytes: async () => null,
      signal,
      onPlanned: () => {},
      onProgress: () => {},
    });
    expect(fetched.paths).toHaveLength(301);
    expect(fetched.paths.at(-1)).toBe(top.storePath);
  });
});
