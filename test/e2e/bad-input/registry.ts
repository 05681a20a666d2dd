/**
 * Misuse of flags and arguments, made from the declarations of all commands: a new command is covered by being in the
 * list (src/commands/root.ts). Every one of these is a usage error before anything is done.
 */
import {
  type ArgDeclaration,
  type ArgDeclarations,
  flagNameOf,
  listCommands,
  type NixdeployCommand,
  type NixdeployGroup,
} from "../../../src/commands/command-line/args.ts";
import { COMMON_ARGS } from "../../../src/commands/command-line/common-args.ts";
import { COMMANDS } from "../../../src/commands/root.ts";

export type Misuse = {
  readonly what: string;
  readonly words: readonly string[];
  readonly says: string;
  readonly hint?: string;
};

/** Looks like a token and is none; no answer may repeat it. */
export const FALSE_TOKEN = `nd_admin_0123456789abcdfg_${"s3cretS3cret".repeat(4)}x`;

/** One of them is a value that any flag and any positional takes. */
const SAMPLES = [
  ...["0123456789abcdfg", "https://deploy.example.org", "127.0.0.1:0", "127.0.0.1", "role=web"],
  "bash",
  "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
  "1",
  "1h",
  "sample-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
  "/nix/store/00000000000000000000000000000000-sample",
  "rollout",
];

type Row = readonly [what: string, words: readonly string[], says: string, hint?: string];

export async function listMisuse(): Promise<readonly Misuse[]> {
  const loaded = await Promise.all(COMMANDS.map(async ({ load }) => (await load()).command));
  return loaded.flatMap((command) => [
    // One that is a command itself takes any other word for its own.
    ...(command.kind === "group" && command.alone === null ? misuseOfGroup(command) : []),
    ...listCommands(command).flatMap(misuseOfCommand),
  ]);
}

function misuseOfGroup({ name, commands }: NixdeployGroup): Misuse[] {
  const [first = ""] = commands.map((command) => command.name.split(" ")[1]);
  const rows: Row[] = [
    ["no command of the group", [name], `cannot run \`nixdeploy ${name}\`: no command is given`],
    [
      "an unknown command",
      [name, "frobnicate"],
      'there is no command "frobnicate"',
      `See \`nixdeploy ${name} --help\``,
    ],
    [
      "a mistyped command",
      [name, `${first}x`],
      `there is no command "${first}x"`,
      `Did you mean \`nixdeploy ${name} ${first}\`?`,
    ],
    ["a token in the place of the command", [name, FALSE_TOKEN], "there is no command (a secret"],
  ];
  return rows.map((row) => describeRow(name, row));
}

function misuseOfCommand(command: NixdeployCommand): Misuse[] {
  const { name } = command;
  const declarations: ArgDeclarations = { ...command.args, ...COMMON_ARGS };
  const flags = Object.entries(declarations).map(
    ([key, declaration]) => [flagNameOf(key, declaration), declaration] as const,
  );
  const requiredFlags = flags.flatMap(([flag, declaration]) =>
    declaration.type !== "boolean" && declaration.required === true ? [{ flag, sample: sampleOf(declaration) }] : [],
  );
  const positionals = Object.values(command.positionals);
  const given = positionals.filter((each) => each.required === true).map(sampleOf);
  /** The command with all that it requires, but for one flag. */
  const without = (missing: string | null) => [
    ...name.split(" "),
    ...requiredFlags.filter(({ flag }) => flag !== missing).flatMap(({ flag, sample }) => [`--${flag}`, sample]),
  ];
  const start = without(null);
  const all = [...start, ...given];

  const rows: Row[] = [
    ["an unknown flag", [...all, "--no-such-flag"], "there is no flag --no-such-flag"],
    ["an unknown flag with a value", [...all, `--no-such-flag=${FALSE_TOKEN}`], "there is no flag --no-such-flag"],
    ["a mistyped flag", [...all, "--jsom"], "there is no flag --jsom", "Did you mean --json?"],
    ["a flag with one dash", [...all, "-json"], "there is no flag -json", "Did you mean --json?"],
    ["a flag with a line break", [...all, "--a\nb"], 'there is no flag "--a\\nb"'],
    ["a token as a flag", [...all, "--token", FALSE_TOKEN], "there is no flag --token", "NIXDEPLOY_TOKEN_FILE"],
    ...flags.flatMap(([flag, declaration]) =>
      misuseOfFlag(flag, declaration).map(
        ([what, words, ...answer]): Row => [what, [...without(flag), ...given, ...words], ...answer],
      ),
    ),
    ...requiredFlags.map(
      ({ flag }): Row => [`--${flag} left out`, [...without(flag), ...given], `--${flag} is missing`],
    ),
    ...positionals.flatMap(({ label, required: isRequired }, index): Row[] => {
      const before = given.slice(0, index);
      return [
        [`an empty ${label}`, [...start, ...before, ""], `${label} is empty`],
        [`a token as ${label}`, [...start, ...before, FALSE_TOKEN], `${label} is a secret`],
        ...(isRequired === true ? [[`${label} left out`, [...start, ...before], `${label} is missing`] as const] : []),
      ];
    }),
  ];
  if (positionals.at(-1)?.repeatable !== true) {
    const full = [...start, ...positionals.map(sampleOf)];
    rows.push(
      ["an argument too many", [...full, "surplus"], 'unexpected argument "surplus"'],
      ["a token too many", [...full, FALSE_TOKEN], "unexpected argument (a secret"],
    );
  }
  return rows.map((row) => describeRow(name, row));
}

/** The words come behind a command line that is complete but for this flag. */
function misuseOfFlag(flag: string, declaration: ArgDeclaration): Row[] {
  const name = `--${flag}`;
  if (declaration.type === "boolean") {
    return [
      [`${name} with a value`, [`${name}=true`], `${name} takes no value`],
      [`${name} twice`, [name, name], `${name} is given 2 times`],
      [`${name} and its opposite`, [name, `--no-${flag}`], `${name} is given 2 times`],
    ];
  }
  const sample = sampleOf(declaration);
  const rows: Row[] = [
    [`${name} without a value`, [name], `${name} needs a value`, `Write ${name} `],
    [`${name} with a flag as its value`, [name, "--json"], `${name} needs a value`],
    [`${name} with an empty value`, [name, ""], `the value of ${name} is empty`],
    [`${name} with a token as its value`, [name, FALSE_TOKEN], `the value of ${name} is a secret`],
    [`${name} negated`, [`--no-${flag}`], `there is no flag --no-${flag}: ${name} takes a value`],
  ];
  if (declaration.repeatable !== true) {
    rows.push([`${name} twice`, [name, sample, name, sample], `${name} is given 2 times`]);
  }
  switch (declaration.type) {
    case "enum":
      return [
        ...rows,
        [`${name} with no such option`, [name, "frobnicate"], `${name} is one of ${declaration.options.join(", ")}`],
      ];
    case "integer":
      return [
        ...rows,
        ...["x", "1.5", "1e1", String(declaration.min - 1), String(declaration.max + 1), "99999999999999999999"].map(
          (text): Row => [`${name} ${text}`, [`${name}=${text}`], `${name} is a whole number from ${declaration.min}`],
        ),
      ];
    case "duration":
      return [
        ...rows,
        ...["1", "1.5h", "-1h", "1h ", "h"].map(
          (text): Row => [`${name} ${text}`, [`${name}=${text}`], "a duration is written like"],
        ),
        [`${name} 0s`, [name, "0s"], "a duration must be longer than zero"],
      ];
    case "string":
      return rows;
    default:
      return declaration satisfies never;
  }
}

function sampleOf(declaration: ArgDeclaration | NixdeployCommand["positionals"][string]): string {
  if ("options" in declaration) return declaration.options[0] ?? "";
  if ("type" in declaration && declaration.type === "integer") return String(declaration.min);
  if ("type" in declaration && declaration.type === "duration") return "1m";
  const parse = "parse" in declaration ? declaration.parse : undefined;
  const accepted = SAMPLES.find((text) => {
    try {
      parse?.(text);
      return true;
    } catch {
      // This flag wants something else: the next sample.
      return false;
    }
  });
  if (accepted === undefined) throw new Error(`no sample fits ${declaration.description}: add one`);
  return accepted;
}

function describeRow(command: string, [what, words, says, hint]: Row): Misuse {
  return { what: `${command}: ${what}`, words, says, ...(hint === undefined ? {} : { hint }) };
}
