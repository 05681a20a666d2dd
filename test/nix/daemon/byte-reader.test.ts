/** Words of the worker protocol, written and read back: any split, any cut, any flipped byte. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ByteReader } from "../../../src/nix/daemon/byte-reader.ts";
import { ConnectionLostError, ProtocolError } from "../../../src/nix/daemon/daemon-error.ts";
import { readReply } from "../../../src/nix/daemon/reply.ts";
import { readValidPath } from "../../../src/nix/daemon/store-operations.ts";
import { WireEncoder } from "../../../src/nix/daemon/wire.ts";
import { NixParseError } from "../../../src/nix/parse-error.ts";
import { parseStorePath } from "../../../src/nix/store-path.ts";
import { errorReply, int, LAST, log, str, strs } from "../../support/daemon-double.ts";

const lib = parseStorePath("/nix/store/00000000000000000000000000000000-lib");

/** A reader of these bytes in chunks whose lengths go round and round `lengths`. */
function readerOf(bytes: Uint8Array, lengths: readonly number[] = [bytes.length || 1]): ByteReader {
  let start = 0;
  let turn = 0;
  return new ByteReader(async () => {
    if (start >= bytes.length) return null;
    const length = lengths[turn++ % lengths.length] ?? 1;
    const chunk = bytes.subarray(start, start + length);
    start += length;
    return chunk;
  });
}

/** A log line, an activity and a whole path info: a reply with every kind of word in it. */
const REPLY = Buffer.concat([
  ...[
    log("some line"),
    int(0x53545254),
    int(1),
    int(3),
    int(105),
    str("activity"),
    int(2),
    int(0),
    int(5),
    int(1),
    str("x"),
    int(0),
  ],
  ...[
    LAST,
    int(1),
    str(`${lib}.drv`),
    str("ab".repeat(32)),
    strs(lib),
    int(1),
    int(120),
    int(0),
    strs("k:c2ln"),
    str("text:x"),
  ],
]);

async function readAll(reader: ByteReader): Promise<unknown> {
  const reply = await readReply(reader);
  return reply.kind === "refused" ? reply.report : await readValidPath(reader, lib);
}

describe("words", () => {
  test("come back as they were, however they are split", async () => {
    const word = fc.oneof(
      fc.nat({ max: Number.MAX_SAFE_INTEGER }),
      fc.string({ unit: "binary" }),
      fc.array(fc.string()),
    );
    const lengths = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 });
    await fc.assert(
      fc.asyncProperty(fc.array(word), lengths, async (words, chunkLengths) => {
        const encoder = new WireEncoder();
        for (const value of words) {
          if (typeof value === "number") encoder.int(value);
          else if (typeof value === "string") encoder.text(value);
          else encoder.texts(value);
        }
        const reader = readerOf(encoder.finish(), chunkLengths);
        for (const value of words) {
          if (typeof value === "number") expect(await reader.readInt()).toBe(value);
          else if (typeof value === "string") expect(await reader.readText(1_000)).toBe(Buffer.from(value).toString());
          else
            expect(await reader.readTexts({ maxLength: 100, textMaxBytes: 1_000 })).toEqual(
              value.map((text) => Buffer.from(text).toString()),
            );
        }
        await expect(reader.readInt()).rejects.toBeInstanceOf(ConnectionLostError);
      }),
      { numRuns: 50 },
    );
  });

  test("are the bytes that Nix has", () => {
    const bytes = new WireEncoder().int(258).bool(true).text("abc").texts(["12345678", ""]).finish();
    expect(Buffer.from(bytes)).toEqual(Buffer.concat([int(258), int(1), str("abc"), strs("12345678", "")]));
  });

  test.each([{ value: -1 }, { value: 0.5 }, { value: 2 ** 53 }, { value: Number.NaN }])(
    "cannot be $value",
    ({ value }) => {
      expect(() => new WireEncoder().int(value)).toThrow(RangeError);
    },
  );

  test("bytes put back are read next", async () => {
    const reader = readerOf(Buffer.concat([int(1), int(2)]));
    const chunk = await reader.readSome();
    reader.unread(chunk.subarray(8));
    expect(await reader.readInt()).toBe(2);
  });
});

describe("a reply", () => {
  test("is the same one byte at a time", async () => {
    expect(await readAll(readerOf(REPLY, [1]))).toEqual(await readAll(readerOf(REPLY)));
  });

  test("cut anywhere is a lost connection", async () => {
    for (let length = 0; length < REPLY.length; length++) {
      await expect(readAll(readerOf(REPLY.subarray(0, length)))).rejects.toBeInstanceOf(ConnectionLostError);
    }
  });

  test("with any byte flipped is read or refused, never anything else", async () => {
    for (const whole of [REPLY, errorReply("no", ["because"])]) {
      for (let offset = 0; offset < whole.length; offset++) {
        const flipped = Buffer.from(whole);
        flipped[offset] = (flipped[offset] ?? 0) ^ 0xff;
        const outcome = await readAll(readerOf(flipped)).catch((error: unknown) => error);
        if (outcome instanceof Error) {
          const isExpected = [ConnectionLostError, ProtocolError, NixParseError].some(
            (type) => outcome instanceof type,
          );
          if (!isExpected) throw new Error(`byte ${offset}: ${Bun.inspect(outcome)}`);
        }
      }
    }
  });
});
