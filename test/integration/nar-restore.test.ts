/**
 * What our NAR reader lets pass, every Nix unpacks, and packs again into the same bytes: hand-made NARs at the limits,
 * and golden ones with random damage. The coordinator stores only what the reader accepts, so this is what keeps a
 * closure from being uploaded that no device can import.
 */
import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { encodeNar, type NarTree } from "../../src/nix/nar/nar-writer.ts";
import { createChance, createMutator } from "../adversarial/mutator.ts";
import type { Parser } from "../adversarial/parser.ts";
import { PARSERS } from "../adversarial/parsers.ts";
import { ensureNixOf, NIX_SUITES } from "../support/nix-versions.ts";
import { runChecked } from "../support/processes.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

setDefaultTimeout(300_000);

const DAMAGED_COUNT = 30;
const file = (text: string): NarTree => ({ type: "regular", executable: false, contents: Buffer.from(text) });
const directory = (entries: Readonly<Record<string, NarTree>>): NarTree => ({
  type: "directory",
  entries: new Map(Object.entries(entries)),
});
const narOf = (tree: NarTree) => new Uint8Array(Buffer.concat([...encodeNar(tree)]));

let deepest = file("x");
for (let depth = 0; depth < 63; depth += 1) deepest = directory({ d: deepest });

/** Names and targets have one character per byte. */
const atTheLimits: Readonly<Record<string, NarTree>> = {
  "names that differ in case": directory({
    README: file("1"),
    Readme: file("2"),
    readme: file("3"),
    ReadMe: directory({}),
  }),
  "names like the case hack's": directory({ a: file("1"), "a~nix~case~hack~1": file("2"), A: file("3") }),
  "names that are not UTF-8": directory({
    "\xff\xfe": file("1"),
    "\xc3": file("2"),
    "\xc3\x28": file("3"),
    "\x80": directory({}),
  }),
  "names that are one letter spelled in two ways": directory({ "\xc3\xa9": file("1"), "e\xcc\x81": file("2") }),
  "names of control characters and spaces": directory({
    "\n": file("1"),
    "\x7f": file("2"),
    " ": file("3"),
    "\x01": file("4"),
  }),
  "names that look like flags and paths": directory({
    "-rf": file("1"),
    "...": file("2"),
    "\\": file("3"),
    "~": file("4"),
    ".a": file("5"),
  }),
  "the longest name": directory({ ["x".repeat(255)]: file("1") }),
  "a target that is not UTF-8": { type: "symlink", target: "\xff/../\n" },
  "the longest target": { type: "symlink", target: "x".repeat(4095) },
  "the deepest tree": deepest,
};

let damaged: readonly Uint8Array[] = [];

beforeAll(async () => {
  damaged = await makeDamagedNars();
});

describe("what the reader accepts", () => {
  for (const suite of NIX_SUITES) {
    test(`is what the Nix of ${suite} restores, and dumps again`, async () => {
      const nix = await ensureNixOf(suite);
      await using temporary = await createTemporaryDirectory("restore");
      await mkdir(temporary.join("conf"));
      const nars = [...Object.values(atTheLimits).map(narOf), ...damaged];
      for (const [index, nar] of nars.entries()) await writeFile(temporary.join(`${index}.nar`), nar);
      const output = await runChecked(["sh", "-c", RESTORE_ALL], {
        cwd: temporary.path,
        env: { NIX_STORE: `${nix.binDirectory}/nix-store`, NIX_CONF_DIR: temporary.join("conf") },
      });
      expect(output.trim().split("\n")).toEqual(nars.map((_, index) => `${index} same`));
    });
  }

  test("is all of the hand-made ones", async () => {
    for (const tree of Object.values(atTheLimits)) {
      expect(await narParser().examine(narOf(tree))).toEqual({ kind: "accepted" });
    }
  });
});

const RESTORE_ALL = `
i=0
while test -e "$i.nar"; do
  "$NIX_STORE" --restore "$i.out" < "$i.nar" && "$NIX_STORE" --dump "$i.out" | cmp - "$i.nar" && echo "$i same" || echo "$i differs"
  i=$((i + 1))
done`;

function narParser(): Parser {
  const parser = PARSERS.find(({ name }) => name === "nar");
  if (parser === undefined) throw new Error("the table has no NAR reader");
  return parser;
}

/** Other NARs than the golden ones, made of them by chance, that the reader accepts. */
async function makeDamagedNars(): Promise<Uint8Array[]> {
  const parser = narParser();
  const mutator = createMutator(parser, createChance(1));
  const known = new Set(parser.samples.map((sample) => Buffer.from(sample).toString("base64")));
  const nars: Uint8Array[] = [];
  for (let tries = 0; tries < 200_000 && nars.length < DAMAGED_COUNT; tries += 1) {
    const nar = mutator.next();
    const key = Buffer.from(nar).toString("base64");
    if (known.has(key) || (await parser.examine(nar)).kind === "refused") continue;
    known.add(key);
    nars.push(nar);
  }
  expect(nars).toHaveLength(DAMAGED_COUNT);
  return nars;
}
