/** The texts of `--help`: plain, aligned, the same on a terminal and in a file. */
import {
  type ArgDeclaration,
  type ArgDeclarations,
  flagNameOf,
  type NixdeployCommand,
  type NixdeployGroup,
} from "./args.ts";
import { COMMON_ARGS } from "./common-args.ts";
import { valueHintOf } from "./parse-args.ts";

type Row = readonly [left: string, right: string];
export type CommandSummary = { readonly name: string; readonly summary: string };

/** Longer left columns get a line of their own. */
const LEFT_WIDTH_MAX = 34;
const LINE_WIDTH_MAX = 100;

/** @param under the commands of the group that this one is by itself, if it is one */
export function formatCommandHelp(command: NixdeployCommand, under: readonly CommandSummary[] = []): string {
  const positionals = Object.values(command.positionals);
  const flags = Object.keys(command.args).length > 0 ? ["[FLAGS]"] : [];
  const usage = ["nixdeploy", command.name, ...flags, ...positionals.map(formatPositional)].join(" ");
  return joinSections([
    `${command.summary}.`,
    `Usage: ${usage}`,
    command.details === null ? null : wrap(command.details, LINE_WIDTH_MAX).join("\n"),
    formatRows(
      "Arguments",
      positionals.map((each): Row => [formatPositional(each), each.description]),
    ),
    formatRows("Flags", flagRows(command.args)),
    formatRows(
      "Commands",
      under.map((each): Row => [each.name, each.summary]),
    ),
    formatRows("Common flags", [...flagRows(COMMON_ARGS), ["-h, --help", "This text"]]),
    formatExamples(command),
  ]);
}

export function formatGroupHelp(group: NixdeployGroup): string {
  return joinSections([
    `${group.summary}.`,
    `Usage: nixdeploy ${group.name} COMMAND [FLAGS]`,
    formatRows(
      "Commands",
      group.commands.map((each): Row => [each.name, each.summary]),
    ),
    `\`nixdeploy ${group.name} COMMAND --help\` says more about each.`,
  ]);
}

export function formatRootHelp(commands: readonly CommandSummary[]): string {
  return joinSections([
    "Keeps fleets of Nix machines up to date: coordinator, binary cache and agent in one program.",
    "Usage: nixdeploy COMMAND [FLAGS]",
    formatRows(
      "Commands",
      commands.map((each): Row => [each.name, each.summary]),
    ),
    formatRows("Common flags", [...flagRows(COMMON_ARGS), ["-h, --help", "This text"], ["--version", "The version"]]),
    "`nixdeploy COMMAND --help` says more about each.",
  ]);
}

function formatPositional({ label, required, repeatable }: NixdeployCommand["positionals"][string]): string {
  const name = repeatable === true ? `${label}…` : label;
  return required === true ? name : `[${name}]`;
}

function flagRows(declarations: ArgDeclarations): Row[] {
  return Object.entries(declarations).map(([key, declaration]): Row => {
    const left = `--${flagNameOf(key, declaration)} ${valueHintOf(declaration)}`.trim();
    return [left, `${declaration.description}${formatNote(declaration)}`];
  });
}

function formatNote(declaration: ArgDeclaration): string {
  if (declaration.type === "boolean") {
    return "";
  }
  const notes = [
    ...(declaration.required === true ? ["required"] : []),
    ...(declaration.repeatable === true ? ["may be repeated"] : []),
    ...(declaration.default === undefined ? [] : [`default: ${declaration.default}`]),
  ];
  return notes.length === 0 ? "" : ` (${notes.join(", ")})`;
}

function formatRows(title: string, rows: readonly Row[]): string | null {
  if (rows.length === 0) {
    return null;
  }
  const width = Math.max(...rows.map(([left]) => left.length).filter((length) => length <= LEFT_WIDTH_MAX), 0);
  const margin = " ".repeat(width + 4);
  const lines = rows.map(([left, right]) => {
    const description = wrap(right, LINE_WIDTH_MAX - margin.length).join(`\n${margin}`);
    return left.length > width ? `  ${left}\n${margin}${description}` : `  ${left.padEnd(width)}  ${description}`;
  });
  return [`${title}:`, ...lines].join("\n");
}

function formatExamples({ examples }: NixdeployCommand): string | null {
  const lines = examples.map(({ comment, command }) => `  # ${comment}\n  ${command}`);
  return lines.length === 0 ? null : ["Examples:", ...lines].join("\n");
}

function joinSections(sections: readonly (string | null)[]): string {
  return `${sections.filter((section) => section !== null).join("\n\n")}\n`;
}

/** Lines of at most `width` characters where the words allow it; line breaks of the text stay. */
function wrap(text: string, width: number): string[] {
  return text.split("\n").flatMap((paragraph) => {
    const lines: string[] = [];
    let line = "";
    for (const word of paragraph.split(" ")) {
      if (line !== "" && line.length + 1 + word.length > width) {
        lines.push(line);
        line = word;
      } else {
        line = line === "" ? word : `${line} ${word}`;
      }
    }
    return [...lines, line];
  });
}
