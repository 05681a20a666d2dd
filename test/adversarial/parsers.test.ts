/** Bad input of every kind for every parser of the table (parsers.ts); what each owes is said in parser.ts. Large input: floods.test.ts. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Parser } from "./parser.ts";
import { PARSERS } from "./parsers.ts";

setDefaultTimeout(30_000);

/** Inputs of the exhaustive tests for each sample of a parser that costs 1. */
const POSITIONS_MAX = 1_500;

test("the names are those of folders, each once", () => {
  const names = PARSERS.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name).toMatch(/^[a-z0-9-]+$/);
});

for (const parser of PARSERS) {
  describe(parser.name, () => {
    test("accepts its samples", async () => {
      for (const sample of parser.samples) expect(await parser.examine(sample)).toEqual({ kind: "accepted" });
    });

    test("cut off at each byte", async () => {
      for (const sample of parser.samples) {
        for (const length of positions(parser, sample.length)) {
          const verdict = await examine(parser, sample.subarray(0, length));
          if (parser.isExact) expect([length, verdict.kind]).toEqual([length, "refused"]);
        }
      }
    });

    test("each byte flipped", async () => {
      for (const sample of parser.samples) {
        for (const position of positions(parser, sample.length)) {
          for (const mask of [0x01, 0x20, 0x80, 0xff]) {
            const flipped = sample.slice();
            flipped[position] = (flipped[position] ?? 0) ^ mask;
            await examine(parser, flipped);
          }
        }
      }
    });

    test("garbage before, behind, and within", async () => {
      for (const sample of parser.samples) {
        for (const garbage of GARBAGE) {
          const behind = await examine(parser, splice(sample, sample.length, garbage));
          if (parser.isExact && garbage.trim() !== "") expect([garbage, behind.kind]).toEqual([garbage, "refused"]);
          await examine(parser, splice(sample, 0, garbage));
          await examine(parser, splice(sample, sample.length >> 1, garbage));
        }
        await examine(parser, Buffer.concat([sample, sample]));
      }
    });
  });
}

const GARBAGE = ["\0", "\n", " ", "..", "/../", "\xff\xfe", "9007199254740993", "\u2028", "💥", "\x1b[2J", "%00"];

/** Each position; of long samples each so many-th, the first and last ones all. */
function positions(parser: Parser, length: number): number[] {
  const countMax = POSITIONS_MAX / parser.costFactor / parser.samples.length;
  const step = Math.max(1, Math.ceil(length / countMax));
  return Array.from({ length }, (_, index) => index).filter(
    (index) => index % step === 0 || index < 4 || index >= length - 4,
  );
}

async function examine(parser: Parser, input: Uint8Array) {
  try {
    return await parser.examine(input);
  } catch (cause) {
    const shown = Bun.inspect(Buffer.from(input.subarray(0, 400)).toString("latin1"));
    throw new Error(`${parser.name}, given ${shown}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

function splice(sample: Uint8Array, position: number, text: string): Uint8Array {
  return Buffer.concat([sample.subarray(0, position), Buffer.from(text), sample.subarray(position)]);
}
