import { describe, expect, test } from "bun:test";
import { verify as verifyWithNoble } from "@noble/ed25519";
import fc from "fast-check";
import { decodeBase64 } from "../../src/nix/base64.ts";
import { formatFingerprint } from "../../src/nix/fingerprint.ts";
import { parseNarInfo } from "../../src/nix/narinfo.ts";
import { NixParseError } from "../../src/nix/parse-error.ts";
import type { PathInfo } from "../../src/nix/path-info.ts";
import {
  createSignatureVerifier,
  publicKeyFromSeed,
  signMessage,
  signPathInfo,
  verifyMessage,
} from "../../src/nix/signature.ts";
import { parsePublicKey, publicKeyOf, secretKeyFromSeed } from "../../src/nix/signing-key.ts";
import { pathInfo } from "./arbitraries.ts";
import { readNarInfoVectors, readVectorText } from "./vectors.ts";

const firstKey = parsePublicKey(readVectorText("narinfo/first.public"));
const secondKey = parsePublicKey(readVectorText("narinfo/second.public"));
const vectors = readNarInfoVectors().map(({ path, text }) => ({ path, text, info: parseNarInfo(text) }));
const signed = vectors.filter(({ info }) => info.signatures.length > 0);
const ownKey = secretKeyFromSeed("own-1", new Uint8Array(32).fill(9));

function requireVector(pathPart: string) {
  const vector = vectors.find(({ path, text }) => path.includes(pathPart) && text.includes("-self-1.0\nURL"));
  if (vector === undefined) {
    throw new Error(`no vector ${pathPart}`);
  }
  return vector;
}

describe("signatures made by Nix", () => {
  test.each(signed)("$path is good", ({ info }) => {
    expect(createSignatureVerifier([firstKey]).verify(info)).toBe("first-1");
  });

  test("are good by either key where there are two", () => {
    const { info } = requireVector("two-signatures");
    expect(createSignatureVerifier([secondKey]).verify(info)).toBe("second-1");
    expect(createSignatureVerifier([secondKey, firstKey]).verify(info)).toBe("first-1");
  });

  test("are good for noble too, strictly by RFC 8032", () => {
    for (const { info } of signed.slice(0, 5)) {
      const [, text = ""] = info.signatures[0]?.split(":") ?? [];
      const fingerprint = Buffer.from(formatFingerprint(info));
      expect(verifyWithNoble(decodeBase64(text, 64), fingerprint, firstKey.bytes, { zip215: false })).toBe(true);
    }
  });

  test("do not survive a change of any signed field", () => {
    const { info } = requireVector("zstd");
    const other = signed.find((it) => it.info.narHash !== info.narHash)?.info ?? info;
    const verifier = createSignatureVerifier([firstKey]);
    const changes: Partial<PathInfo>[] = [
      { storePath: other.storePath },
      { narHash: other.narHash },
      { narSizeBytes: info.narSizeBytes + 1 },
      { references: info.references.slice(1) },
      { references: [] },
      { signatures: [] },
    ];
    for (const change of changes) {
      expect(verifier.verify({ ...info, ...change })).toBeNull();
    }
  });

  test("cover neither file, compression, deriver nor order of references", () => {
    const { info } = requireVector("zstd");
    const changed = { ...info, deriver: null, references: info.references.toReversed(), contentAddress: null };
    expect(createSignatureVerifier([firstKey]).verify(changed)).toBe("first-1");
  });

  test("with any bit flipped in the narinfo: refused, or what was signed is the same", () => {
    const { text, info } = requireVector("zstd");
    const verifier = createSignatureVerifier([firstKey]);
    for (let index = 0; index < text.length; index += 1) {
      const flipped = Buffer.from(text, "latin1");
      flipped[index] = (flipped[index] ?? 0) ^ (1 << (index % 7));
      try {
        const parsed = parseNarInfo(flipped.toString("latin1"));
        if (verifier.verify(parsed) !== null) {
          expect(formatFingerprint(parsed)).toBe(formatFingerprint(info));
        }
      } catch (error) {
        expect(error).toBeInstanceOf(NixParseError);
      }
    }
  });
});

describe("our signatures", () => {
  const { info } = requireVector("zstd");
  const signature = signPathInfo(info, ownKey);
  const verifier = createSignatureVerifier([publicKeyOf(ownKey)]);

  test("are good for any path, whichever implementation verifies", () => {
    fc.assert(
      fc.property(pathInfo, (path) => {
        const text = signPathInfo(path, ownKey);
        const bytes = decodeBase64(text.slice("own-1:".length), 64);
        const fingerprint = Buffer.from(formatFingerprint(path));
        expect(verifier.verify({ ...path, signatures: [...path.signatures, text] })).toBe("own-1");
        expect(verifyWithNoble(bytes, fingerprint, publicKeyOf(ownKey).bytes, { zip215: false })).toBe(true);
      }),
      { numRuns: 20 },
    );
  });

  test.each([
    ["none", []],
    ["one of an unknown key", info.signatures],
    ["the right one under another name", [signature.replace("own-1", "own-2")]],
    ["the right one without a name", [signature.slice("own-1:".length), signature.slice("own-1".length)]],
    ["one cut short", [signature.slice(0, -4)]],
    ["one with garbage behind it", [`${signature}AAAA`]],
    ["one that is no base64", ["own-1:%%%%"]],
    ["zeros", [`own-1:${"A".repeat(86)}==`]],
    ["a name alone", ["own-1"]],
    ["an empty text", [""]],
  ])("count as missing: %s", (_what, signatures) => {
    expect(verifier.verify({ ...info, signatures })).toBeNull();
    expect(verifier.verify({ ...info, signatures: [...signatures, signature] })).toBe("own-1");
  });

  test("several keys may have one name", () => {
    const older = { name: "own-1", bytes: firstKey.bytes };
    expect(createSignatureVerifier([older, publicKeyOf(ownKey)]).verify({ ...info, signatures: [signature] })).toBe(
      "own-1",
    );
    expect(createSignatureVerifier([older]).verify({ ...info, signatures: [signature] })).toBeNull();
    expect(createSignatureVerifier([]).verify({ ...info, signatures: [signature] })).toBeNull();
  });
});

describe("messages", () => {
  // RFC 8032, section 7.1, test 2.
  const seed = Buffer.from("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "hex");
  const message = Uint8Array.of(0x72);
  const expected =
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

  test("are signed as RFC 8032 says", () => {
    expect(Buffer.from(signMessage(seed, message)).toString("hex")).toBe(expected);
    expect(verifyMessage(publicKeyFromSeed(seed), message, Buffer.from(expected, "hex"))).toBe(true);
  });

  test("are refused with another message, key or signature, of whatever length", () => {
    const key = publicKeyFromSeed(seed);
    const signature = signMessage(seed, message);
    expect(verifyMessage(key, Uint8Array.of(0x73), signature)).toBe(false);
    expect(verifyMessage(firstKey.bytes, message, signature)).toBe(false);
    expect(verifyMessage(key.subarray(1), message, signature)).toBe(false);
    expect(verifyMessage(new Uint8Array(32).fill(255), message, signature)).toBe(false);
    for (const length of [0, 63]) {
      expect(verifyMessage(key, message, signature.subarray(0, length))).toBe(false);
    }
    for (let bit = 0; bit < 512; bit += 7) {
      const flipped = new Uint8Array(signature);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(verifyMessage(key, message, flipped)).toBe(false);
    }
  });
});

describe("fingerprints", () => {
  test("end in a semicolon when there are no references", () => {
    const { info } = requireVector("zstd");
    expect(formatFingerprint({ ...info, references: [] })).toBe(
      `1;${info.storePath};${info.narHash};${info.narSizeBytes};`,
    );
  });
});
