/** Every registered command is declared so that parser and help can trust it. */
import { describe, expect, test } from "bun:test";
import { flagNameOf, listCommands, type NixdeployCommand } from "../../src/commands/command-line/args.ts";
import { COMMON_ARGS } from "../../src/commands/command-line/common-args.ts";
import { parseArgs } from "../../src/commands/command-line/parse-args.ts";
import { COMMANDS } from "../../src/commands/root.ts";
import { NixdeployError } from "../../src/errors.ts";

const loaded = await Promise.all(COMMANDS.map(async (entry) => ({ entry, command: (await entry.load()).command })));
const leaves: readonly NixdeployCommand[] = loaded.flatMap(({ command }) => listCommands(command));

for (const { entry, command } of loaded) {
  test(`${entry.name}: the list of commands says what its file says`, () => {
    expect({ name: command.name, summary: command.summary }).toEqual({ name: entry.name, summary: entry.summary });
    if (command.kind === "group") {
      expect(command.commands.every(({ name }) => name.startsWith(`${command.name} `))).toBeTrue();
      expect(command.alone?.name ?? command.name).toBe(command.name);
    }
  });
}

describe.each(leaves.map((command) => [command.name, command] as const))("%s", (_, command) => {
  test("texts are one line, begin with a capital and have no full stop", () => {
    const args = Object.values(command.args);
    const texts = [
      command.summary,
      ...[...args, ...Object.values(command.positionals)].map((each) => each.description),
    ];
    for (const text of texts) {
      expect(text).toMatch(/^[A-Z/][^\n]*[^.\n]$/);
    }
  });

  test("no flag is there twice, or is one of the common flags", () => {
    const names = Object.entries({ ...command.args }).map(([key, declaration]) => flagNameOf(key, declaration));
    const common = Object.entries(COMMON_ARGS).map(([key, declaration]) => flagNameOf(key, declaration));
    const all = [...names, ...common, "help", "version"];
    expect(all).toEqual([...new Set(all)]);
    expect(Object.keys(command.args).filter((key) => key in command.positionals || key in COMMON_ARGS)).toEqual([]);
  });

  test("no positional follows one that takes all the rest, or a required one an optional one", () => {
    const positionals = Object.values(command.positionals);
    expect(positionals.slice(0, -1).filter(({ repeatable }) => repeatable === true)).toEqual([]);
    expect(
      positionals.filter(
        ({ required }, index) =>
          required === true && positionals[index - 1] !== undefined && positionals[index - 1]?.required !== true,
      ),
    ).toEqual([]);
  });

  test("the defaults are values that it accepts", () => {
    const withDefault = Object.entries(command.args).filter(([, each]) => each.type !== "boolean" && each.default);
    const args = Object.fromEntries(withDefault);
    expect(() => parseArgs({ ...command, args, positionals: {} }, [])).not.toThrow(NixdeployError);
  });
});
