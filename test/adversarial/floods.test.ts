/** 1 MiB of anything is answered within a second of the processor, by every parser, and in few words. */
import { test } from "bun:test";
import { floods } from "./floods.ts";
import type { Parser } from "./parser.ts";
import { PARSERS } from "./parsers.ts";

const CPU_MAX_MS = 1_000;
/** General floods are told from each other by their first part; the parser's own ones are examined whole. */
const EXAMINED_BYTES = 10_000;

for (const parser of PARSERS) {
  test(parser.name, async () => {
    for (const { name, bytes } of floods(parser)) {
      const spentMs = await cpuMsOf(parser, bytes);
      if (spentMs > CPU_MAX_MS) throw new Error(`${name}: ${Math.round(spentMs)} ms of the processor`);
      const part = name in parser.floods ? bytes : bytes.subarray(0, EXAMINED_BYTES);
      await parser.examine(part).catch((cause: unknown) => {
        throw new Error(`${name}: ${cause instanceof Error ? cause.message : cause}`, { cause });
      });
    }
  }, 240_000);
}

/** The least of three tries, because other processes and the garbage collector disturb. */
async function cpuMsOf(parser: Parser, input: Uint8Array): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 3 && least > CPU_MAX_MS; attempt += 1) {
    const before = process.cpuUsage();
    await parser.run(input);
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}
