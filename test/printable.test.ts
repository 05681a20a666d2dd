/** Nothing that is printed for people is obeyed by their terminal. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { cleanLine, cleanLines, cleanPlain, formatJson } from "../src/printable.ts";
import { EXAMPLE_HASH_PART } from "./support/deployment-example.ts";
import { FAKE_TOKEN, type FakeCoordinator, startFakeCoordinator } from "./support/fake-coordinator.ts";
import { waitFor } from "./support/wait-for.ts";

/** What a terminal obeys, colors taken away before. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;
const COLORS = new RegExp(`${String.fromCharCode(27)}[[0-9;]*m`, "g");
const findObeyed = (text: string) => OBEYED.exec(text.replaceAll(COLORS, ""));

/** Clears the screen, sets the title, writes the clipboard, asks for an answer, rings, goes back, turns around. */
const ATTACKS = [
  "\u001b[2J\u001b[H",
  "\u001b]0;title\u0007",
  "\u001b]52;c;ZXZpbA==\u001b\\",
  "\u001b[6n\u001bP$q\u001b\\",
  "\u009b2J\u009d0;title\u009c",
  "fine\rforged\b\b\u007f",
  "\u202egnp.exe\u2066",
];
const ALL = ATTACKS.join(" ");

test.each([
  ["plain", "plain"],
  ["tab\tstays", "tab\tstays"],
  ["\u001b[31mred", "\u001b[31mred\u001b[0m"],
  ["\u001b[31mred\u001b[0m", "\u001b[31mred\u001b[0m"],
  ["a\rb\u0007\u009bc", "abc"],
  ["\u001b]0;title\u0007", "]0;title"],
  ["\u001b\u001b[2J\u001b[1;31mx", "[2J\u001b[1;31mx\u001b[0m"],
  ["\u202eabc\u2069", "abc"],
  ["one\ntwo", "onetwo"],
])("cleanLine(%j)", (text, expected) => {
  expect(cleanLine(text)).toBe(expected);
  expect(cleanLine(expected)).toBe(expected);
});

test("lines stay lines; what stands between other things is one line without colors", () => {
  expect(cleanLines("\u001b[31mone\n\u001b[2Jtwo\n")).toBe("\u001b[31mone\u001b[0m\n[2Jtwo\n");
  expect(cleanPlain(" \u001b[31mone\r\n\ttwo\u0007 ")).toBe("one two");
});

test("no text is obeyed, whatever it is made of", () => {
  const piece = fc.constantFrom("\u001b", "[", "]", "0;", "m", "2J", "\u009b", "\u0007", "\r", "\u202e", "a", "\t");
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
      const text = pieces.join("");
      for (const cleaned of [cleanLine(text), cleanLines(text), cleanPlain(text)]) {
        expect(findObeyed(cleaned)).toBeNull();
      }
      expect(findObeyed(formatJson({ text }, 2))).toBeNull();
      expect(JSON.parse(formatJson({ text }))).toEqual({ text });
    }),
    { numRuns: 2_000 },
  );
});

describe("the program itself", () => {
  const SYSTEM = `/nix/store/${EXAMPLE_HASH_PART}-system`;
  const START = join(import.meta.dir, "../src/start.ts");

  async function run(fake: FakeCoordinator, env: Readonly<Record<string, string>>, ...words: readonly string[]) {
    const child = Bun.spawn([process.execPath, START, ...words], {
      env: { PATH: process.env["PATH"] ?? "", NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN, ...env },
      ...{ stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    });
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { stdout, stderr, both: `${stdout}${stderr}` };
  }

  test("whatever a device says of itself, no command prints what a terminal obeys", async () => {
    await using fake = startFakeCoordinator();
    const facts = { agentVersion: ALL, versionStatus: "outdated", system: ALL, failedUnits: [ALL, "a\nnuc  online"] };
    fake.addAgent("nuc", "online", { ...facts, failedUnitCount: 2 });
    await run(fake, {}, "activate", "--async", `nuc=${SYSTEM}`);
    fake.appendLog("nuc", ...ATTACKS);
    fake.setDeployment("nuc", { state: "failed", reason: ALL });
    const outputs = await Promise.all(
      [["agents"], ["status"], ["agents", "--json"], ["logs", "nuc"], ["logs", "nuc", "--json"]].map(
        async (words) => [words, await run(fake, {}, ...words)] as const,
      ),
    );
    const follow = run(fake, {}, "activate", "--description", "x", `nuc=${SYSTEM}`);
    await waitFor("it to follow", () => fake.followers > 0, { timeoutMs: 30_000 });
    fake.appendLog("nuc", ...ATTACKS, "\u001b[32mgreen");
    fake.setDeployment("nuc", { state: "failed", reason: ALL });
    for (const [words, { both }] of [...outputs, [["activate"], await follow] as const]) {
      expect([words, findObeyed(both)]).toEqual([words, null]);
      // It was there to be seen.
      expect(both).toContain("forged");
    }
    const [table] = outputs.map(([, { stdout }]) => stdout);
    expect(table?.trimEnd().split("\n")).toHaveLength(2);
    const colored = await run(fake, {}, "logs", "nuc");
    expect(colored.stdout).toContain("\u001b[32mgreen\u001b[0m\n");
    const plain = await run(fake, { NO_COLOR: "1" }, "logs", "nuc");
    expect(plain.stdout).toContain("\ngreen\n");
  }, 60_000);

  test("nor what an answer of the coordinator, or of what stands before it, says", async () => {
    await using fake = startFakeCoordinator();
    fake.intercept = async () =>
      Response.json(
        { type: "about:blank", title: ALL, status: 422, detail: ALL, hint: ALL, errors: [ALL] },
        { status: 422, headers: { "content-type": "application/problem+json" } },
      );
    const commands = [["agents"], ["agents", "--log-format", "json"], ["activate", `nuc=${SYSTEM}`, "--verbose"]];
    const outputs = await Promise.all(commands.map((words) => run(fake, {}, ...words)));
    for (const [index, { both }] of outputs.entries()) {
      expect([commands[index], findObeyed(both)]).toEqual([commands[index], null]);
      expect(both).toContain("forged");
    }
  }, 60_000);
});
