/**
 * Random damage to the samples of every parser, and all past findings again.
 *
 *   FUZZ_SECONDS=600 FUZZ_SEED=7 bun test test/adversarial/fuzz.test.ts        a long run, and one that can be repeated
 *
 * Without these: a fixed number of inputs of a fixed seed; a long run draws its seed, and prints it. What breaks a rule is written into
 * corpus/ (see its README), shortened first, and fails the test.
 */
import { describe, expect, test } from "bun:test";
import { loadCorpus, saveFinding } from "./corpus.ts";
import { createChance, createMutator } from "./mutator.ts";
import type { Parser } from "./parser.ts";
import { PARSERS } from "./parsers.ts";

const INPUTS_IN_CI = 1_000;
const INPUT_CPU_MAX_MS = 500;
const SHORTENINGS_MAX = 2_000;

const seconds = Number(process.env["FUZZ_SECONDS"] ?? 0);
/** A short run repeats itself, so that it fails for who broke something; long runs look for what is new. */
const seedByDefault = seconds === 0 ? 1 : Math.floor(Math.random() * 2 ** 31);
const seed = Number(process.env["FUZZ_SEED"] ?? seedByDefault);

describe("past findings", () => {
  test("each is explained", async () => {
    const readme = await Bun.file(`${import.meta.dir}/corpus/README.md`).text();
    for (const { parser, name } of loadCorpus()) expect(readme).toContain(`| \`${parser}/${name}\` |`);
  });

  for (const { parser: name, name: file, input } of loadCorpus()) {
    test(`${name}/${file}`, async () => {
      const parser = PARSERS.find((candidate) => candidate.name === name);
      if (parser === undefined) throw new Error(`no parser is called ${name}`);
      expect(await findFault(parser, input)).toBeNull();
    });
  }
});

describe(`random damage, FUZZ_SEED=${seed}`, () => {
  for (const [index, parser] of PARSERS.entries()) {
    const milliseconds = (seconds * 1000) / PARSERS.length;
    test(
      parser.name,
      async () => {
        const mutator = createMutator(parser, createChance(seed + index));
        const untilMs = performance.now() + milliseconds;
        const countMin = Math.ceil(INPUTS_IN_CI / parser.costFactor);
        for (let count = 0; count < countMin || performance.now() < untilMs; count += 1) {
          const input = mutator.next();
          const fault = await findFault(parser, input);
          if (fault !== null) await report(parser, input, fault);
        }
      },
      milliseconds * 4 + 60_000,
    );
  }
});

async function findFault(parser: Parser, input: Uint8Array): Promise<string | null> {
  const before = process.cpuUsage();
  try {
    await parser.examine(input);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const { user, system } = process.cpuUsage(before);
  const spentMs = (user + system) / 1000;
  return spentMs > INPUT_CPU_MAX_MS ? `took ${Math.round(spentMs)} ms of the processor` : null;
}

/** @throws Error with the fault, unless it does not come back: one slow answer may be the machine's doing */
async function report(parser: Parser, input: Uint8Array, fault: string): Promise<void> {
  if ((await findFault(parser, input)) === null) return;
  const shorter = await shorten(parser, input);
  const file = saveFinding(parser.name, shorter);
  const shown = Bun.inspect(Buffer.from(shorter).toString("latin1")).slice(0, 1_000);
  throw new Error(`${parser.name}: ${fault}\n${shown}\n${file ?? "in the corpus already"}, FUZZ_SEED=${seed}`);
}

/** Takes pieces away, ever smaller ones, as long as the input still breaks a rule. */
async function shorten(parser: Parser, input: Uint8Array): Promise<Uint8Array> {
  let shortest = input;
  let tries = 0;
  for (let length = input.length >> 1; length > 0 && tries < SHORTENINGS_MAX; length >>= 1) {
    for (let at = 0; at < shortest.length && tries < SHORTENINGS_MAX; tries += 1) {
      const candidate = new Uint8Array([...shortest.subarray(0, at), ...shortest.subarray(at + length)]);
      if ((await findFault(parser, candidate)) === null) at += length;
      else shortest = candidate;
    }
  }
  return shortest;
}
