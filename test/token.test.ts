import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { parseTokenId } from "../src/names.ts";
import { formatToken, parseToken, secretSha256, TOKEN_KINDS } from "../src/token.ts";

const ID = parseTokenId("0123456789abcdfg");
const secretBytes = fc.uint8Array({ minLength: 32, maxLength: 32 });
const kind = fc.constantFrom(...TOKEN_KINDS);

describe("token text", () => {
  test("has the form that scanners look for", () => {
    expect(formatToken("push", ID, new Uint8Array(32).fill(255))).toMatch(/^nd_push_0123456789abcdfg_[0-9A-Za-z]{49}$/);
    expect(formatToken("agent", ID, new Uint8Array(32))).toMatch(/^nd_agent_0123456789abcdfg_0{43}[0-9A-Za-z]{6}$/);
  });

  test("comes back as it was", () => {
    fc.assert(
      fc.property(kind, secretBytes, (tokenKind, bytes) => {
        const parsed = parseToken(formatToken(tokenKind, ID, bytes));
        expect(parsed?.kind).toBe(tokenKind);
        expect(parsed?.id).toBe(ID);
        expect(parsed?.secret).toHaveLength(43);
      }),
    );
  });

  test("keeps all 256 bits: other bytes, other text", () => {
    fc.assert(
      fc.property(secretBytes, fc.integer({ min: 0, max: 255 }), (bytes, bit) => {
        const flipped = bytes.slice();
        flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(formatToken("read", ID, flipped)).not.toBe(formatToken("read", ID, bytes));
      }),
    );
  });

  test("any changed character is noticed", () => {
    const token = formatToken("activate", ID, new Uint8Array(32).fill(7));
    for (let index = 0; index < token.length; index += 1) {
      const other = token[index] === "a" ? "b" : "a";
      expect(parseToken(token.slice(0, index) + other + token.slice(index + 1))).toBeNull();
    }
  });

  const token = formatToken("admin", ID, new Uint8Array(32).fill(3));
  for (const text of ["", "nd_", token.slice(0, -1), `${token}0`, ` ${token}`, `${token}\n`, token.toUpperCase()]) {
    test(`is not ${JSON.stringify(text.slice(0, 20))} (${text.length} characters)`, () =>
      expect(parseToken(text)).toBeNull());
  }

  test("wants 32 bytes of secret", () => {
    expect(() => formatToken("push", ID, new Uint8Array(31))).toThrow("32 bytes");
  });
});

test("what is stored of a secret is its SHA-256", () => {
  expect(Buffer.from(secretSha256("abc")).toString("hex")).toBe(createHash("sha256").update("abc").digest("hex"));
});
