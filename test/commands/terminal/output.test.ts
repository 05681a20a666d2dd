import { expect, test } from "bun:test";
import { createStyle, formatTable, printResult } from "../../../src/commands/terminal/output.ts";

function collect(json: boolean) {
  const written: string[] = [];
  const stdout = { isTerminal: false, write: async (text: string) => void written.push(text) };
  return { context: { json, stdout }, written };
}

test("text ends with one newline, and nothing prints nothing", async () => {
  const { context, written } = collect(false);
  await printResult(context, { json: {}, text: "one" });
  await printResult(context, { json: {}, text: "two\n" });
  await printResult(context, { json: {}, text: "" });
  expect(written).toEqual(["one\n", "two\n"]);
});

test("--json prints the document", async () => {
  const { context, written } = collect(true);
  await printResult(context, { json: { id: 1 }, text: "" });
  expect(JSON.parse(written.join(""))).toEqual({ id: 1 });
});

test("columns are aligned by what is seen, without blanks at the end", () => {
  const green = createStyle({ isTerminal: true, env: {} }).green;
  expect(
    formatTable(
      ["name", "state"],
      [
        [green("nuc"), "online"],
        ["näher-日本", ""],
      ],
    ),
  ).toBe(["NAME        STATE", `${green("nuc")}\u001b[0m         online`, "näher-日本"].join("\n"));
});

for (const [what, isTerminal, env] of [
  ["no terminal", false, {}],
  ["NO_COLOR", true, { NO_COLOR: "1" }],
  ["a dumb terminal", true, { TERM: "dumb" }],
] as const) {
  test(`no colors: ${what}`, () => {
    expect(createStyle({ isTerminal, env }).red("x")).toBe("x");
  });
}

test("an empty NO_COLOR counts as unset", () => {
  expect(createStyle({ isTerminal: true, env: { NO_COLOR: "" } }).red("x")).toBe("\u001b[31mx\u001b[39m");
});
