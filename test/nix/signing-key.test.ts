import { describe, expect, test } from "bun:test";
import { NixParseError } from "../../src/nix/parse-error.ts";
import {
  formatPublicKey,
  formatSecretKey,
  parsePublicKey,
  parseSecretKey,
  publicKeyOf,
  secretKeyFromSeed,
} from "../../src/nix/signing-key.ts";
import { readVectorText } from "./vectors.ts";

const key = secretKeyFromSeed("test-1", new Uint8Array(32).fill(7));

describe("signing keys", () => {
  test.each(["first", "second"])("the public key that Nix wrote round-trips: %s", (name) => {
    const text = readVectorText(`narinfo/${name}.public`);
    expect(parsePublicKey(text).name).toBe(`${name}-1`);
    expect(formatPublicKey(parsePublicKey(text))).toBe(text);
  });

  test("round-trip, with an end of line or without", () => {
    expect(parseSecretKey(formatSecretKey(key))).toEqual(key);
    expect(parseSecretKey(` ${formatSecretKey(key)}\n`)).toEqual(key);
    expect(parsePublicKey(`${formatPublicKey(publicKeyOf(key))}\n`)).toEqual(publicKeyOf(key));
  });

  test("have libsodium's layout: seed, then public key", () => {
    const bytes = Buffer.from(formatSecretKey(key).slice("test-1:".length), "base64");
    expect<Uint8Array>(new Uint8Array(bytes.subarray(0, 32))).toEqual(key.seed);
    expect<Uint8Array>(new Uint8Array(bytes.subarray(32))).toEqual(publicKeyOf(key).bytes);
  });

  test("the seed of RFC 8032, test 1, has that public key", () => {
    const seed = Buffer.from("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "hex");
    const expected = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    expect(Buffer.from(publicKeyOf(secretKeyFromSeed("x", seed)).bytes).toString("hex")).toBe(expected);
  });

  const valid = formatSecretKey(key);
  test.each([
    ["nothing", ""],
    ["no name", valid.slice("test-1".length)],
    ["no colon", valid.replace(":", "")],
    ["a name with a space", `my ${valid}`],
    ["no bytes", "test-1:"],
    ["bytes of a public key", formatPublicKey(publicKeyOf(key))],
    ["a missing character", valid.slice(0, -1)],
    ["an additional character", `${valid}=`],
    ["two keys", `${valid}\n${valid}`],
    ["a public half of another key", valid.replace(/.{6}==$/, "AAAAAA==")],
  ])("refuse %s as a secret key, without repeating it", (_what, text) => {
    expect(() => parseSecretKey(text)).toThrow(NixParseError);
    try {
      parseSecretKey(text);
    } catch (error) {
      expect(String(error)).not.toContain("BwcHBw");
    }
  });

  test("refuse a secret key as a public one, seeds of another length, and names that cannot be read back", () => {
    expect(() => parsePublicKey(valid)).toThrow(NixParseError);
    expect(() => secretKeyFromSeed("test-1", new Uint8Array(31))).toThrow(NixParseError);
    expect(() => secretKeyFromSeed("te:st", key.seed)).toThrow(NixParseError);
    expect(() => secretKeyFromSeed("", key.seed)).toThrow(NixParseError);
  });
});
