/**
 * What a parser of ours owes to any input, whoever wrote it, as one function: `examine`.
 *
 *   1. It answers: with a value, or with an error of its own class, never with another one.
 *   2. It repeats little of what it refuses: messages are bounded.
 *   3. What it accepts survives: formatted and parsed again it is the same value; where the format has one spelling
 *      for each value, the same bytes.
 *   4. A stream means the same however its bytes are cut.
 *
 * How long it may take is measured by the tests (parsers.test.ts), on inputs made to be slow.
 */
import { NixdeployError } from "../../src/errors.ts";

type ErrorClass = abstract new (...args: never[]) => Error;

type Common<Value> = {
  /** Also the name of its folder in corpus/. */
  readonly name: string;
  /** Inputs it accepts, from test/vectors where those have the format. */
  readonly samples: readonly (string | Uint8Array)[];
  /** The only errors it may throw; none: it never throws. */
  readonly errors: readonly ErrorClass[];
  /** Whether a value says "no" where others throw: null by default. Such a value is not formatted. */
  readonly isRefusal?: (value: Value) => boolean;
  /** What a refusal says, if it says something. */
  readonly reasonOf?: (value: Value) => string;
  readonly format?: (value: NonNullable<Value>) => string | Uint8Array;
  /** One spelling for each value: what `format` gives must be the input. */
  readonly isCanonical?: boolean;
  /** Nothing may follow a whole input, and no part of one is whole. Default: what `isCanonical` says. */
  readonly isExact?: boolean;
  /** Words of the format, for mutations; the samples give the rest. */
  readonly dictionary?: readonly (string | Uint8Array)[];
  /** Large inputs of the format's own shape, about 1 MiB, by what is special about them. */
  readonly floods?: Readonly<Record<string, () => string | Uint8Array>>;
  /** For slow ones: how many times fewer random inputs it gets. */
  readonly costFactor?: number;
};

export type ParserDefinition<Value> = Common<Value> &
  (
    | { readonly parse: (bytes: Uint8Array) => Value | Promise<Value> }
    /** A fresh parser each time; gets the whole input, in one chunk or in many. */
    | { readonly parseChunks: (chunks: readonly Uint8Array[]) => Value | Promise<Value> }
  );

export type Verdict = { readonly kind: "accepted" } | { readonly kind: "refused"; readonly reason: string };

export type Parser = {
  readonly name: string;
  readonly samples: readonly Uint8Array[];
  readonly dictionary: readonly Uint8Array[];
  readonly isExact: boolean;
  readonly isStream: boolean;
  readonly costFactor: number;
  readonly floods: Readonly<Record<string, () => string | Uint8Array>>;
  /** Gives the input to the parser, and only that: for measuring. */
  readonly run: (input: Uint8Array) => Promise<void>;
  /** @throws Error saying which of the rules above is broken */
  readonly examine: (input: Uint8Array) => Promise<Verdict>;
};

/** Characters of an error's message. Excerpts of input are far shorter; this leaves room for several. */
const MESSAGE_LENGTH_MAX = 4_096;
const DETAILS_MAX = 100;

type Outcome<Value> =
  | { readonly kind: "value"; readonly value: Value }
  | { readonly kind: "refusal"; readonly reason: string };

export function defineParser<Value>(definition: ParserDefinition<Value>): Parser {
  const { name, format, isCanonical = false } = definition;
  const isStream = "parseChunks" in definition;
  const parse = async (chunks: readonly Uint8Array[]): Promise<Outcome<Value>> => {
    try {
      const value = isStream ? await definition.parseChunks(chunks) : await definition.parse(joined(chunks));
      const isRefusal = definition.isRefusal?.(value) ?? value === null;
      return isRefusal ? { kind: "refusal", reason: definition.reasonOf?.(value) ?? "" } : { kind: "value", value };
    } catch (error) {
      return { kind: "refusal", reason: describeRefusal(error, definition.errors) };
    }
  };
  const examine = async (input: Uint8Array): Promise<Verdict> => {
    const outcome = await parse([input]);
    if (isStream) {
      for (const chunks of cutsOf(input)) {
        const again = await parse(chunks);
        if (!isSame(outcome, again)) throw new Error(`another result when cut into ${chunks.length} chunks`);
      }
    }
    if (outcome.kind === "refusal") {
      if (outcome.reason.length > MESSAGE_LENGTH_MAX) {
        throw new Error(`refused in ${outcome.reason.length} characters: ${outcome.reason.slice(0, 200)}…`);
      }
      return { kind: "refused", reason: outcome.reason };
    }
    await expectRoundTrip(outcome, input);
    return { kind: "accepted" };
  };
  const expectRoundTrip = async (outcome: Outcome<Value> & { readonly kind: "value" }, input: Uint8Array) => {
    const { value } = outcome;
    if (format === undefined || value === null || value === undefined) return;
    const formatted = toBytes(format(value));
    // Parsers of text never see what is no UTF-8.
    const seen = isStream ? input : toBytes(textOf(input));
    if (isCanonical && !Buffer.from(formatted).equals(seen)) {
      throw new Error(`accepts a second spelling of ${Bun.inspect(Buffer.from(formatted).toString("latin1"))}`);
    }
    const again = await parse([formatted]);
    // Or the same when it is written again: JSON has no -0, and we need none.
    const isStable = again.kind === "value" && again.value !== null && again.value !== undefined;
    const isSpelledSame = isStable && Buffer.from(toBytes(format(again.value))).equals(formatted);
    if (!isSame(outcome, again) && !isSpelledSame) {
      throw new Error("what it accepts does not survive format and parse");
    }
  };
  return {
    name,
    // Copies that are no Buffers, whose `slice` would share their bytes with who changes them.
    samples: definition.samples.map((sample) => new Uint8Array(toBytes(sample))),
    dictionary: (definition.dictionary ?? []).map(toBytes),
    isExact: definition.isExact ?? isCanonical,
    isStream,
    costFactor: definition.costFactor ?? 1,
    floods: definition.floods ?? {},
    run: async (input) => {
      await parse([input]);
    },
    examine,
  };
}

/** Not fatal: what is no UTF-8 becomes replacement characters, as everywhere in the program. */
export function textOf(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

export function toBytes(input: string | Uint8Array): Uint8Array {
  return typeof input === "string" ? new TextEncoder().encode(input) : input;
}

/** @throws the error itself, as the cause of one that says so, when it is none of the allowed classes */
function describeRefusal(error: unknown, allowed: readonly ErrorClass[]): string {
  if (!(error instanceof Error) || !allowed.some((each) => error instanceof each)) {
    const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw new Error(`throws what it may not: ${what.slice(0, 500)}`, { cause: error });
  }
  const details = error instanceof NixdeployError ? error.details : [];
  if (details.length > DETAILS_MAX) throw new Error(`an error with ${details.length} details`);
  return [error.message, ...details].join("\n").slice(0, MESSAGE_LENGTH_MAX * 2);
}

function isSame<Value>(one: Outcome<Value>, other: Outcome<Value>): boolean {
  // Where a stream is refused may depend on how much of it came at once; that it is refused may not.
  if (one.kind === "refusal" || other.kind === "refusal") return one.kind === other.kind;
  return Bun.deepEquals(one.value, other.value);
}

/** In the middle, at a place that its bytes choose, and, while it is short, at each byte. */
function* cutsOf(input: Uint8Array): Iterable<readonly Uint8Array[]> {
  const middle = input.length >> 1;
  const chosen = input.reduce((sum, byte) => (sum * 31 + byte) >>> 0, 7) % (input.length + 1);
  yield [input.subarray(0, middle), input.subarray(middle)];
  yield [input.subarray(0, chosen), input.subarray(chosen)];
  if (input.length <= 1_024) yield Array.from(input, (_, index) => input.subarray(index, index + 1));
}

function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const [first, ...others] = chunks;
  return first !== undefined && others.length === 0 ? first : new Uint8Array(Buffer.concat(chunks));
}
