/** The pure parts of the download engine: URLs, closures, the order of imports. */
import { describe, expect, test } from "bun:test";
import { resolveNarUrl } from "../../../src/nix/cache/download/nar-url.ts";
import { createImportSchedule } from "../../../src/nix/cache/download/schedule.ts";
import { verifyClosure } from "../../../src/nix/cache/download/verify-closure.ts";
import { createSignatureVerifier } from "../../../src/nix/signature.ts";
import { publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { narInfoOf } from "../../support/faulty-cache.ts";
import { createTinyPath, storePathFor } from "../../support/tiny-path.ts";

describe("the URL of a NAR", () => {
  const cacheUrl = "https://deploy.example/prefix/cache/default";
  for (const [narUrl, resolved] of [
    ["nar/abc.nar.zst", `${cacheUrl}/nar/abc.nar.zst`],
    ["nar/abc.nar?hash=x", `${cacheUrl}/nar/abc.nar?hash=x`],
    ["./nar/abc.nar", `${cacheUrl}/nar/abc.nar`],
    ["nar/x/../abc.nar", `${cacheUrl}/nar/abc.nar`],
  ] as const) {
    test(`${narUrl} is below the cache`, () => expect(resolveNarUrl({ cacheUrl, narUrl })).toBe(resolved));
  }
  for (const narUrl of [
    "http://evil.example/nar/abc",
    "HTTPS://deploy.example/prefix/cache/default/nar/abc",
    "//evil.example/nar",
    "/nar/abc",
    "../other/nar/abc",
    "nar/../../abc",
    "%2e%2e/abc",
    "nar/.%2E/%2e%2e/%2e./abc",
    "..\\abc",
    "nar\\..\\..\\abc",
    "nar/a\tb",
    "nar/a\0b",
    "file:nar/abc",
    "",
    ".",
    "?x",
  ]) {
    test(`${JSON.stringify(narUrl)} is refused`, () => {
      expect(() => resolveNarUrl({ cacheUrl, narUrl })).toThrow("it is no file below the cache");
    });
  }
});

describe("the closure", () => {
  const key = secretKeyFromSeed("k-1", new Uint8Array(32).fill(7));
  const options = {
    verifier: createSignatureVerifier([publicKeyOf(key)]),
    trustedKeyNames: ["k-1"],
    cacheUrl: "http://x/cache/default",
  };
  const leaf = createTinyPath("leaf");
  const top = createTinyPath("top", { references: [leaf.storePath] });
  const stranger = createTinyPath("stranger");
  const infos = [top, leaf, stranger].map((path) => narInfoOf(path, key));

  test("is what the path reaches, references first; the rest is dropped", () => {
    const closure = verifyClosure({ ...options, storePath: top.storePath, narInfos: infos });
    expect(closure.map((info) => info.storePath)).toEqual([leaf.storePath, top.storePath]);
  });

  test("lists no path twice", () => {
    const narInfos = [...infos, ...infos];
    expect(() => verifyClosure({ ...options, storePath: top.storePath, narInfos })).toThrow("twice");
  });

  test("has no cycle, whoever signed it", () => {
    const a = storePathFor("a");
    const b = storePathFor("b");
    const narInfos = [
      narInfoOf(leaf, key, { storePath: a, references: [b] }),
      narInfoOf(leaf, key, { storePath: b, references: [a] }),
    ];
    expect(() => verifyClosure({ ...options, storePath: a, narInfos })).toThrow("cycle");
  });

  test("may refer to itself", () => {
    const self = storePathFor("self");
    const narInfos = [narInfoOf(leaf, key, { storePath: self, references: [self] })];
    expect(verifyClosure({ ...options, storePath: self, narInfos }).length).toBe(1);
  });
});

describe("the order of imports", () => {
  const item = (name: string, narSizeBytes: number, ...references: readonly string[]) => ({
    storePath: storePathFor(name),
    narSizeBytes,
    references: references.map((reference) => storePathFor(reference)),
  });

  test("begins with what has the most work behind it, and waits for references", () => {
    const schedule = createImportSchedule([
      item("small", 1),
      item("large", 50),
      item("base", 1),
      item("middle", 100, "base"),
      item("top", 1, "middle", "small", "large", "absent", "top"),
    ]);
    expect(schedule.next()?.storePath).toBe(storePathFor("base"));
    expect(schedule.next()?.storePath).toBe(storePathFor("large"));
    schedule.done(storePathFor("base"));
    expect(schedule.next()?.storePath).toBe(storePathFor("middle"));
    expect(schedule.next()?.storePath).toBe(storePathFor("small"));
    expect(schedule.next()).toBeNull();
    for (const name of ["large", "small", "middle"]) schedule.done(storePathFor(name));
    expect(schedule.left).toBe(1);
    expect(schedule.next()?.storePath).toBe(storePathFor("top"));
    schedule.done(storePathFor("top"));
    expect(schedule.left).toBe(0);
  });

  test("of a closure of 5,000 paths takes no noticeable time", () => {
    const items = Array.from({ length: 5_000 }, (_, index) =>
      item(`p${index}`, index, ...[1, 2, 3].filter((back) => index >= back).map((back) => `p${index - back}`)),
    );
    const schedule = createImportSchedule(items);
    let count = 0;
    for (let next = schedule.next(); next !== null; next = schedule.next()) {
      schedule.done(next.storePath);
      count += 1;
    }
    expect(count).toBe(5_000);
  });
});
