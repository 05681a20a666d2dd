/**
 * What may come next on a command line, from the declarations of all commands. Pure but for loading the one command that
 * is named. Values that only the coordinator knows are named by their kind
 * (completion-values.ts); complete.ts asks for them.
 */
import {
  type ArgDeclaration,
  type ArgDeclarations,
  type CommandEntry,
  flagNameOf,
  type NixdeployCommand,
  type NixdeployGroup,
} from "./command-line/args.ts";
import type { CommandLine } from "./command-line/command-line.ts";
import { COMMON_ARGS } from "./command-line/common-args.ts";
import { findValueKinds, type ValueKind, type ValueKinds } from "./completion-values.ts";

export type Candidate = { readonly value: string; readonly description: string };

export type CompletionPlan = {
  readonly candidates: readonly Candidate[];
  /** To be asked for; each value with these around it. */
  readonly values: readonly { readonly kind: ValueKind; readonly before: string; readonly after: string }[];
  /** Files belong here too. */
  readonly files: ValueKinds["files"];
  /** What is given on the line, by flag: `workspace`, `url`, `data-dir`. */
  readonly given: ReadonlyMap<string, string>;
};

const NOTHING: CompletionPlan = { candidates: [], values: [], files: null, given: new Map() };

/** Of {@link COMMON_ARGS}, and what every command has besides. */
const HELP: Candidate = { value: "--help", description: "What this command does" };

export async function planCompletion(line: CommandLine, commands: readonly CommandEntry[]): Promise<CompletionPlan> {
  const shown = commands.filter(({ isHidden }) => isHidden !== true);
  const { name, rest } = splitName(line.words);
  if (name === null) {
    const names = shown.map(({ name: value, summary }): Candidate => ({ value, description: summary }));
    const flags = line.current.startsWith("-") ? [...flagCandidates(COMMON_ARGS, []), HELP, VERSION] : names;
    return planValues({ line, rest, declarations: COMMON_ARGS }) ?? choose(line.current, flags);
  }
  const entry = shown.find((each) => each.name === name);
  if (entry === undefined) return NOTHING;
  const { command } = await entry.load();
  return command.kind === "command" ? planCommand(command, { rest, line }) : planGroup(command, { rest, line });
}

const VERSION: Candidate = { value: "--version", description: "The version" };

/** Common flags may stand before the command. */
function splitName(words: readonly string[]): { readonly name: string | null; readonly rest: readonly string[] } {
  let index = 0;
  while (index < words.length && words[index]?.startsWith("-")) {
    index += takesValue(words[index] ?? "", COMMON_ARGS) ? 2 : 1;
  }
  return { name: words[index] ?? null, rest: [...words.slice(0, index), ...words.slice(index + 1)] };
}

type Where = { readonly rest: readonly string[]; readonly line: CommandLine };

function planGroup(group: NixdeployGroup, { rest, line }: Where): CompletionPlan {
  const { name, rest: further } = splitName(rest);
  const chosen = group.commands.find((command) => command.name === `${group.name} ${name}`);
  if (chosen !== undefined) return planCommand(chosen, { rest: further, line });
  const alone = group.alone === null ? null : planCommand(group.alone, { rest, line });
  if (name !== null) return alone ?? NOTHING;
  const names = group.commands.map(({ name: full, summary }): Candidate => {
    return { value: full.slice(group.name.length + 1), description: summary };
  });
  const isFlag = line.current.startsWith("-");
  const own = isFlag && alone === null ? [...flagCandidates(COMMON_ARGS, []), HELP] : isFlag ? [] : names;
  const plan = choose(line.current, own);
  return alone === null ? plan : { ...alone, candidates: [...plan.candidates, ...alone.candidates] };
}

function planCommand(command: NixdeployCommand, { rest, line }: Where): CompletionPlan {
  const declarations: ArgDeclarations = { ...command.args, ...COMMON_ARGS };
  const given = readGiven(rest, declarations);
  const dashes = rest.indexOf("--");
  const flagsEnded = dashes !== -1;
  if (!flagsEnded) {
    const value = planValues({ line, rest, declarations });
    if (value !== null) return { ...value, given: given.flags };
    if (line.current.startsWith("-")) {
      const flags = [...flagCandidates(declarations, rest), HELP];
      return { ...choose(line.current, flags), given: given.flags };
    }
  }
  const positionals = Object.values(command.positionals);
  const index = given.positionals.length;
  const last = positionals.at(-1);
  const positional = positionals[index] ?? (last?.repeatable === true ? last : undefined);
  if (positional === undefined) return { ...NOTHING, given: given.flags };
  const kinds = findValueKinds(positional.label, positional.parse, command.name);
  return { ...planKinds(kinds, ""), given: given.flags };
}

type Values = { readonly line: CommandLine; readonly rest: readonly string[]; readonly declarations: ArgDeclarations };

/** Where the value of a flag is being written, as `--flag VALUE` or `--flag=VALUE`; null elsewhere. */
function planValues({ line, rest, declarations }: Values): CompletionPlan | null {
  const { current } = line;
  const equals = current.indexOf("=");
  if (current.startsWith("--") && equals !== -1) {
    const flag = findFlag(current.slice(0, equals), declarations);
    return flag === null ? NOTHING : planValue(flag, { typed: current, before: current.slice(0, equals + 1) });
  }
  const previous = rest.at(-1) ?? "";
  const flag = takesValue(previous, declarations) ? findFlag(previous, declarations) : null;
  return flag === null ? null : planValue(flag, { typed: current, before: "" });
}

function planValue(
  declaration: ArgDeclaration,
  how: { readonly typed: string; readonly before: string },
): CompletionPlan {
  const { typed, before } = how;
  switch (declaration.type) {
    case "boolean":
      return NOTHING;
    case "enum":
      return choose(
        typed,
        declaration.options.map((value) => ({ value: `${before}${value}`, description: "" })),
      );
    case "string":
      return planKinds(findValueKinds(declaration.valueHint ?? "", declaration.parse, ""), before);
    case "integer":
    case "duration":
      return NOTHING;
    default:
      return declaration satisfies never;
  }
}

function planKinds({ values, files }: ValueKinds, before: string): CompletionPlan {
  const asked = values.map((kind) =>
    kind === "agents=" ? { kind: "agents" as const, before, after: "=" } : { kind, before, after: "" },
  );
  return { ...NOTHING, files, values: asked };
}

function flagCandidates(declarations: ArgDeclarations, used: readonly string[]): Candidate[] {
  return Object.entries(declarations).flatMap(([key, declaration]) => {
    const value = `--${flagNameOf(key, declaration)}`;
    const isRepeatable = declaration.type !== "boolean" && declaration.repeatable === true;
    const isUsed = used.some((word) => word === value || word.startsWith(`${value}=`));
    return isUsed && !isRepeatable ? [] : [{ value, description: declaration.description }];
  });
}

function findFlag(word: string, declarations: ArgDeclarations): ArgDeclaration | null {
  const found = Object.entries(declarations).find(([key, declaration]) => word === `--${flagNameOf(key, declaration)}`);
  return found?.[1] ?? null;
}

function takesValue(word: string, declarations: ArgDeclarations): boolean {
  const flag = findFlag(word, declarations);
  return flag !== null && flag.type !== "boolean";
}

function readGiven(words: readonly string[], declarations: ArgDeclarations) {
  const flags = new Map<string, string>();
  const positionals: string[] = [];
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? "";
    if (word === "--") return { flags, positionals: [...positionals, ...words.slice(index + 1)] };
    const equals = word.indexOf("=");
    if (!word.startsWith("-")) {
      positionals.push(word);
    } else if (word.startsWith("--") && equals !== -1) {
      flags.set(word.slice(2, equals), word.slice(equals + 1));
    } else if (takesValue(word, declarations)) {
      flags.set(word.slice(2), words[index + 1] ?? "");
      index += 1;
    }
  }
  return { flags, positionals };
}

function choose(typed: string, candidates: readonly Candidate[]): CompletionPlan {
  return { ...NOTHING, candidates: candidates.filter(({ value }) => value.startsWith(typed)) };
}
