import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { NixParseError } from "../../src/nix/parse-error.ts";
import {
  compareStorePaths,
  parseStorePath,
  parseStorePathBaseName,
  parseStorePathHash,
  storePathBaseName,
  storePathContaining,
  storePathHash,
  storePathName,
} from "../../src/nix/store-path.ts";
import { storePath } from "./arbitraries.ts";

const HASH = "w8c0xrkiynp173357yi04q4m3m5qmncm";
const PATH = `/nix/store/${HASH}-hello-2.12`;

describe("store paths", () => {
  test("have a base name, a hash part and a name", () => {
    const path = parseStorePath(PATH);
    expect<string>(path).toBe(PATH);
    expect(storePathBaseName(path)).toBe(`${HASH}-hello-2.12`);
    expect<string>(storePathHash(path)).toBe(HASH);
    expect(storePathName(path)).toBe("hello-2.12");
  });

  test("round-trip through their base name", () => {
    fc.assert(
      fc.property(storePath, (path) => {
        expect(parseStorePathBaseName(storePathBaseName(path))).toBe(path);
        expect(parseStorePath(path)).toBe(path);
        expect<string>(`${storePathHash(path)}-${storePathName(path)}`).toBe(storePathBaseName(path));
      }),
    );
  });

  test.each(["a", ".hidden", "..hidden", "...", "-", "+x", "a?b=c", "_", "x".repeat(211)])(
    "allow the name %p",
    (name) => {
      expect(storePathName(parseStorePathBaseName(`${HASH}-${name}`))).toBe(name);
    },
  );

  test.each([
    ["an empty text", ""],
    ["a relative path", PATH.slice(1)],
    ["another store directory", PATH.replace("/nix/store", "/gnu/store")],
    ["a store directory that only begins alike", PATH.replace("/nix/store", "/nix/store2")],
    ["the store directory", "/nix/store"],
    ["the store directory with a slash", "/nix/store/"],
    ["a trailing slash", `${PATH}/`],
    ["a file inside", `${PATH}/bin/hello`],
    ["a doubled slash", PATH.replace("/store/", "/store//")],
    ["a trailing end of line", `${PATH}\n`],
    ["a NUL", `${PATH}\0`],
    ["a space", `${PATH} x`],
    ["a letter beyond ASCII", `${PATH}é`],
    ["no name", `/nix/store/${HASH}`],
    ["an empty name", `/nix/store/${HASH}-`],
    ["a name of 212 characters", `/nix/store/${HASH}-${"x".repeat(212)}`],
    ["the name .", `/nix/store/${HASH}-.`],
    ["the name ..", `/nix/store/${HASH}-..`],
    ["a name that begins with .-", `/nix/store/${HASH}-.-x`],
    ["a name that begins with ..-", `/nix/store/${HASH}-..-x`],
    ["a hash that is too short", `/nix/store/${HASH.slice(1)}-hello`],
    ["a hash with a letter outside of the alphabet", `/nix/store/e${HASH.slice(1)}-hello`],
    ["a parent directory", "/nix/store/../etc/passwd"],
  ])("refuse %s", (_what, text) => {
    expect(() => parseStorePath(text)).toThrow(NixParseError);
  });

  test.each(["", HASH.slice(1), `${HASH}0`, HASH.toUpperCase(), `${HASH}\n`, `e${HASH.slice(1)}`])(
    "refuse %p as a hash part",
    (text) => {
      expect(() => parseStorePathHash(text)).toThrow(NixParseError);
    },
  );

  test.each([
    [PATH, PATH],
    [`${PATH}/`, PATH],
    [`${PATH}/bin/hello`, PATH],
    [`${PATH}/share/.hidden/..x`, PATH],
    [`${PATH}/../other`, null],
    [`${PATH}/./bin`, null],
    [`${PATH}//bin`, null],
    ["/nix/store", null],
    ["/nix/store/", null],
    ["/nix/store/.links", null],
    ["/nix/var/nix/profiles/system", null],
    [PATH.slice(1), null],
  ])("find the one that contains %p", (path, expected) => {
    expect<string | null>(storePathContaining(path)).toBe(expected);
  });

  test("sort bytewise", () => {
    const names = ["a", "B", "_", "-", "a-b", "a.b", "ab", "=", "?"];
    const sorted = names.map((name) => parseStorePathBaseName(`${HASH}-${name}`)).sort(compareStorePaths);
    const expected = names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(sorted.map(storePathName)).toEqual(expected);
  });
});
