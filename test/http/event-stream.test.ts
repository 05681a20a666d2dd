import { expect, test } from "bun:test";
import fc from "fast-check";
import { createEventStreamParser, EVENT_CHARACTERS_MAX, type ServerSentEvent } from "../../src/http/event-stream.ts";

function parse(text: string, cut: (bytes: Uint8Array) => Uint8Array[] = (bytes) => [bytes]): ServerSentEvent[] {
  const parser = createEventStreamParser();
  return cut(new TextEncoder().encode(text)).flatMap((chunk) => parser.push(chunk));
}

const eachByte = (bytes: Uint8Array) => Array.from(bytes, (_, index) => bytes.subarray(index, index + 1));

const CASES: readonly (readonly [what: string, text: string, events: readonly ServerSentEvent[]])[] = [
  ["a whole event", "id: 7\nevent: log\ndata: {}\n\n", [{ id: "7", event: "log", data: "{}" }]],
  ["no event name", "data: x\n\n", [{ id: null, event: "message", data: "x" }]],
  ["several data lines", "data: a\ndata:\ndata: b\n\n", [{ id: null, event: "message", data: "a\n\nb" }]],
  ["one space is cut, two are not", "data:  x\n\n", [{ id: null, event: "message", data: " x" }]],
  ["no colon", "data\n\n", [{ id: null, event: "message", data: "" }]],
  [
    "comments and unknown fields",
    ": hello\nretry: 5\nfoo: bar\ndata: x\n\n",
    [{ id: null, event: "message", data: "x" }],
  ],
  ["no data: no event", "event: log\n\n: only a comment\n\n", []],
  ["an id stays", "id: 1\ndata: a\n\ndata: b\n\n", ["a", "b"].map((data) => ({ id: "1", event: "message", data }))],
  ["an event name does not stay", "event: x\n\ndata: a\n\n", [{ id: null, event: "message", data: "a" }]],
  ["an id with NUL is ignored", "id: a\0b\ndata: x\n\n", [{ id: null, event: "message", data: "x" }]],
  [
    "carriage returns",
    "data: a\r\rdata: b\r\n\r\n: end\n",
    ["a", "b"].map((data) => ({ id: null, event: "message", data })),
  ],
  ["a byte order mark", "\ufeffdata: x\n\n", [{ id: null, event: "message", data: "x" }]],
  ["letters of several bytes", "data: zürich ✓ 🚀\n\n", [{ id: null, event: "message", data: "zürich ✓ 🚀" }]],
  ["an unfinished event is not an event", "data: x\n", []],
];
for (const [what, text, events] of CASES) {
  test(what, () => {
    expect(parse(text)).toEqual([...events]);
  });

  test(`${what}, byte by byte`, () => {
    expect(parse(text, eachByte)).toEqual([...events]);
  });
}

test("what is formatted comes back, however it is cut", () => {
  const line = fc.string({ unit: "grapheme" }).map((text) => text.replace(/[\r\n\0]/g, ""));
  const messages = fc.array(fc.record({ id: line, event: line, data: fc.array(line, { minLength: 1 }) }));
  fc.assert(
    fc.property(messages, fc.infiniteStream(fc.integer({ min: 1, max: 9 })), (events, sizes) => {
      const text = events.map(
        ({ id, event, data }) => `id: ${id}\nevent: ${event}\n${data.map((each) => `data: ${each}\n`).join("")}\n`,
      );
      const cut = (bytes: Uint8Array): Uint8Array[] => {
        const chunks: Uint8Array[] = [];
        for (let rest = bytes; rest.length > 0; rest = rest.subarray(chunks.at(-1)?.length)) {
          chunks.push(rest.subarray(0, sizes.next().value));
        }
        return chunks;
      };
      const wanted = events.map(({ id, event, data }) => ({ id, event: event || "message", data: data.join("\n") }));
      expect(parse(text.join(""), cut)).toEqual(wanted);
    }),
  );
});

test("an endless line is refused", () => {
  const parser = createEventStreamParser();
  const chunk = new Uint8Array(EVENT_CHARACTERS_MAX / 4).fill(0x61);
  expect(() => [1, 2, 3, 4, 5].map(() => parser.push(chunk))).toThrow("an event is longer than");
});

test("an endless event is refused", () => {
  const parser = createEventStreamParser();
  const chunk = new TextEncoder().encode(`data: ${"a".repeat(EVENT_CHARACTERS_MAX / 4)}\n`);
  expect(() => [1, 2, 3, 4, 5].map(() => parser.push(chunk))).toThrow("an event is longer than");
});

test("an endless event of empty lines is refused", () => {
  const parser = createEventStreamParser();
  const chunk = new TextEncoder().encode("data\n".repeat(EVENT_CHARACTERS_MAX / 4));
  expect(() => [1, 2, 3, 4, 5].map(() => parser.push(chunk))).toThrow("an event is longer than");
});

test("a long line in small chunks is looked through once", () => {
  const parser = createEventStreamParser();
  const chunk = new Uint8Array(64).fill(0x61);
  const before = process.cpuUsage();
  for (let bytes = 0; bytes < EVENT_CHARACTERS_MAX; bytes += chunk.length) parser.push(chunk);
  const { user, system } = process.cpuUsage(before);
  // Looking at all of it again for each chunk took more than a minute.
  expect((user + system) / 1000).toBeLessThan(3_000);
});
