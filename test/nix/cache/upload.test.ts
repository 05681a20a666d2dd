import { describe, expect, test } from "bun:test";
import { randomFillSync } from "node:crypto";
import { NixdeployError } from "../../../src/errors.ts";
import { loadUploadPlan, runUpload } from "../../../src/nix/cache/upload/upload.ts";
import type { UploadEvent } from "../../../src/nix/cache/upload/upload-nar.ts";
import { PART_BYTES } from "../../../src/nix/cache/upload/upload-parts.ts";
import type { NarPart, PartAnswer } from "../../../src/nix/cache/upload/upload-target.ts";
import type { PathInfo } from "../../../src/nix/path-info.ts";
import { type StorePath, storePathHash, storePathName } from "../../../src/nix/store-path.ts";
import { systemRandom } from "../../../src/runtime.ts";
import { failureOf } from "../../support/failure.ts";
import { createInstantClock, type InstantClock } from "../../support/instant-clock.ts";
import { createMemoryCache, type MemoryCache } from "../../support/memory-cache.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";

const MEBIBYTE = 1024 * 1024;
const noise = (sizeBytes: number) => randomFillSync(new Uint8Array(sizeBytes));

type UploadSetup = {
  readonly store: MemoryStore;
  readonly cache: MemoryCache;
  readonly roots: readonly StorePath[];
  readonly jobs?: number;
  readonly sign?: (info: PathInfo) => string;
  readonly signal?: AbortSignal;
  readonly clock?: InstantClock;
  /** Stands between engine and cache. */
  readonly putPart?: (part: NarPart, put: () => Promise<PartAnswer>) => Promise<PartAnswer>;
};

async function upload(setup: UploadSetup) {
  const { store, cache, roots } = setup;
  const signal = setup.signal ?? new AbortController().signal;
  const clock = setup.clock ?? createInstantClock();
  const events: UploadEvent[] = [];
  const putPart = setup.putPart;
  const target: MemoryCache =
    putPart === undefined ? cache : { ...cache, putPart: (part) => putPart(part, () => cache.putPart(part, signal)) };
  await using main = await store.open();
  const plan = await loadUploadPlan({ roots, store: main, target, signal });
  const onEvent = (event: UploadEvent) => events.push(event);
  const result = await runUpload({
    plan,
    openStore: store.open,
    target,
    sign: setup.sign ?? null,
    jobs: setup.jobs ?? 4,
    clock,
    random: systemRandom,
    signal,
    onEvent,
  });
  return { result, events, clock, plan };
}

const unreachable = () => new NixdeployError("unreachable", "cannot reach the coordinator: connection refused");

describe("a push", () => {
  test("brings a whole closure, once", async () => {
    const store = createMemoryStore();
    const cache = createMemoryCache();
    const libc = store.add("libc", noise(3 * MEBIBYTE));
    const tool = store.add("tool", "tool", [libc]);
    const root = store.add("system", "system", [tool, libc]);

    const first = await upload({ store, cache, roots: [root] });
    expect(first.result.uploadedPaths).toBe(3);
    expect([...cache.paths.values()].map((path) => path.storePath)).toEqual([libc, tool, root]);
    for (const path of [libc, tool, root]) {
      expect(cache.nars.get(store.info(path).narHash)?.nar.length).toBe(store.info(path).narSizeBytes);
    }
    const sizes = [...cache.nars.values()].map(({ file }) => file.length);
    expect(first.result.uploadedBytes).toBe(sizes.reduce((total, size) => total + size, 0));

    const second = await upload({ store, cache, roots: [root] });
    expect(second.plan.missing).toEqual([]);
    expect(second.result).toEqual({ uploadedPaths: 0, uploadedBytes: 0 });
    expect(store.connections.open).toBe(0);
  });

  test("sends the biggest NAR first and what two paths share once", async () => {
    const store = createMemoryStore();
    const cache = createMemoryCache();
    const roots = [
      store.add("small", "x"),
      store.add("large", noise(MEBIBYTE)),
      store.add("twin-of-small", "x"),
      store.add("middle", noise(1_000)),
    ];
    const { result, events } = await upload({ store, cache, roots, jobs: 1 });
    const uploaded = events.flatMap((event) =>
      event.kind === "uploaded" ? [storePathName(event.info.storePath)] : [],
    );
    expect(uploaded).toEqual(["large", "middle", expect.stringMatching(/^(twin-of-)?small$/)]);
    expect(result.uploadedPaths).toBe(4);
    expect(cache.paths.size).toBe(4);
  });

  test("uses one connection for each job, not for each NAR", async () => {
    const store = createMemoryStore();
    const roots = Array.from({ length: 20 }, (_, index) => store.add(`p${index}`, `contents ${index}`));
    await upload({ store, cache: createMemoryCache(), roots, jobs: 3 });
    expect(store.connections.opened).toBe(4);
  });

  test("publishes signatures that exist and the one made here", async () => {
    const store = createMemoryStore();
    const cache = createMemoryCache();
    const root = store.add("signed", "x");
    await upload({ store, cache, roots: [root], sign: (info) => `ci:${info.narSizeBytes}` });
    expect(cache.paths.get(storePathHash(root))?.signatures).toEqual([`ci:${store.info(root).narSizeBytes}`]);
  });

  test("takes a path that refers to itself, and one listed twice", async () => {
    const store = createMemoryStore();
    const cache = createMemoryCache();
    const root = store.add("loop", "x");
    const { storePath } = store.info(root);
    const self = { ...store.info(root), references: [storePath] };
    const looping: MemoryStore = {
      ...store,
      open: async () => ({ ...(await store.open()), queryPathInfos: async (paths) => paths.map(() => self) }),
    };
    await upload({ store: looping, cache, roots: [root, root] });
    expect(cache.paths.size).toBe(1);
  });

  test("refuses paths that the store lacks, all at once", async () => {
    const other = createMemoryStore();
    const absent = [other.add("one", "1"), other.add("two", "2")];
    const run = (roots: StorePath[]) =>
      failureOf(upload({ store: createMemoryStore(), cache: createMemoryCache(), roots }));
    expect((await run(absent)).details).toHaveLength(2);
    const error = await run(absent.slice(0, 1));
    expect(error.kind).toBe("not-found");
    expect(error.message).toContain("-one: it is not in the local Nix store");
    expect(error.hint).toContain("Build it first");
  });

  test("makes progress that adds up", async () => {
    const store = createMemoryStore();
    const cache = createMemoryCache();
    const root = store.add("big", noise(PART_BYTES + 10));
    const { events, result } = await upload({ store, cache, roots: [root] });
    const total = (kind: "read" | "sent") =>
      events.reduce((sum, event) => sum + (event.kind === kind && "bytes" in event ? event.bytes : 0), 0);
    expect(total("read")).toBe(store.info(root).narSizeBytes);
    expect(total("sent")).toBe(result.uploadedBytes);
  });
});

describe("a damaged store", () => {
  test.each([
    ["a byte was changed", (nar: Uint8Array) => nar.with(150, 88), "its hash is"],
    ["it was cut short", (nar: Uint8Array) => nar.subarray(0, -8), "bytes"],
    ["it has grown", (nar: Uint8Array) => Buffer.concat([nar, new Uint8Array(8)]), "larger than"],
  ])("is not pushed: %s", async (_what, change, why) => {
    const store = createMemoryStore();
    const cache = createMemoryCache();
    const root = store.add("tool", "x".repeat(200));
    await using connection = await store.open();
    const nar = Buffer.concat(await Array.fromAsync(connection.narFromPath(root)));
    store.damage(root, change(nar));
    const error = await failureOf(upload({ store, cache, roots: [root] }));
    expect(error.kind).toBe("host");
    expect(error.message).toContain(why);
    expect(error.hint).toContain("--repair-path");
    expect([cache.nars.size, cache.paths.size]).toEqual([0, 0]);
  });
});

describe("parts", () => {
  const large = 2 * PART_BYTES + 1_000;

  function setUp() {
    const store = createMemoryStore();
    const cache = createMemoryCache();
    const root = store.add("large", noise(large));
    return { store, cache, roots: [root], root };
  }

  test("one request for a small NAR, 8 MiB each for a large one", async () => {
    const setup = setUp();
    const seen: number[] = [];
    await upload({
      ...setup,
      putPart: (part, put) => {
        seen.push(part.body.length);
        return put();
      },
    });
    expect(seen.slice(0, 2)).toEqual([PART_BYTES, PART_BYTES]);
    expect(seen).toHaveLength(3);
    expect(setup.cache.paths.size).toBe(1);
  });

  test("every single request may fail, before or after the cache has kept it", async () => {
    for (const lost of ["request", "answer"]) {
      for (let failing = 0; failing < 3; failing += 1) {
        const setup = setUp();
        let calls = 0;
        const { clock } = await upload({
          ...setup,
          putPart: async (_part, put) => {
            const isFailing = calls++ === failing;
            if (isFailing && lost === "request") throw unreachable();
            const answer = await put();
            if (isFailing) throw unreachable();
            return answer;
          },
        });
        expect(setup.cache.paths.size).toBe(1);
        expect(clock.sleepsMs).toHaveLength(1);
        expect(setup.store.connections.open).toBe(0);
      }
    }
  });

  test("whoever waits for a cache that is away is told why, once, until something gets through", async () => {
    const setup = setUp();
    let calls = 0;
    const { events } = await upload({
      ...setup,
      putPart: async (_part, put) => {
        calls += 1;
        if (calls === 5 || (calls > 1 && calls < 4)) throw unreachable();
        return await put();
      },
    });
    const told = events.flatMap((event) => (event.kind === "sent" || event.kind === "waiting" ? [event.kind] : []));
    expect(told.slice(0, 4)).toEqual(["sent", "waiting", "sent", "waiting"]);
    expect(events.find((event) => event.kind === "waiting")).toEqual({ kind: "waiting", why: unreachable().message });
  });

  test("a cache that has forgotten the upload gets the NAR anew", async () => {
    const setup = setUp();
    let calls = 0;
    const { events } = await upload({
      ...setup,
      putPart: (_part, put) => {
        if (calls++ === 2) setup.cache.forgetUploads();
        return put();
      },
    });
    expect(events.filter((event) => event.kind === "start-anew")).toHaveLength(1);
    expect(setup.cache.paths.size).toBe(1);
    const read = events.reduce((sum, event) => sum + (event.kind === "read" ? event.bytes : 0), 0);
    expect(read).toBe(setup.store.info(setup.root).narSizeBytes);
  });

  test("a cache that kept half a part gets the other half", async () => {
    const setup = setUp();
    let calls = 0;
    const sizes: number[] = [];
    await upload({
      ...setup,
      putPart: async (part, put) => {
        sizes.push(part.body.length);
        if (calls++ !== 1) return await put();
        await setup.cache.putPart({ ...part, body: part.body.subarray(0, 1_000) }, new AbortController().signal);
        return { kind: "expects", offset: part.offset + 1_000 };
      },
    });
    expect(sizes.slice(0, 3)).toEqual([PART_BYTES, PART_BYTES, PART_BYTES - 1_000]);
    expect(setup.cache.paths.size).toBe(1);
  });

  test("a cache that has the last byte but not its end gets an empty rest", async () => {
    const setup = setUp();
    const sizes: number[] = [];
    await upload({
      ...setup,
      putPart: async (part, put) => {
        sizes.push(part.body.length);
        if (part.fileHash === null || sizes.length > 3) return await put();
        await setup.cache.putPart({ ...part, fileHash: null }, new AbortController().signal);
        throw unreachable();
      },
    });
    expect([sizes.length, sizes.at(-1)]).toEqual([5, 0]);
    expect(setup.cache.paths.size).toBe(1);
  });

  test("gives up when nothing got through for five minutes: unreachable", async () => {
    const setup = setUp();
    const clock = createInstantClock();
    const error = await failureOf(upload({ ...setup, clock, putPart: () => Promise.reject(unreachable()) }));
    expect(error.kind).toBe("unreachable");
    const minutes = clock.monotonicMs() / 60_000;
    expect(minutes).toBeGreaterThanOrEqual(5);
    expect(minutes).toBeLessThan(5.5);
  });

  test("five minutes count anew whenever a little of a part has got through", async () => {
    const setup = setUp();
    const clock = createInstantClock();
    let tries = 0;
    await upload({
      ...setup,
      clock,
      putPart: async (part, put) => {
        tries += 1;
        if (part.body.length < 250_000) return await put();
        if (tries % 8 !== 0) throw unreachable();
        const body = part.body.subarray(0, 250_000);
        await setup.cache.putPart({ ...part, fileHash: null, body }, new AbortController().signal);
        return { kind: "expects", offset: part.offset + body.length };
      },
    });
    expect(setup.cache.paths.size).toBe(1);
    expect(clock.monotonicMs()).toBeGreaterThan(10 * 60_000);
  });

  test("gives up after a bounded number of starts", async () => {
    const setup = setUp();
    const error = await failureOf(upload({ ...setup, putPart: async () => ({ kind: "expects", offset: 0 }) }));
    expect(error.kind).toBe("unreachable");
    expect(error.message).toContain("forgot the upload 5 times");
    expect(setup.store.connections.open).toBe(0);
  });

  test("does not try again what cannot help", async () => {
    const setup = setUp();
    let calls = 0;
    const denied = new NixdeployError("denied", "the token was revoked");
    const run = upload({
      ...setup,
      putPart: (_part, put) => {
        calls += 1;
        return calls === 2 ? Promise.reject(denied) : put();
      },
    });
    expect(await failureOf(run)).toBe(denied);
    expect([calls, setup.cache.paths.size, setup.store.connections.open]).toEqual([2, 0, 0]);
  });

  test("an answer that makes no sense is an error of the other side", async () => {
    const setup = setUp();
    const run = upload({ ...setup, putPart: async () => ({ kind: "stored", offset: 7, complete: false }) });
    expect((await failureOf(run)).kind).toBe("remote");
  });
});

describe("several jobs", () => {
  test("the first failure stops the others, and is what is thrown", async () => {
    const store = createMemoryStore();
    const cache = createMemoryCache();
    const roots = Array.from({ length: 30 }, (_, index) => store.add(`p${index}`, `contents ${index}`));
    let calls = 0;
    const run = upload({
      store,
      cache,
      roots,
      jobs: 4,
      putPart: (_part, put) => {
        calls += 1;
        return calls === 5 ? Promise.reject(new NixdeployError("denied", "revoked")) : put();
      },
    });
    expect((await failureOf(run)).message).toBe("revoked");
    expect(calls).toBeLessThan(30);
    expect([cache.paths.size, store.connections.open]).toEqual([0, 0]);
  });

  test("an interrupted push leaves nothing open and nothing visible", async () => {
    const store = createMemoryStore();
    const cache = createMemoryCache();
    const controller = new AbortController();
    const interrupted = new NixdeployError("interrupted", "interrupted");
    const roots = [store.add("a", noise(PART_BYTES * 2)), store.add("b", "b")];
    const run = upload({
      store,
      cache,
      roots,
      signal: controller.signal,
      putPart: (_part, put) => {
        controller.abort(interrupted);
        return put();
      },
    });
    expect(await failureOf(run)).toBe(interrupted);
    expect([cache.paths.size, store.connections.open]).toEqual([0, 0]);
  });
});
