/** Which paths count as built, and that none is missed, with inotify, without it, and with one that says too little. */
import { describe, expect, test } from "bun:test";
import { pathOfName, type WatchedStore, wasBuilt, watchStore } from "../../../src/client/push/watch-store.ts";
import { NixdeployError } from "../../../src/errors.ts";
import type { ValidPath } from "../../../src/nix/daemon/store-operations.ts";
import { parseNarHash } from "../../../src/nix/hash.ts";
import { parseStorePath, type StorePath, storePathBaseName } from "../../../src/nix/store-path.ts";
import { createManualClock } from "../../support/manual-clock.ts";

const HASH = "a".repeat(32);
const at = (name: string) => parseStorePath(`/nix/store/${HASH}-${name}`);
const describePath = (
  storePath: StorePath,
  how: Partial<ValidPath["info"]> & { isBuiltHere?: boolean } = {},
): ValidPath => {
  const { isBuiltHere = true, ...info } = how;
  const narHash = parseNarHash(`sha256:${"0".repeat(52)}`);
  const rest = { references: [], deriver: at("x.drv"), signatures: [], contentAddress: null };
  return { isBuiltHere, info: { storePath, narHash, narSizeBytes: 1, ...rest, ...info } };
};

test.each<[string, ValidPath, boolean]>([
  ["built here", describePath(at("x")), true],
  ["built here and signed by this machine", describePath(at("x"), { signatures: ["me:a"] }), true],
  ["came unsigned from a remote builder", describePath(at("x"), { isBuiltHere: false }), true],
  [
    "of fixed output, from a remote builder",
    describePath(at("x"), { isBuiltHere: false, contentAddress: "fixed:x" }),
    true,
  ],
  ["substituted", describePath(at("x"), { isBuiltHere: false, signatures: ["cache:a"] }), false],
  ["a source", describePath(at("x"), { isBuiltHere: false, contentAddress: "fixed:r:x", deriver: null }), false],
  ["a derivation", describePath(at("x.drv"), { deriver: null, contentAddress: "text:x" }), false],
])("%s", (_, path, expected) => expect(wasBuilt(path)).toBe(expected));

test.each<[string, StorePath | null]>([
  [`${HASH}-hello`, at("hello")],
  [`${HASH}-hello.lock`, at("hello")],
  [`${HASH}-hello.drv.chroot`, null],
  [`${HASH}-hello.drv`, null],
  [`${HASH}-hello.drv.lock`, null],
  [`${HASH}-source.tmp`, at("source")],
  [".links", null],
  ["tmp-1234-5", null],
])("the name %s", (name, path) => expect(pathOfName(name)).toBe(path));

/** A store that is told what is built, and says so to who watches when it is asked to. */
function createStore() {
  const valid = new Map<StorePath, ValidPath>();
  const roots = new Set<StorePath>();
  let tell: ((name: string) => void) | null = null;
  let opened = 0;
  let lists = 0;
  let isBroken = false;
  const store: WatchedStore = {
    async listValidPaths() {
      lists += 1;
      return [...valid.keys()];
    },
    async queryValidPaths(paths) {
      if (isBroken) throw new NixdeployError("host", "the daemon went away");
      return new Set(paths.filter((path) => valid.has(path)));
    },
    queryValidPath: async (path) => valid.get(path) ?? null,
    async addTempRoots(paths) {
      for (const path of paths) roots.add(path);
    },
    async [Symbol.asyncDispose]() {},
  };
  return {
    roots,
    lists: () => lists,
    opened: () => opened,
    breakOnce: () => {
      isBroken = true;
    },
    build: (path: StorePath, how: Parameters<typeof describePath>[1] = {}) => valid.set(path, describePath(path, how)),
    tell: (path: StorePath, suffix = "") => tell?.(`${storePathBaseName(path)}${suffix}`),
    open: async () => {
      opened += 1;
      isBroken = false;
      return store;
    },
    watchFolder: (onName: (name: string) => void) => {
      tell = onName;
      return { [Symbol.dispose]: () => {} };
    },
  };
}

describe("a watch", () => {
  test("takes what was told of once it is valid, and protects it; not what was there before", async () => {
    const store = createStore();
    store.build(at("old"));
    await using watch = await watchStore({ ...store, openStore: store.open, clock: createManualClock() });
    expect(watch.by).toBe("inotify");
    store.tell(at("new"), ".lock");
    expect(await watch.take()).toEqual([]);
    store.build(at("new"));
    store.build(at("substituted"), { isBuiltHere: false, signatures: ["cache:a"] });
    store.tell(at("substituted"));
    expect(await watch.take()).toEqual([at("new")]);
    expect(store.roots.has(at("new"))).toBe(true);
    expect(await watch.take()).toEqual([]);
    expect(await watch.takeRest()).toEqual([]);
    expect(store.lists()).toBe(2);
  });

  test("in the end finds what it was not told of", async () => {
    const store = createStore();
    await using watch = await watchStore({ ...store, openStore: store.open, clock: createManualClock() });
    store.build(at("silent"));
    expect(await watch.take()).toEqual([]);
    expect(await watch.takeRest()).toEqual([at("silent")]);
  });

  test("asks for the list now and then where there is no inotify", async () => {
    const store = createStore();
    const clock = createManualClock();
    await using watch = await watchStore({ openStore: store.open, clock, watchFolder: () => null });
    expect(watch.by).toBe("polling");
    store.build(at("one"));
    expect(await watch.take()).toEqual([]);
    await clock.advance(10_000);
    expect(await watch.take()).toEqual([at("one")]);
  });

  test("goes on with another connection when one breaks", async () => {
    const store = createStore();
    await using watch = await watchStore({ ...store, openStore: store.open, clock: createManualClock() });
    store.build(at("one"));
    store.tell(at("one"));
    store.breakOnce();
    expect(watch.take()).rejects.toThrow("the daemon went away");
    expect(await watch.take()).toEqual([at("one")]);
    expect(store.opened()).toBe(2);
  });
});
