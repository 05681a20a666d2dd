/** Inputs of 1 MiB that make a careless parser slow: one thing again and again, alone or within a valid input. */
import { type Parser, toBytes } from "./parser.ts";

export const FLOOD_BYTES = 1024 * 1024;

/** Parsers behind files and threads get at least every eighth. */
const STEP_MAX = 8;

export type Flood = { readonly name: string; readonly bytes: Uint8Array };

/** What backtracking, recursion, splitting and quadratic joining stumble over. */
const UNITS = [
  "\0",
  "a",
  "/",
  "//x",
  "../",
  ".",
  "-1",
  "0",
  "9",
  " ",
  "\n",
  "\r",
  "a: b\n",
  "=",
  ":",
  ",",
  "[",
  '{"a":',
  '{"kind":"ping"},',
  "0,",
  '"",',
  "data\n",
  "é",
  "\xff",
  "\u{1f4a5}",
];

/** The parser's own, and general ones: all for a parser that costs 1, each so many-th for others. */
export function* floods(parser: Parser): Iterable<Flood> {
  for (const [name, make] of Object.entries(parser.floods)) yield { name, bytes: toBytes(make()) };
  const step = Math.min(parser.costFactor, STEP_MAX);
  // Parsers that are much alike begin at different ones.
  let number = parser.name.length % step;
  for (const make of candidates(parser)) {
    if (number % step === 0) yield make();
    number += 1;
  }
}

function* candidates(parser: Parser): Iterable<() => Flood> {
  const [sample = new Uint8Array()] = parser.samples;
  yield () => ({ name: "itself", bytes: repeated(sample, FLOOD_BYTES) });
  for (const unit of UNITS) {
    yield () => ({ name: `only ${JSON.stringify(unit)}`, bytes: repeated(toBytes(unit), FLOOD_BYTES) });
  }
  const inside = UNITS.filter((_, index) => index % 2 === 0).map(toBytes);
  for (const [index, unit] of [...inside, ...parser.dictionary].entries()) {
    const position = Math.floor((sample.length * (index % 4)) / 3);
    const name = `itself with ${JSON.stringify(Buffer.from(unit).toString("latin1"))} at ${position}`;
    yield () => ({ name, bytes: insideOf(sample, position, unit) });
  }
}

function insideOf(sample: Uint8Array, position: number, unit: Uint8Array): Uint8Array {
  const flood = repeated(unit, FLOOD_BYTES - sample.length);
  return Buffer.concat([sample.subarray(0, position), flood, sample.subarray(position)]);
}

function repeated(unit: Uint8Array, lengthBytes: number): Uint8Array {
  return Buffer.alloc(Math.max(0, lengthBytes), unit.length === 0 ? 0 : unit);
}
