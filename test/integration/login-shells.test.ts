/** What ssh hands to a login shell over there arrives word by word, whichever shell that is. */
import { beforeAll, expect, test } from "bun:test";
import { quoteShellWord, remoteCommand } from "../../src/client/ssh/shell-words.ts";
import { ensureDebianPackages } from "../support/debian.ts";

const SHELLS = ["sh", "bash", "zsh", "fish", "tcsh", "busybox sh"];

beforeAll(() => ensureDebianPackages(["zsh", "fish", "tcsh", "busybox"]), 300_000);

test.each([
  ["/nix/store/x-y", "/nix/store/x-y"],
  ["", "''"],
  ["a b", "'a b'"],
  ["it's", "'it'\\''s'"],
  ["=x", "'=x'"],
])("the word %j is quoted as %j", (word, quoted) => {
  expect(quoteShellWord(word)).toBe(quoted);
});

test.each([
  "plain",
  "",
  "a b",
  "$(id) `id` ;&|<>*?[~#!",
  "it's",
  "'",
  "=x",
  "-n",
  "\\",
  "a\\'b\\\\",
  "\\0101 \\n \\c",
  "!! !x ^a^b",
  "100%s %b",
  "two\nlines\n\n",
  "\ttab\u007f",
  "ñ → 𝕏",
  `{a,b} $0 $$ $\{x} "q"`,
])("%j comes through every login shell as it is", async (word) => {
  for (const shell of SHELLS) {
    const line = remoteCommand(["printf", "<%s>", word, "next", word]);
    // As sshd calls it.
    const child = Bun.spawn([...shell.split(" "), "-c", line], { stderr: "pipe" });
    const [stdout, stderr] = [await child.stdout.text(), await child.stderr.text()];
    expect({ shell, stdout, stderr }).toEqual({ shell, stdout: `<${word}><next><${word}>`, stderr: "" });
  }
});

test("standard input is left for the program, and its exit code is told", async () => {
  const scripts = ["read -r first; cat; exit 7"];
  for (const shell of SHELLS) {
    const line = remoteCommand(["sh", "-c", ...scripts]);
    const child = Bun.spawn([...shell.split(" "), "-c", line], { stdin: Buffer.from("one\ntwo\n") });
    expect({ shell, stdout: await child.stdout.text(), code: await child.exited }).toEqual({
      ...{ shell, stdout: "two\n", code: 7 },
    });
  }
});
