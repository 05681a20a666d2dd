import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  fileHashFromDigest,
  formatHashHex,
  formatHashNix32,
  formatHashSri,
  narHashFromDigest,
  narHashFromHex,
  parseFileHash,
  parseNarHash,
} from "../../src/nix/hash.ts";
import { NixParseError } from "../../src/nix/parse-error.ts";
import { digest } from "./arbitraries.ts";
import { readVectorTable } from "./vectors.ts";

const sha256Rows = readVectorTable("hashes.tsv").filter(([algorithm]) => algorithm === "sha256");

describe("hashes", () => {
  test.each(sha256Rows)(
    "reads and writes each of Nix's spellings: %s %s",
    (_algorithm, hex = "", nix32 = "", sri = "") => {
      const hash = narHashFromHex(hex);
      expect<string>(hash).toBe(`sha256:${nix32}`);
      for (const text of [hash, sri, `sha256:${hex}`, `sha256:${hex.toUpperCase()}`, sri.replace("-", ":")]) {
        expect(parseNarHash(text)).toBe(hash);
        expect<string>(parseFileHash(text)).toBe(hash);
      }
      expect([formatHashHex(hash), formatHashNix32(hash), formatHashSri(hash)]).toEqual([hex, nix32, sri]);
    },
  );

  test("round-trips any digest through each spelling", () => {
    fc.assert(
      fc.property(digest, (bytes) => {
        const hash = narHashFromDigest(bytes);
        expect(narHashFromHex(formatHashHex(hash))).toBe(hash);
        expect(parseNarHash(formatHashSri(hash))).toBe(hash);
        expect(parseNarHash(hash)).toBe(hash);
      }),
    );
  });

  const hex = "0".repeat(64);
  test.each([
    ["nothing", ""],
    ["a prefix alone", "sha256:"],
    ["no prefix", hex],
    ["another algorithm", `sha512:${hex}${hex}`],
    ["md5 of the same length as nothing", `md5:${"0".repeat(32)}`],
    ["a digit too few", `sha256:${hex.slice(1)}`],
    ["a digit too many", `sha256:${hex}0`],
    ["a character that is no hex digit", `sha256:g${hex.slice(1)}`],
    ["an end of line", `sha256:${hex}\n`],
    ["base64 without padding", `sha256-${"A".repeat(43)}`],
    ["base64 with stray bits", `sha256-${"A".repeat(42)}B=`],
    ["base64url", `sha256-${"_".repeat(42)}A=`],
    ["hex behind the SRI prefix", `sha256-${hex}`],
    ["nix32 with bits that do not fit", `sha256:z${"0".repeat(51)}`],
    ["a capital prefix", `SHA256:${hex}`],
  ])("refuses %s", (_what, text) => {
    expect(() => parseNarHash(text)).toThrow(NixParseError);
    expect(() => parseFileHash(text)).toThrow(NixParseError);
  });

  test("refuses digests of another length and hex with a prefix", () => {
    expect(() => narHashFromDigest(new Uint8Array(31))).toThrow(NixParseError);
    expect(() => fileHashFromDigest(new Uint8Array(33))).toThrow(NixParseError);
    expect(() => narHashFromHex(`sha256:${hex}`)).toThrow(NixParseError);
  });
});
