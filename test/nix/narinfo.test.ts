import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { formatNarInfo, type NarInfo, parseNarInfo } from "../../src/nix/narinfo.ts";
import { NixParseError } from "../../src/nix/parse-error.ts";
import { narInfo } from "./arbitraries.ts";
import { readNarInfoVectors } from "./vectors.ts";

const vectors = readNarInfoVectors();
const NAR_HASH = "sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw";
const HASH = "w8c0xrkiynp173357yi04q4m3m5qmncm";
const PATH = `/nix/store/${HASH}-hello`;
const MINIMAL = `StorePath: ${PATH}\nURL: nar/x.nar\nNarHash: ${NAR_HASH}\nNarSize: 120\n`;

function parseOrNull(text: string): NarInfo | null {
  try {
    return parseNarInfo(text);
  } catch (error) {
    expect(error).toBeInstanceOf(NixParseError);
    return null;
  }
}

describe("narinfos written by Nix", () => {
  test("are there", () => {
    expect(vectors.length).toBeGreaterThanOrEqual(33);
  });

  test.each(vectors)("$path is written again byte for byte", ({ text }) => {
    expect(formatNarInfo(parseNarInfo(text))).toBe(text);
  });

  test("give every field", () => {
    const { text } = vectors.find((it) => it.text.includes("-self-1.0\nURL")) ?? { text: "" };
    const info = parseNarInfo(text);
    expect(info.references).toContain(info.storePath);
    expect(info.references).toHaveLength(2);
    expect(info.deriver).toEndWith("-self-1.0.drv");
    expect(info.fileHash).toStartWith("sha256:");
    expect(info.signatures).toHaveLength(1);
    expect(info.contentAddress).toBeNull();
  });

  test("cut off anywhere are errors, or lack whole lines", () => {
    for (const { text } of vectors.slice(0, 7)) {
      for (let length = 0; length < text.length; length += 1) {
        if (parseOrNull(text.slice(0, length)) !== null) {
          expect(text[length - 1]).toBe("\n");
        }
      }
    }
  });
});

describe("parseNarInfo", () => {
  test("takes what is missing as Nix does", () => {
    expect<unknown>(parseNarInfo(MINIMAL)).toEqual({
      storePath: PATH,
      url: "nar/x.nar",
      compression: "bzip2",
      fileHash: null,
      fileSizeBytes: null,
      narHash: NAR_HASH,
      narSizeBytes: 120,
      references: [],
      deriver: null,
      signatures: [],
      contentAddress: null,
    });
  });

  test.each<[string, string, Partial<Record<keyof NarInfo, unknown>>]>([
    ["an empty compression as bzip2", "Compression: \n", { compression: "bzip2" }],
    ["a compression that we do not know", "Compression: lzip\n", { compression: "lzip" }],
    ["unknown-deriver as none", "Deriver: unknown-deriver\n", { deriver: null }],
    ["FileSize 0 as unknown", "FileSize: 0\n", { fileSizeBytes: null }],
    ["empty references", "References: \n", { references: [] }],
    [
      "references with more spaces",
      `References:  ${HASH}-b  ${HASH}-a \n`,
      { references: [`${PATH.slice(0, -5)}a`, `${PATH.slice(0, -5)}b`] },
    ],
    ["references named twice", `References: ${HASH}-a ${HASH}-a\n`, { references: [`${PATH.slice(0, -5)}a`] }],
    ["unknown keys", "System: x86_64-linux\nPartialClosure: é: x\nSystem: again\n", {}],
    ["several signatures", "Sig: a:b\nSig: c:d\n", { signatures: ["a:b", "c:d"] }],
    [
      "hashes in other spellings",
      "FileHash: sha256-e+ACqUTQihh5GbjkCZmYGL3nP3uZ2J6bI+uXPsoiR1M=\n",
      { fileHash: "sha256:0ls74b53x5zb4fdrxn4rgczygg8qk2chkr5q35wii2nh8jlh5q3v" },
    ],
  ])("accepts %s", (_what, lines, expected) => {
    expect<unknown>(parseNarInfo(MINIMAL + lines)).toEqual({ ...parseNarInfo(MINIMAL), ...expected });
  });

  test.each([
    ["nothing", ""],
    ["an empty line", `${MINIMAL}\n`],
    ["a last line without its end", MINIMAL.slice(0, -1)],
    ["a line without a colon", `${MINIMAL}what\n`],
    ["a line without a key", `${MINIMAL}: what\n`],
    ["an empty value without the space", `${MINIMAL}References:\n`],
    ["lines that end like in DOS", MINIMAL.replaceAll("\n", "\r\n")],
    ["no StorePath", MINIMAL.replace("StorePath", "StorePast")],
    ["no URL", MINIMAL.replace("URL", "URI")],
    ["no NarHash", MINIMAL.replace("NarHash", "Narhash")],
    ["no NarSize", MINIMAL.replace("NarSize", "Narsize")],
    ["a path outside of the store", MINIMAL.replace("/nix/store", "/gnu/store")],
    ["a store path as a base name", MINIMAL.replace("/nix/store/", "")],
    ["an empty URL", MINIMAL.replace("nar/x.nar", "")],
    ["a URL with a space", MINIMAL.replace("nar/x", "nar/ x")],
    ["a URL with a control character", MINIMAL.replace("nar/x", "nar/\u0001x")],
    ["an overlong URL", MINIMAL.replace("nar/x", "x".repeat(5000))],
    ["a hash of another algorithm", MINIMAL.replace("sha256", "sha1")],
    ["NarSize 0", MINIMAL.replace("120", "0")],
    ["a negative NarSize", MINIMAL.replace("120", "-120")],
    ["NarSize 2^53", MINIMAL.replace("120", "9007199254740992")],
    ["NarSize with a fraction", MINIMAL.replace("120", "120.5")],
    ["NarSize in hex", MINIMAL.replace("120", "0x78")],
    ["NarSize with a space", MINIMAL.replace("120", "120 ")],
    ["FileSize 2^53", `${MINIMAL}FileSize: 9007199254740992\n`],
    ["a reference with a directory", `${MINIMAL}References: ../${HASH}-a\n`],
    ["a reference that is no base name", `${MINIMAL}References: ${PATH}\n`],
    ["a deriver that is no base name", `${MINIMAL}Deriver: ${PATH}.drv\n`],
    ["a CA with a space", `${MINIMAL}CA: fixed: x\n`],
    ["an empty signature", `${MINIMAL}Sig: \n`],
    ["a signature with a space", `${MINIMAL}Sig: a: b\n`],
    ["65 signatures", MINIMAL + "Sig: a:b\n".repeat(65)],
    ["an overlong signature", `${MINIMAL}Sig: a:${"b".repeat(9000)}\n`],
    ["an overlong text", MINIMAL + `Unknown: ${"x".repeat(1000)}\n`.repeat(5000)],
    ["a second StorePath", `${MINIMAL}StorePath: ${PATH}\n`],
    ["a second URL", `${MINIMAL}URL: y\n`],
    ["a second NarHash", `${MINIMAL}NarHash: ${NAR_HASH}\n`],
    ["a second NarSize", `${MINIMAL}NarSize: 120\n`],
    ["a second, empty NarSize", `${MINIMAL}NarSize: \n`],
    ["a second References", `${MINIMAL}References: \nReferences: \n`],
    ["a second Compression", `${MINIMAL}Compression: xz\nCompression: xz\n`],
    ["a second CA", `${MINIMAL}CA: text:x\nCA: text:x\n`],
    ["a second Deriver", `${MINIMAL}Deriver: unknown-deriver\nDeriver: unknown-deriver\n`],
  ])("refuses %s", (_what, text) => {
    expect(() => parseNarInfo(text)).toThrow(NixParseError);
  });

  test("names the field at fault", () => {
    expect(() => parseNarInfo(MINIMAL.replace("120", "many"))).toThrow("cannot parse narinfo: NarSize: not a size");
  });
});

describe("formatNarInfo", () => {
  test("round-trips", () => {
    fc.assert(
      fc.property(narInfo, (info) => {
        expect(parseNarInfo(formatNarInfo(info))).toEqual(info);
      }),
    );
  });

  test("refuses values that would forge a line", () => {
    const info = parseNarInfo(MINIMAL);
    expect(() => formatNarInfo({ ...info, url: "x\nNarSize: 1" })).toThrow(RangeError);
    expect(() => formatNarInfo({ ...info, signatures: ["a:b\r"] })).toThrow(RangeError);
  });
});
