/** What is written as a sentence, and whose names keep their own spelling at its beginning. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { capitalizeFirst, formatSentence } from "../src/sentence.ts";

const SENTENCES = [
  ["the check failed", "The check failed."],
  ["a cancel asked to go back", "A cancel asked to go back."],
  ["unexpectedly: no such file", "Unexpectedly: no such file."],
  ["it's not there", "It's not there."],
  ["Already one.", "Already one."],
  ["did it end?", "Did it end?"],
  ["stop!", "Stop!"],
  ["ENOSPC: no space left", "ENOSPC: no space left."],
  ["", ""],
  // Programs
  ["switch-to-configuration test ended with code 1", "switch-to-configuration test ended with code 1."],
  ["systemctl restart web.service ended with code 1", "systemctl restart web.service ended with code 1."],
  ["nixdeploy: not found", "nixdeploy: not found."],
  ["nix-env was ended by SIGKILL", "nix-env was ended by SIGKILL."],
  ["systemd-run ended with code 1", "systemd-run ended with code 1."],
  // Paths, units, flags, quotations, hosts
  ["/nix/store/x-nuc is live", "/nix/store/x-nuc is live."],
  ["./result is no store path", "./result is no store path."],
  ["web.service did not start", "web.service did not start."],
  ["getty@tty1.service did not start", "getty@tty1.service did not start."],
  ["--expires is too short", "--expires is too short."],
  ["`nuc` is no name", "`nuc` is no name."],
  ["nuc42 is offline", "nuc42 is offline."],
  ["https://example.org refused", "https://example.org refused."],
  ["élan", "élan."],
] as const;

test.each(SENTENCES)("%p", (text, sentence) => {
  expect(formatSentence(text)).toBe(sentence);
});

describe("whatever the text is", () => {
  test("only the first letter and the end change, and a sentence stays what it is", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const sentence = formatSentence(text);
        expect(formatSentence(sentence)).toBe(sentence);
        expect(sentence.slice(1, text.length)).toBe(text.slice(1));
        expect(sentence.length - text.length).toBeOneOf([0, 1]);
        expect(sentence.startsWith(capitalizeFirst(text))).toBe(true);
      }),
    );
  });
});
