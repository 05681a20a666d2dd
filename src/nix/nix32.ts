/**
 * Nix's own base32: the spelling of hashes in store paths and narinfos.
 *
 * Not RFC 4648: another alphabet (no e, o, u, t), the last five bits of the input come first, no padding.
 * Stricter than Nix, which drops bits that do not fit: every byte string has exactly one spelling here.
 * Source: Nix `src/libutil/base-nix-32.cc` (older: `hash.cc`).
 */
import { NixParseError, quoteExcerpt } from "./parse-error.ts";

const ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";
const BITS_PER_CHAR = 5;
const NOT_A_DIGIT = 255;

/** Longer than any hash that Nix knows (sha512 takes 103). */
const NIX32_LENGTH_MAX = 128;

/** Digit of each ASCII code, or NOT_A_DIGIT. */
const DIGITS = Uint8Array.from({ length: 128 }, (_, code) => {
  const digit = ALPHABET.indexOf(String.fromCharCode(code));
  return digit === -1 ? NOT_A_DIGIT : digit;
});

/** `bytes` in nix32: 20 bytes make 32 characters, 32 bytes make 52. */
export function encodeNix32(bytes: Uint8Array): string {
  let text = "";
  for (let n = nix32Length(bytes.length) - 1; n >= 0; n -= 1) {
    const bit = n * BITS_PER_CHAR;
    const low = (bytes[bit >> 3] ?? 0) >> (bit & 7);
    const high = (bytes[(bit >> 3) + 1] ?? 0) << (8 - (bit & 7));
    text += ALPHABET.charAt((low | high) & 31);
  }
  return text;
}

/**
 * The bytes that `text` spells.
 * @throws NixParseError on a foreign character, a length that no byte string has, or bits beyond the last byte
 */
export function decodeNix32(text: string): Uint8Array {
  if (text.length > NIX32_LENGTH_MAX) {
    throw new NixParseError("nix32 text", `longer than ${NIX32_LENGTH_MAX} characters`);
  }
  const bytes = new Uint8Array((text.length * BITS_PER_CHAR) >> 3);
  if (nix32Length(bytes.length) !== text.length) {
    throw new NixParseError("nix32 text", `${text.length} characters do not spell whole bytes: ${quoteExcerpt(text)}`);
  }
  for (let n = 0; n < text.length; n += 1) {
    const digit = DIGITS[text.charCodeAt(text.length - 1 - n)] ?? NOT_A_DIGIT;
    if (digit === NOT_A_DIGIT) {
      throw new NixParseError("nix32 text", `a character is not of the nix32 alphabet: ${quoteExcerpt(text)}`);
    }
    placeDigit(bytes, n * BITS_PER_CHAR, digit);
  }
  return bytes;
}

function placeDigit(bytes: Uint8Array, bit: number, digit: number): void {
  const index = bit >> 3;
  const shifted = digit << (bit & 7);
  bytes[index] = (bytes[index] ?? 0) | (shifted & 255);
  const carry = shifted >> 8;
  if (index + 1 < bytes.length) {
    bytes[index + 1] = carry;
  } else if (carry !== 0) {
    throw new NixParseError("nix32 text", "the first character holds bits that do not fit");
  }
}

function nix32Length(byteLength: number): number {
  return Math.ceil((byteLength * 8) / BITS_PER_CHAR);
}
