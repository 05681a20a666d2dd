/**
 * Inputs made from others by small damage, decided by a seed alone: the same seed and samples give the same inputs.
 *
 * The kinds of damage: flipped bits, replaced, inserted, removed and repeated pieces, words of the format, pieces of
 * another sample, cuts, and numbers (decimal in text, 64 bits in binary) that are too large, too small or off by one.
 */
import type { Parser } from "./parser.ts";

export type Mutator = { readonly next: () => Uint8Array };

/** Uniform in [0, 1). */
export type Chance = () => number;

const INPUT_BYTES_MAX = 16 * 1024;
const CHANGES_MAX = 6;
const NUMBERS = [
  0n,
  1n,
  7n,
  8n,
  9n,
  31n,
  255n,
  256n,
  4096n,
  2n ** 31n,
  2n ** 32n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n,
];
const TEXTS = [
  "",
  "\0",
  "..",
  "/",
  "\n",
  "\r",
  " ",
  "-",
  "\u{1f4a5}",
  "\u2028",
  "\ud800",
  "%00",
  "\x1b[31m",
  "é",
  "=",
  '"',
];

/** mulberry32: small, and good enough to choose where to damage something. */
export function createChance(seed: number): Chance {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function createMutator(parser: Parser, chance: Chance): Mutator {
  const upTo = (count: number) => Math.floor(chance() * count);
  const pick = <Item>(items: readonly Item[]): Item | undefined => items[upTo(items.length)];
  const anySample = () => pick(parser.samples) ?? new Uint8Array();
  const words = [...parser.dictionary, ...TEXTS.map((text) => new Uint8Array(Buffer.from(text)))];
  // What was accepted or nearly so would be a better start than a sample; samples have proved enough.
  return {
    next() {
      let bytes = anySample();
      for (let changes = 1 + upTo(CHANGES_MAX); changes > 0; changes -= 1) {
        bytes = damage({ bytes, upTo, word: pick(words) ?? new Uint8Array(), other: anySample() });
      }
      return bytes.subarray(0, INPUT_BYTES_MAX);
    },
  };
}

type Damage = {
  readonly bytes: Uint8Array;
  readonly upTo: (count: number) => number;
  readonly word: Uint8Array;
  readonly other: Uint8Array;
};

function damage({ bytes, upTo, word, other }: Damage): Uint8Array {
  const at = upTo(bytes.length + 1);
  const end = Math.min(bytes.length, at + 1 + upTo(upTo(4) === 0 ? bytes.length : 12));
  const replace = (piece: Uint8Array, until = end) =>
    new Uint8Array(Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(until)]));
  switch (upTo(11)) {
    case 0:
      return replace(Uint8Array.of((bytes[at] ?? 0) ^ (1 << upTo(8))), at + 1);
    case 1:
      return replace(Uint8Array.of(upTo(256)), at + upTo(2));
    case 2:
      return replace(new Uint8Array());
    case 3:
      return replace(word, at);
    case 4:
      return replace(word);
    case 5:
      return replace(Buffer.concat([bytes.subarray(at, end), bytes.subarray(at, end)]));
    case 6:
      return replace(other.subarray(upTo(other.length), upTo(other.length + 1)));
    case 7:
      return bytes.subarray(0, at);
    case 8:
      return changeBinaryNumber(bytes, at - (at % 8), upTo);
    case 9:
      return changeDecimalNumber(bytes, at, upTo);
    default:
      return replace(new Uint8Array(Buffer.alloc(1 + upTo(300), word.length === 0 ? 0 : word)), at);
  }
}

function changeBinaryNumber(bytes: Uint8Array, at: number, upTo: Damage["upTo"]): Uint8Array {
  const changed = Buffer.from(bytes);
  if (at + 8 > changed.length) return changed;
  const before = changed.readBigUInt64LE(at);
  const offBy = BigInt.asUintN(64, before + BigInt(upTo(17) - 8));
  changed.writeBigUInt64LE(upTo(2) === 0 ? offBy : (NUMBERS[upTo(NUMBERS.length)] ?? 0n), at);
  return new Uint8Array(changed);
}

function changeDecimalNumber(bytes: Uint8Array, at: number, upTo: Damage["upTo"]): Uint8Array {
  const text = Buffer.from(bytes).toString("latin1");
  const found = /\d+/.exec(text.slice(at));
  if (found === null) return bytes;
  const number = NUMBERS[upTo(NUMBERS.length)] ?? 0n;
  const spelled = ["", "-", "0", "+"][upTo(4)] + String(number);
  const start = at + found.index;
  return new Uint8Array(Buffer.from(text.slice(0, start) + spelled + text.slice(start + found[0].length), "latin1"));
}
