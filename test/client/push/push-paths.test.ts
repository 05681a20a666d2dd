/** The paths that `push` and `copy` are given: what counts as one, where they come from, and how much of it. */
import { expect, test } from "bun:test";
import { readPushPaths } from "../../../src/client/push/push-paths.ts";
import { EXAMPLE_HASH_PART } from "../../support/deployment-example.ts";
import { failureOf } from "../../support/failure.ts";

const [ONE, TWO] = ["one", "two"].map((name) => `/nix/store/${EXAMPLE_HASH_PART}-${name}`);
const MIB = new Uint8Array(1024 * 1024).fill(0x20);

async function* bytesOf(...chunks: readonly (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) yield typeof chunk === "string" ? Buffer.from(chunk) : chunk;
}

const read = async (words: readonly string[], readStdin = () => bytesOf(), verb?: "push" | "copy") =>
  (await readPushPaths({ words, readStdin, cwd: "/", ...(verb === undefined ? {} : { verb }) })).map(String);

test("arguments are taken in their order, each once, and standard input is left alone then", async () => {
  const untouched = () => {
    throw new Error("nobody reads this");
  };
  expect(await read([`${TWO}`, `${ONE}/bin/one`, `${TWO}`], untouched)).toEqual([`${TWO}`, `${ONE}`]);
});

test("words on standard input, however they are cut and separated", async () => {
  const text = `\n${ONE}  ${TWO}\t\r\n`;
  for (let at = 0; at <= text.length; at += 7) {
    expect(await read([], () => bytesOf(text.slice(0, at), text.slice(at)))).toEqual([`${ONE}`, `${TWO}`]);
  }
});

test("as much of it as a store has paths, and no more", async () => {
  const spaces = (count: number) => () => bytesOf(...Array.from({ length: count }, () => MIB), `${ONE}`);
  expect(await read([], spaces(63))).toEqual([`${ONE}`]);
  const error = await failureOf(read([], spaces(64)));
  expect([error.kind, error.message]).toEqual([
    "usage",
    `cannot read the paths from standard input: it has more than ${64 * MIB.length} bytes`,
  ]);
});

test("input that breaks is no end of the list", async () => {
  async function* breaking() {
    yield Buffer.from(`${ONE}\n`);
    throw new Error("EIO");
  }
  expect((await failureOf(read([], breaking))).message).toContain("EIO");
});

test.each([
  ["push", "nixdeploy push ./result"],
  ["copy", "nixdeploy copy --to ssh://root@nuc ./result"],
] as const)("nothing at all is said with an example: %s", async (verb, example) => {
  const error = await failureOf(read([], undefined, verb));
  expect(error.message).toBe(`cannot ${verb}: no path was given, neither as an argument nor on standard input`);
  expect(error.hint).toContain(example);
});

test("a cache's name before the paths, as with Cachix, is told how to be given; copy has no caches", async () => {
  expect((await failureOf(read(["mine", `${ONE}`]))).hint).toContain(`nixdeploy push --cache mine ${ONE}`);
  expect((await failureOf(read(["mine"]))).hint).toContain("nixdeploy push --cache mine ./result");
  expect((await failureOf(read(["mine", `${ONE}`], undefined, "copy"))).hint ?? "").not.toContain("--cache");
});
