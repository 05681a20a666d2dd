/**
 * How a command is declared, once: its flags and positionals, their types, their help. From this come the strict
 * parser (parse-args.ts), the help text (help.ts) and the types of what `run` gets.
 *
 * citty runs the command but does not parse for us: it accepts unknown flags, missing values, extra arguments and
 * repeated flags without a word.
 */
import { type CommandDef, defineCommand } from "citty";
import type { CommandContext } from "./context.ts";

type DeclarationBase = {
  readonly description: string;
  /** Its name on the command line where that is not the key in kebab-case (`timeoutMs` → `timeout`). */
  readonly flag?: string;
};

/** A flag that takes a value. Without `required` and `default` its value may be undefined; `repeatable` gives an array. */
type ValueBase = DeclarationBase & {
  /** How the help names the value: NAME, FILE, URL. */
  readonly valueHint?: string;
  readonly required?: true;
  readonly repeatable?: true;
  /** As the user would write it. */
  readonly default?: string;
};

export type ArgDeclaration =
  /** `--name` and `--no-name`; false when absent. */
  | (DeclarationBase & { readonly type: "boolean" })
  /** Any text that is not empty; `parse` may refuse it by throwing an Error that says why. */
  | (ValueBase & { readonly type: "string"; readonly parse?: (text: string) => unknown })
  | (ValueBase & { readonly type: "enum"; readonly options: readonly string[] })
  /** A whole number. */
  | (ValueBase & { readonly type: "integer"; readonly min: number; readonly max: number })
  /** `30m`, `1h30m`; the value is in milliseconds. */
  | (ValueBase & { readonly type: "duration" });

export type PositionalDeclaration = {
  readonly description: string;
  /** How usage and help name it: PATH, ID. */
  readonly label: string;
  readonly required?: true;
  /** Takes all the rest; only the last one. */
  readonly repeatable?: true;
  readonly parse?: (text: string) => unknown;
};

export type ArgDeclarations = Readonly<Record<string, ArgDeclaration>>;
export type PositionalDeclarations = Readonly<Record<string, PositionalDeclaration>>;

type Parsed<D> = D extends { readonly parse: (text: string) => infer T } ? T : string;
type Single<D extends ArgDeclaration> = D extends { readonly type: "boolean" }
  ? boolean
  : D extends { readonly type: "enum"; readonly options: readonly (infer Option)[] }
    ? Option
    : D extends { readonly type: "integer" | "duration" }
      ? number
      : Parsed<D>;
type Optional<D, Value> = D extends
  | { readonly type: "boolean" }
  | { readonly required: true }
  | { readonly default: string }
  ? Value
  : Value | undefined;
type ArgValue<D extends ArgDeclaration> = D extends { readonly repeatable: true }
  ? readonly Single<D>[]
  : Optional<D, Single<D>>;
type PositionalValue<D extends PositionalDeclaration> = D extends { readonly repeatable: true }
  ? readonly Parsed<D>[]
  : Optional<D, Parsed<D>>;

export type ArgValues<A extends ArgDeclarations, P extends PositionalDeclarations> = {
  readonly [Key in keyof A]: ArgValue<A[Key]>;
} & { readonly [Key in keyof P]: PositionalValue<P[Key]> };

export type Example = { readonly comment: string; readonly command: string };

export type CommandDeclaration<A extends ArgDeclarations, P extends PositionalDeclarations> = {
  /** With the group's name: `push`, `token create`. */
  readonly name: string;
  /** One line, a verb first, without a full stop. */
  readonly summary: string;
  /** Further paragraphs of the help. */
  readonly details?: string;
  readonly examples?: readonly Example[];
  readonly args: A;
  readonly positionals?: P;
  /** Returns when the command is done; everything that keeps it from being done is thrown as a NixdeployError. */
  readonly run: (invocation: { readonly args: ArgValues<A, P>; readonly context: CommandContext }) => Promise<void>;
};

/** A command without the types of its own arguments: what the registry, the parser and the help work with. */
export type NixdeployCommand = {
  readonly kind: "command";
  readonly name: string;
  readonly summary: string;
  readonly details: string | null;
  readonly examples: readonly Example[];
  readonly args: ArgDeclarations;
  readonly positionals: PositionalDeclarations;
  /** citty's `data` is a {@link CommandInput}. */
  readonly citty: CommandDef;
};

/** Commands under a common word: `token create`, `token list`. */
export type NixdeployGroup = {
  readonly kind: "group";
  readonly name: string;
  readonly summary: string;
  readonly commands: readonly NixdeployCommand[];
  /** What the common word does without any of them, such as `agents`; null: it does nothing by itself. */
  readonly alone: NixdeployCommand | null;
};

/** One line of the registry (root.ts): a command's name, known before its file is loaded. */
export type CommandEntry = {
  readonly name: string;
  /** Shown in the list of commands; the file's own summary again. */
  readonly summary: string;
  /** For programs: in no list. */
  readonly isHidden?: true;
  readonly load: () => Promise<{ readonly command: NixdeployCommand | NixdeployGroup }>;
};

/** What citty hands through to a command: the values that the strict parser made, and the world. */
export type CommandInput = { readonly values: Readonly<Record<string, unknown>>; readonly context: CommandContext };

export function defineNixdeployCommand<
  const A extends ArgDeclarations,
  const P extends PositionalDeclarations = Readonly<Record<never, never>>,
>(declaration: CommandDeclaration<A, P>): NixdeployCommand {
  const { name, summary, args } = declaration;
  return {
    kind: "command",
    name,
    summary,
    details: declaration.details ?? null,
    examples: declaration.examples ?? [],
    args,
    positionals: declaration.positionals ?? {},
    citty: defineCommand({
      meta: { name, description: summary },
      run: ({ data }) => {
        const { values, context } = parseCommandInput(data);
        return declaration.run({ args: parseTypedValues<A, P>(values), context });
      },
    }),
  };
}

/**
 * @param group.commands each named with the group's name first
 * @param group.alone named as the group
 */
export function defineNixdeployGroup(
  group: Omit<NixdeployGroup, "kind" | "alone"> & { readonly alone?: NixdeployCommand },
): NixdeployGroup {
  return { kind: "group", alone: null, ...group };
}

/** Every command that can be run by what is registered under one word. */
export function listCommands(entry: NixdeployCommand | NixdeployGroup): readonly NixdeployCommand[] {
  if (entry.kind === "command") return [entry];
  return entry.alone === null ? entry.commands : [entry.alone, ...entry.commands];
}

/** `dataDir` → `data-dir` */
export function flagNameOf(key: string, declaration: ArgDeclaration): string {
  return declaration.flag ?? key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** citty's `data` is untyped; runCommand in root.ts is the only one that fills it. */
function parseCommandInput(data: unknown): CommandInput {
  return data as CommandInput;
}

/** The strict parser made each value by its declaration, which is where these types come from. */
function parseTypedValues<A extends ArgDeclarations, P extends PositionalDeclarations>(
  values: Readonly<Record<string, unknown>>,
): ArgValues<A, P> {
  return values as ArgValues<A, P>;
}
