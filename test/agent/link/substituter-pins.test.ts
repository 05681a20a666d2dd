/** Which keys count for which of several caches, as a table. */
import { describe, expect, test } from "bun:test";
import type { Enrolment } from "../../../src/agent/link/enrolment.ts";
import { keysForCache, planSubstituterPins } from "../../../src/agent/link/substituter-pins.ts";
import { signKeyStatement } from "../../../src/key-statement.ts";
import { parseAgentId, parseCacheName, parseWorkspaceName } from "../../../src/names.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import type { Substituter } from "../../../src/protocol.ts";

const main = parseCacheName("main");
const tools = parseCacheName("tools");
const nixos = parseCacheName("nixos");
const KEYS = { main: "main-1:AAAA", tools: "tools-1:BBBB", nixos: "nixos-1:CCCC", evil: "evil-1:DDDD" };

const cacheOf = (name: typeof main, key: string) => ({ name, path: `/cache/${name}`, publicKeys: [key] });
const ownOf = (name: typeof main, key: string): Substituter => ({ own: true, ...cacheOf(name, key) });
const foreignOf = (name: typeof main, key: string): Substituter => ({
  ...{ own: false, name, url: "https://nixos.example", publicKeys: [key] },
});
const FIRST = {
  cache: cacheOf(main, KEYS.main),
  substituters: [ownOf(tools, KEYS.tools), foreignOf(nixos, KEYS.nixos)],
};

const enrolmentOf = (changes: Partial<Enrolment> = {}): Enrolment => ({
  coordinatorUrl: "http://x",
  agentId: parseAgentId("0123456789abcdfg"),
  workspace: parseWorkspaceName("default"),
  pinnedPublicKeys: [KEYS.main],
  pinnedCache: main,
  substituterPins: { tools: [KEYS.tools], nixos: [KEYS.nixos] },
  ...changes,
});

describe("at the first contact", () => {
  test("every cache is pinned with the keys that it is told with", () => {
    expect(planSubstituterPins({ given: [], enrolment: null, welcome: FIRST })).toEqual({
      record: { pinnedCache: main, substituterPins: { tools: [KEYS.tools], nixos: [KEYS.nixos] } },
      news: [],
      warnings: [],
    });
  });

  test("nothing is pinned when the operator has given keys, and each cache that they leave out is named", () => {
    const { record, warnings } = planSubstituterPins({
      given: [KEYS.main, KEYS.tools],
      enrolment: null,
      welcome: FIRST,
    });
    expect(record).toEqual({ pinnedCache: main, substituterPins: {} });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain("the cache nixos signs with a key");
  });
});

describe("later", () => {
  const later = (enrolment: Enrolment, welcome: Parameters<typeof planSubstituterPins>[0]["welcome"]) =>
    planSubstituterPins({ given: [], enrolment, welcome });

  test("what was pinned stays, without a word", () => {
    const { record, warnings } = later(enrolmentOf(), FIRST);
    expect(warnings).toEqual([]);
    expect(record).toEqual({ pinnedCache: main, substituterPins: { tools: [KEYS.tools], nixos: [KEYS.nixos] } });
  });

  test.each([
    [
      "a cache that was added",
      { ...FIRST, substituters: [...FIRST.substituters, foreignOf(parseCacheName("evil"), KEYS.evil)] },
      "evil",
    ],
    ["another key of a known cache", { ...FIRST, substituters: [ownOf(tools, KEYS.evil)] }, "tools"],
    ["a new default", { cache: cacheOf(parseCacheName("evil"), KEYS.evil) }, "evil"],
  ])("%s is not trusted, and said", (_what, welcome, name) => {
    const { record, warnings } = later(enrolmentOf(), welcome);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(`the cache ${name} signs with a key`);
    const pins = { ...enrolmentOf(), ...record };
    for (const cache of [main, tools, nixos, parseCacheName("evil")]) {
      expect(keysForCache(cache, { given: [], pins })).not.toContain(KEYS.evil);
    }
  });

  test("another cache may become the default, and the one before an ordinary one", () => {
    const welcome = { cache: cacheOf(tools, KEYS.tools), substituters: [ownOf(main, KEYS.main)] };
    const { record, warnings } = later(enrolmentOf(), welcome);
    expect(warnings).toEqual([]);
    const pins = { ...enrolmentOf(), ...record };
    expect(keysForCache(tools, { given: [], pins })).toEqual([KEYS.tools]);
    expect(keysForCache(main, { given: [], pins })).toEqual([KEYS.main]);
  });

  test("what a pinned key has signed moves its own cache's pins, and no other's", () => {
    const [old, next] = [1, 2].map((n) => secretKeyFromSeed(`tools-${n}`, new Uint8Array(32).fill(n)));
    if (old === undefined || next === undefined) throw new Error("there are two");
    const [oldKey, newKey] = [old, next].map((key) => formatPublicKey(publicKeyOf(key)));
    const statement = signKeyStatement(old, { cache: "tools", newKey: publicKeyOf(next), sequence: 1, atMs: 1 });
    const enrolment = enrolmentOf({ substituterPins: { tools: [oldKey ?? ""], nixos: [oldKey ?? ""] } });
    const told = (name: typeof main) => ({ ...ownOf(name, newKey ?? ""), keyStatements: [statement] });
    const { record, news, warnings } = later(enrolment, { ...FIRST, substituters: [told(tools), told(nixos)] });
    expect(record.substituterPins).toEqual({ tools: [newKey ?? ""], nixos: [oldKey ?? ""] });
    expect(news).toHaveLength(1);
    expect(warnings.at(-1)).toContain("the cache nixos signs with a key");
  });

  test("what an older version recorded is of the cache that comes first", () => {
    const older = enrolmentOf();
    delete older.pinnedCache;
    delete older.substituterPins;
    const { record } = later(older, FIRST);
    const pins = { ...older, ...record };
    expect(keysForCache(main, { given: [], pins })).toEqual([KEYS.main]);
    expect(keysForCache(nixos, { given: [], pins })).toEqual([]);
  });
});

test("keys of the operator count for every cache, and no others do", () => {
  for (const cache of [main, tools, nixos]) {
    expect(keysForCache(cache, { given: [KEYS.nixos], pins: enrolmentOf() })).toEqual([KEYS.nixos]);
  }
  expect(keysForCache(main, { given: [], pins: null })).toEqual([]);
});

test("the name of a cache that is a word of JavaScript's own has no keys by that", () => {
  const pins = enrolmentOf();
  expect(keysForCache(parseCacheName("constructor"), { given: [], pins })).toEqual([]);
});
