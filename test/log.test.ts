import { describe, expect, test } from "bun:test";
import { createLogger, type LoggerOptions } from "../src/log.ts";

function captureLines(options: Partial<LoggerOptions> = {}) {
  const lines: string[] = [];
  return {
    lines,
    log: createLogger({ verbose: false, format: "text", write: (line) => lines.push(line), ...options }),
  };
}

describe("text", () => {
  test("one line each, with the level unless it is info", () => {
    const { lines, log } = captureLines();
    log.error("e");
    log.warn("w");
    log.info("i");
    expect(lines).toEqual(["error: e", "warn: w", "i"]);
  });

  test("fields follow, quoted where they must be", () => {
    const { lines, log } = captureLines();
    log.info("agent connected", { name: "nuc", n: 3, ok: true, none: null, text: 'a "b"', pair: "a=b" });
    expect(lines).toEqual(['agent connected name=nuc n=3 ok=true none=null text="a \\"b\\"" pair="a=b"']);
  });

  test("a value with a line break stays on its line", () => {
    const { lines, log } = captureLines();
    log.warn("agent reports an error", { message: "one\nwarn: forged" });
    expect(lines.join("\n").split("\n")).toHaveLength(1);
  });

  test("the same line twice is two lines", () => {
    const { lines, log } = captureLines();
    for (let n = 0; n < 20; n += 1) log.info("again");
    expect(lines).toHaveLength(20);
  });
});

describe("debug", () => {
  for (const verbose of [false, true]) {
    test(verbose ? "is shown when verbose" : "is left out", () => {
      const { lines, log } = captureLines({ verbose });
      log.debug("detail");
      expect(lines).toEqual(verbose ? ["debug: detail"] : []);
    });
  }
});

test("json: one object per line", () => {
  const { lines, log } = captureLines({ format: "json" });
  log.warn("two\nlines", { id: "x", size: 5 });
  expect(lines).toHaveLength(1);
  const parsed: unknown = JSON.parse(lines[0] ?? "");
  expect(parsed).toMatchObject({ level: "warn", message: "two\nlines", id: "x", size: 5 });
  expect(parsed).toHaveProperty("time", expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/));
});
