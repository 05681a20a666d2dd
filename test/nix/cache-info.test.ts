import { describe, expect, test } from "bun:test";
import { formatCacheInfo, parseCacheInfo } from "../../src/nix/cache-info.ts";
import { NixParseError } from "../../src/nix/parse-error.ts";
import { readVectorText } from "./vectors.ts";

const DEFAULTS = { storeDir: "/nix/store", wantMassQuery: false, priority: 0 };

describe("nix-cache-info", () => {
  test("round-trips", () => {
    const info = { storeDir: "/nix/store", wantMassQuery: true, priority: 40 };
    expect(formatCacheInfo(info)).toBe("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n");
    expect(parseCacheInfo(formatCacheInfo(info))).toEqual(info);
  });

  test.each<[string, string, Partial<typeof DEFAULTS>]>([
    ["what Nix writes", readVectorText("narinfo/zstd/nix-cache-info"), {}],
    ["an empty file", "", {}],
    ["a last line without its end", "Priority: 30", { priority: 30 }],
    ["no space, more space, DOS lines", "WantMassQuery:1\r\nPriority:   7 \r\n", { wantMassQuery: true, priority: 7 }],
    ["unknown keys and lines that are none", "Foo: bar\nwhat\n\nPriority: -1\n", { priority: -1 }],
    ["another store directory", "StoreDir: /gnu/store\n", { storeDir: "/gnu/store" }],
    ["a mass query that is not 1", "WantMassQuery: yes\n", {}],
  ])("reads %s", (_what, text, expected) => {
    expect(parseCacheInfo(text)).toEqual({ ...DEFAULTS, ...expected });
  });

  test.each([
    ["a priority that is no integer", "Priority: high\n"],
    ["an overlong priority", "Priority: 12345678901\n"],
    ["a relative store directory", "StoreDir: nix/store\n"],
    ["an empty store directory", "StoreDir: \n"],
    ["an overlong file", "x".repeat(20_000)],
  ])("refuses %s", (_what, text) => {
    expect(() => parseCacheInfo(text)).toThrow(NixParseError);
  });
});
