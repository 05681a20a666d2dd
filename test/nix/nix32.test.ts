import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeNix32, encodeNix32 } from "../../src/nix/nix32.ts";
import { NixParseError } from "../../src/nix/parse-error.ts";
import { readVectorTable } from "./vectors.ts";

describe("nix32", () => {
  test.each(readVectorTable("hashes.tsv"))(
    "spells the %s digest %s as Nix does",
    (_algorithm, hex = "", nix32 = "") => {
      expect(encodeNix32(Buffer.from(hex, "hex"))).toBe(nix32);
      expect(Buffer.from(decodeNix32(nix32)).toString("hex")).toBe(hex);
    },
  );

  test("round-trips any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        expect(decodeNix32(encodeNix32(bytes))).toEqual(bytes);
      }),
    );
  });

  test("no text is read as bytes that are spelled differently", () => {
    const character = fc.constantFrom(..."0123456789abcdfghijklmnpqrsvwxyz");
    fc.assert(
      fc.property(fc.string({ unit: character, maxLength: 16 }), (text) => {
        try {
          expect(encodeNix32(decodeNix32(text))).toBe(text);
        } catch (error) {
          expect(error).toBeInstanceOf(NixParseError);
        }
      }),
    );
  });

  test.each([
    ["a letter outside of the alphabet", `e${"0".repeat(51)}`],
    ["a capital letter", `0${"A".repeat(51)}`],
    ["a character beyond ASCII", `0${"é".repeat(51)}`],
    ["a character beyond one byte whose low byte is in the alphabet", `0${"\u0130".repeat(51)}`],
    ["bits that do not fit", `2${"0".repeat(51)}`],
    ["a length that no bytes have: 1", "0"],
    ["a length that no bytes have: 51", "0".repeat(51)],
    ["an overlong text", "0".repeat(1000)],
    ["white space", " "],
  ])("refuses %s", (_what, text) => {
    expect(() => decodeNix32(text)).toThrow(NixParseError);
  });
});
