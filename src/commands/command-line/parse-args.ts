/**
 * The strict parser of command lines: a word that no declaration allows is a usage error that says what would be
 * right. What it prints of a mistaken command line is names of flags and positionals, never the value of a flag
 * that is unknown: it might be a secret.
 *
 *   word  = "--" | "--" flag [ "=" value ] | "--no-" flag | "-h" | positional
 *   flags and positionals may mix; after a "--" all words are positionals; a value that starts with "-" needs "="
 */
import { NixdeployError } from "../../errors.ts";
import { looksLikeSecret } from "../../token.ts";
import { type ArgDeclaration, type ArgDeclarations, flagNameOf, type NixdeployCommand } from "./args.ts";
import { COMMON_ARGS } from "./common-args.ts";
import { parseDuration } from "./duration.ts";
import { findNearestName } from "./nearest-name.ts";
import { quoteWord } from "./quote-word.ts";

/** One flag of the command: its key in the values, its name on the command line, and all that was given for it. */
type Flag = {
  readonly key: string;
  readonly name: string;
  readonly declaration: ArgDeclaration;
  readonly given: (string | boolean)[];
};

type Fail = (why: string, hint?: string) => never;

/**
 * The value of every flag and positional by its key, the common flags among them.
 * @throws NixdeployError "usage" for the first thing that is wrong
 */
export function parseArgs(command: NixdeployCommand, words: readonly string[]): Record<string, unknown> {
  const fail = createFail(command.name);
  const flags = listFlags({ ...command.args, ...COMMON_ARGS });
  const positionals = collectWords({ words, flags, fail });
  const values: Record<string, unknown> = {};
  for (const flag of flags) {
    values[flag.key] = valueOfFlag(flag, fail);
  }
  return { ...values, ...assignPositionals(command, positionals, fail) };
}

function createFail(commandName: string): Fail {
  return (why, hint) => {
    const help = `See \`nixdeploy ${commandName} --help\`.`;
    throw new NixdeployError("usage", `cannot run \`nixdeploy ${commandName}\`: ${why}`, {
      hint: hint === undefined ? help : `${hint} ${help}`,
    });
  };
}

function listFlags(declarations: ArgDeclarations): Flag[] {
  return Object.entries(declarations).map(([key, declaration]) => ({
    key,
    name: flagNameOf(key, declaration),
    declaration,
    given: [],
  }));
}

type Collection = { readonly words: readonly string[]; readonly flags: readonly Flag[]; readonly fail: Fail };

/** Puts what is given for flags into `flags` and returns the positionals. */
function collectWords({ words, flags, fail }: Collection): string[] {
  const positionals: string[] = [];
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? "";
    if (word === "--") {
      return [...positionals, ...words.slice(index + 1)];
    }
    if (!word.startsWith("-") || word === "-") {
      positionals.push(word);
      continue;
    }
    const { flag, isNegated, inlineValue } = findFlag(word, flags, fail);
    if (flag.declaration.type === "boolean") {
      if (inlineValue !== null) {
        fail(`--${flag.name} takes no value`);
      }
      flag.given.push(!isNegated);
    } else if (isNegated) {
      fail(`there is no flag --no-${flag.name}: --${flag.name} takes a value`);
    } else {
      flag.given.push(inlineValue ?? takeValue({ flag, next: words[index + 1], fail }));
      index += inlineValue === null ? 1 : 0;
    }
  }
  return positionals;
}

function findFlag(word: string, flags: readonly Flag[], fail: Fail) {
  const equals = word.indexOf("=");
  const given = equals === -1 ? word : word.slice(0, equals);
  const inlineValue = equals === -1 ? null : word.slice(equals + 1);
  const exact = flags.find((flag) => given === `--${flag.name}`);
  const negated = flags.find((flag) => given === `--no-${flag.name}`);
  const flag = exact ?? negated;
  if (flag === undefined) {
    const isPlain = /^-{1,2}[\w-]{1,40}$/.test(given);
    return fail(`there is no flag ${isPlain ? given : quoteWord(given)}`, hintForUnknownFlag(given, flags));
  }
  return { flag, isNegated: exact === undefined, inlineValue };
}

function hintForUnknownFlag(given: string, flags: readonly Flag[]): string | undefined {
  const name = given.replace(/^-+/, "");
  const nearest = findNearestName(
    name,
    flags.map((flag) => flag.name),
  );
  if (nearest !== null) {
    return `Did you mean --${nearest}?`;
  }
  return /(^|-)(token|secret|password)$/.test(name) ? SECRETS_HINT : undefined;
}

const SECRETS_HINT =
  "Secrets are not given on the command line, where others can read them: use NIXDEPLOY_TOKEN_FILE or NIXDEPLOY_TOKEN.";

function refuseSecret(text: string, { what, fail }: { readonly what: string; readonly fail: Fail }): void {
  if (looksLikeSecret(text)) fail(`${what} is a secret`, SECRETS_HINT);
}

function takeValue({ flag, next, fail }: { flag: Flag; next: string | undefined; fail: Fail }): string {
  if (next === undefined || (next.startsWith("-") && next !== "-")) {
    return fail(`--${flag.name} needs a value`, `Write --${flag.name} ${valueHintOf(flag.declaration)}.`);
  }
  return next;
}

/** How a help text names the value of a flag. */
export function valueHintOf(declaration: ArgDeclaration): string {
  switch (declaration.type) {
    case "boolean":
      return "";
    case "enum":
      return declaration.valueHint ?? declaration.options.join("|");
    case "duration":
      return declaration.valueHint ?? "DURATION";
    case "integer":
      return declaration.valueHint ?? "NUMBER";
    case "string":
      return declaration.valueHint ?? "TEXT";
    default:
      return declaration satisfies never;
  }
}

function valueOfFlag(flag: Flag, fail: Fail): unknown {
  const { declaration, given, name } = flag;
  const isRepeatable = declaration.type !== "boolean" && declaration.repeatable === true;
  if (given.length > 1 && !isRepeatable) {
    fail(`--${name} is given ${given.length} times`);
  }
  if (declaration.type === "boolean") {
    return given[0] ?? false;
  }
  const texts = given.length === 0 && declaration.default !== undefined ? [declaration.default] : given.map(String);
  if (texts.length === 0 && declaration.required === true) {
    fail(`--${name} is missing`, `Write --${name} ${valueHintOf(declaration)}.`);
  }
  const values = texts.map((text) => convertValue({ text, name, declaration, fail }));
  return isRepeatable ? values : values[0];
}

type Conversion = {
  readonly text: string;
  readonly name: string;
  readonly declaration: Exclude<ArgDeclaration, { readonly type: "boolean" }>;
  readonly fail: Fail;
};

function convertValue({ text, name, declaration, fail }: Conversion): unknown {
  if (text === "") {
    fail(`the value of --${name} is empty`);
  }
  refuseSecret(text, { what: `the value of --${name}`, fail });
  switch (declaration.type) {
    case "enum": {
      if (declaration.options.includes(text)) {
        return text;
      }
      const nearest = findNearestName(text, declaration.options);
      const hint = nearest === null ? undefined : `Did you mean ${nearest}?`;
      return fail(`--${name} is one of ${declaration.options.join(", ")}, not ${quoteWord(text)}`, hint);
    }
    case "integer": {
      const { min, max } = declaration;
      const value = /^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
      return value >= min && value <= max
        ? value
        : fail(`--${name} is a whole number from ${min} to ${max}, not ${quoteWord(text)}`);
    }
    case "duration":
      return tryParse({ text, parse: parseDuration, what: `--${name} ${quoteWord(text)}`, fail });
    case "string":
      return declaration.parse === undefined
        ? text
        : tryParse({ text, parse: declaration.parse, what: `--${name}`, fail });
    default:
      return declaration satisfies never;
  }
}

type Attempt = {
  readonly text: string;
  readonly parse: (text: string) => unknown;
  readonly what: string;
  readonly fail: Fail;
};

function tryParse({ text, parse, what, fail }: Attempt): unknown {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof NixdeployError) {
      throw error;
    }
    return fail(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function assignPositionals(command: NixdeployCommand, words: readonly string[], fail: Fail): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  const rest = [...words];
  for (const [key, { label, parse, required, repeatable }] of Object.entries(command.positionals)) {
    const taken = rest.splice(0, repeatable === true ? rest.length : 1);
    if (taken.length === 0 && required === true) {
      fail(`${label} is missing`);
    }
    if (taken.includes("")) {
      fail(`${label} is empty`);
    }
    for (const text of taken) refuseSecret(text, { what: label, fail });
    const parsed = taken.map((text) => (parse === undefined ? text : tryParse({ text, parse, what: label, fail })));
    values[key] = repeatable === true ? parsed : parsed[0];
  }
  if (rest.length > 0) {
    fail(`unexpected argument ${quoteWord(rest[0] ?? "")}`);
  }
  return values;
}
