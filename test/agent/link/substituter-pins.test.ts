/** Which keys count for which of several caches, as a table. */
import { describe, expect, test } from "bun:test";
import type { Enrolment } from "../../../src/agent/link/enrolment.ts";
import { keysForCache, planSubstituterPins } from "../../../src/agent/link/substituter-pins.ts";
import { signKeyStatement } from "../../../src/key-statement.ts";
import { type KeyVoucher, signKeyVoucher } from "../../../src/key-voucher.ts";
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

type Planned = Parameters<typeof planSubstituterPins>[0];
const plan = (options: Omit<Planned, "pinnedPublicKeys"> & Partial<Planned>) =>
  planSubstituterPins({ pinnedPublicKeys: options.enrolment?.pinnedPublicKeys ?? [KEYS.main], ...options });

describe("at the first contact", () => {
  test("every cache is pinned with the keys that it is told with", () => {
    expect(plan({ given: [], enrolment: null, welcome: FIRST })).toEqual({
      record: {
        ...{ pinnedCache: main, ownCaches: [main, tools], vouched: {} },
        substituterPins: { tools: [KEYS.tools], nixos: [KEYS.nixos] },
      },
      news: [],
      warnings: [],
    });
  });

  test("nothing is pinned when the operator has given keys, and each cache that they leave out is named", () => {
    const { record, warnings } = plan({
      given: [KEYS.main, KEYS.tools],
      enrolment: null,
      welcome: FIRST,
    });
    expect(record).toEqual({ pinnedCache: main, ownCaches: [main, tools], substituterPins: {}, vouched: {} });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain("the cache nixos signs with a key");
  });
});

describe("later", () => {
  const later = (enrolment: Enrolment, welcome: Planned["welcome"]) => plan({ given: [], enrolment, welcome });

  test("what was pinned stays, without a word", () => {
    const { record, warnings } = later(enrolmentOf(), FIRST);
    expect(warnings).toEqual([]);
    expect(record).toMatchObject({ pinnedCache: main, substituterPins: { tools: [KEYS.tools], nixos: [KEYS.nixos] } });
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

describe("what a trusted key vouches for", () => {
  const [ours, tooling, foreign, newer, stranger] = [1, 2, 3, 4, 5].map((n) =>
    secretKeyFromSeed(`key${n}-1`, new Uint8Array(32).fill(n)),
  );
  if (!(ours && tooling && foreign && newer && stranger)) throw new Error("there are five");
  const keyOf = (secret: typeof ours) => formatPublicKey(publicKeyOf(secret));
  const [OURS, TOOLING, FOREIGN, NEWER] = [ours, tooling, foreign, newer].map(keyOf) as [
    string,
    string,
    string,
    string,
  ];
  const enrolled = (changes: Partial<Enrolment> = {}) =>
    enrolmentOf({
      ...{ pinnedPublicKeys: [OURS], ownCaches: [main, tools], substituterPins: { tools: [TOOLING] } },
      ...changes,
    });
  const welcome = (key: string, ...keyVouchers: readonly KeyVoucher[]) => ({
    cache: cacheOf(main, OURS),
    substituters: [ownOf(tools, TOOLING), foreignOf(nixos, key)],
    keyVouchers: [...keyVouchers],
  });
  const says = (by: typeof ours, keys: readonly string[], atMs = 1, cache = "nixos") =>
    signKeyVoucher(by, { cache, keys, atMs });
  const after = (options: Omit<Planned, "pinnedPublicKeys">) => {
    const { record, ...said } = plan({ ...options, pinnedPublicKeys: [OURS] });
    const pins = { ...enrolled(), ...record };
    return { pins, ...said, keys: keysForCache(nixos, { given: options.given, pins }) };
  };

  test("counts for a cache that was added, is said once, and stays", () => {
    const told = welcome(FOREIGN, says(ours, [FOREIGN]));
    const first = after({ given: [], enrolment: enrolled(), welcome: told });
    expect([first.keys, first.warnings]).toEqual([[FOREIGN], []]);
    expect(first.news).toEqual([`what the cache nixos serves may be signed by ${FOREIGN} now: ${OURS} vouches for it`]);
    const again = after({ given: [], enrolment: first.pins, welcome: told });
    expect([again.keys, again.news, again.warnings]).toEqual([[FOREIGN], [], []]);
    expect(JSON.stringify(again.pins)).toBe(JSON.stringify(first.pins));
    const silent = after({ given: [], enrolment: first.pins, welcome: welcome(FOREIGN) });
    expect([silent.keys, silent.warnings]).toEqual([[FOREIGN], []]);
  });

  test("of any cache that was our own at the first contact, and of no foreign one", () => {
    const by = (secret: typeof ours, changes: Partial<Enrolment> = {}) =>
      after({ given: [], enrolment: enrolled(changes), welcome: welcome(FOREIGN, says(secret, [FOREIGN])) }).keys;
    expect(by(tooling)).toEqual([FOREIGN]);
    expect(by(stranger)).toEqual([]);
    expect(by(stranger, { substituterPins: { tools: [TOOLING], nixos: [keyOf(stranger)] } })).toEqual([
      keyOf(stranger),
    ]);
    // The coordinator may call a foreign cache its own: what the first contact said counts.
    const calledOwn = { ...welcome(FOREIGN, says(stranger, [FOREIGN])), substituters: [ownOf(tools, keyOf(stranger))] };
    const tampered = after({ given: [], enrolment: enrolled({ ownCaches: [main] }), welcome: calledOwn });
    expect(tampered.keys).toEqual([]);
    const older = enrolled();
    delete older.ownCaches;
    const told = welcome(FOREIGN, says(tooling, [FOREIGN]));
    expect(after({ given: [], enrolment: older, welcome: told }).keys).toEqual([]);
  });

  test("moves the keys of a foreign cache, forward and not back", () => {
    const enrolment = enrolled({ substituterPins: { tools: [TOOLING], nixos: [FOREIGN] } });
    const moved = after({ given: [], enrolment, welcome: welcome(NEWER, says(ours, [NEWER], 5)) });
    expect(moved.keys).toEqual([NEWER]);
    const back = after({ given: [], enrolment: moved.pins, welcome: welcome(FOREIGN, says(ours, [FOREIGN], 4)) });
    expect(back.keys).toEqual([NEWER]);
    expect(back.warnings[0]).toContain("a newer one was taken before");
  });

  test("does not touch the cache that came first", () => {
    const told = welcome(FOREIGN, says(tooling, [NEWER], 1, "main"));
    const { pins } = after({ given: [], enrolment: enrolled(), welcome: told });
    expect(keysForCache(main, { given: [], pins })).toEqual([OURS]);
  });

  describe("where the operator gave keys", () => {
    const given = [keyOf(stranger)];

    test("only those may vouch, and not the coordinator's", () => {
      const told = (by: typeof ours) => welcome(FOREIGN, says(by, [FOREIGN]));
      const byOurs = after({ given, enrolment: enrolled(), welcome: told(ours) });
      expect(byOurs.keys).toEqual(given);
      expect(byOurs.warnings.some((text) => text.includes("the cache nixos signs with a key"))).toBeTrue();
      const { keys, pins } = after({ given, enrolment: enrolled(), welcome: told(stranger) });
      expect(keys).toEqual([...given, FOREIGN]);
      // For that cache alone, and as long as the key is given.
      expect(keysForCache(main, { given, pins })).toEqual(given);
      expect(keysForCache(nixos, { given: [OURS], pins })).toEqual([OURS]);
    });

    test("a newer word replaces the keys that were vouched for", () => {
      const first = after({ given, enrolment: enrolled(), welcome: welcome(FOREIGN, says(stranger, [FOREIGN], 1)) });
      const next = welcome(NEWER, says(stranger, [NEWER], 2));
      expect(after({ given, enrolment: first.pins, welcome: next }).keys).toEqual([...given, NEWER]);
    });
  });
});
