import { describe, expect, test } from "bun:test";
import {
  drawId,
  parseAgentName,
  parseCacheName,
  parseDeploymentId,
  parseTokenId,
  parseWorkspaceName,
} from "../src/names.ts";
import { systemRandom } from "../src/runtime.ts";

describe("names", () => {
  const good = ["a", "7", "nuc", "NUC-1", "web.example.org", "a_b", "x".repeat(64)];
  const bad = ["", ".", "..", "-a", "_a", ".a", "a/b", "a b", "a\n", "a\0", "ä", "x".repeat(65), "../a", "a%2f"];
  for (const parse of [parseAgentName, parseWorkspaceName, parseCacheName]) {
    for (const text of good) test(`${parse.name} takes ${text}`, () => expect(String(parse(text))).toBe(text));
    for (const text of bad) {
      test(`${parse.name} refuses ${JSON.stringify(text)}`, () => expect(() => parse(text)).toThrow("must be 1 to 64"));
    }
  }

  test("a refusal says what kind of name it was to be", () => {
    expect(() => parseAgentName("a/b")).toThrow('"a/b" is no agent name');
    expect(() => parseWorkspaceName("")).toThrow("no workspace name");
  });
});

describe("ids", () => {
  const bad = ["", "0123456789abcde", "0123456789abcdefg", "0123456789ABCDEF", "0123456789abcde\n", "0123456789abcde/"];
  for (const text of bad) {
    test(`refuses ${JSON.stringify(text)}`, () => {
      expect(() => parseDeploymentId(text)).toThrow("deployment id");
      expect(() => parseTokenId(text)).toThrow("token id");
    });
  }

  test("drawn ids are ids, and differ", () => {
    const drawn = Array.from({ length: 1_000 }, () => drawId(systemRandom));
    for (const id of drawn) expect(String(parseDeploymentId(id))).toBe(id);
    expect(new Set(drawn).size).toBe(drawn.length);
  });

  test("every byte gives a letter of the alphabet, evenly", () => {
    const drawFrom = (byte: number) =>
      drawId({ bytes: (length) => new Uint8Array(length).fill(byte), fraction: () => 0 });
    const letters = Array.from({ length: 256 }, (_, byte) => drawFrom(byte).charAt(0));
    expect(new Set(letters).size).toBe(32);
    for (const letter of letters) expect(letters.filter((other) => other === letter)).toHaveLength(8);
  });
});
