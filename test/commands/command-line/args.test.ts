import { describe, expect, expectTypeOf, test } from "bun:test";
import { type ArgValues, defineNixdeployCommand } from "../../../src/commands/command-line/args.ts";
import { parseArgs } from "../../../src/commands/command-line/parse-args.ts";
import { NixdeployError } from "../../../src/errors.ts";

const parsePort = (text: string): number => {
  if (!/^\d+$/.test(text)) {
    throw new Error("it is no port");
  }
  return Number(text);
};

const ARGS = {
  name: { type: "string", valueHint: "NAME", description: "Its name", required: true },
  agent: { type: "string", valueHint: "NAME", description: "Agents", repeatable: true },
  port: { type: "string", description: "Port", parse: parsePort },
  mode: { type: "enum", options: ["switch", "boot", "test"], default: "switch", description: "How" },
  count: { type: "integer", min: 1, max: 10, description: "How many" },
  timeoutMs: { type: "duration", flag: "timeout", default: "30m", description: "How long" },
  dryRun: { type: "boolean", description: "Only say what would be done" },
} as const;
const POSITIONALS = {
  spec: { label: "SPEC", description: "A file", required: true },
  paths: { label: "PATH", description: "Paths", repeatable: true },
} as const;

const command = defineNixdeployCommand({
  name: "sample",
  summary: "A sample",
  args: ARGS,
  positionals: POSITIONALS,
  run: async () => {},
});
const bare = defineNixdeployCommand({ name: "bare", summary: "Takes nothing", args: {}, run: async () => {} });

function usageError(words: readonly string[], of = command): { message: string; hint: string } {
  try {
    parseArgs(of, words);
  } catch (error) {
    if (error instanceof NixdeployError && error.kind === "usage") {
      return { message: error.message, hint: error.hint ?? "" };
    }
    throw error;
  }
  throw new Error(`accepted: ${words.join(" ")}`);
}

test("the declaration gives the types of the values", () => {
  type Values = ArgValues<typeof ARGS, typeof POSITIONALS>;
  expectTypeOf<Values["name"]>().toEqualTypeOf<string>();
  expectTypeOf<Values["agent"]>().toEqualTypeOf<readonly string[]>();
  expectTypeOf<Values["port"]>().toEqualTypeOf<number | undefined>();
  expectTypeOf<Values["mode"]>().toEqualTypeOf<"switch" | "boot" | "test">();
  expectTypeOf<Values["count"]>().toEqualTypeOf<number | undefined>();
  expectTypeOf<Values["timeoutMs"]>().toEqualTypeOf<number>();
  expectTypeOf<Values["dryRun"]>().toEqualTypeOf<boolean>();
  expectTypeOf<Values["spec"]>().toEqualTypeOf<string>();
  expectTypeOf<Values["paths"]>().toEqualTypeOf<readonly string[]>();
});

test("absent flags have their defaults", () => {
  expect(parseArgs(command, ["--name", "x", "spec.json"])).toMatchObject({
    name: "x",
    agent: [],
    port: undefined,
    mode: "switch",
    count: undefined,
    timeoutMs: 1_800_000,
    dryRun: false,
    spec: "spec.json",
    paths: [],
    json: false,
    url: undefined,
    logFormat: "text",
  });
});

test("both spellings of a value, repeated flags, mixed positionals", () => {
  const words = ["spec", "--name=a=b", "--agent", "one", "path", "--agent=two", "--dry-run", "--port", "80", "-"];
  expect(parseArgs(command, words)).toMatchObject({
    name: "a=b",
    agent: ["one", "two"],
    dryRun: true,
    port: 80,
    spec: "spec",
    paths: ["path", "-"],
  });
});

test("-- ends the flags", () => {
  expect(parseArgs(command, ["--name", "x", "--", "--agent", "--"])).toMatchObject({ spec: "--agent", paths: ["--"] });
});

test("--no- switches a boolean off", () => {
  expect(parseArgs(command, ["--name", "x", "--no-dry-run", "spec"])).toMatchObject({ dryRun: false });
});

test("a value may start with a dash after =", () => {
  expect(parseArgs(command, ["--name=-x", "spec"])).toMatchObject({ name: "-x" });
});

describe("refused", () => {
  const cases: readonly (readonly [what: string, words: readonly string[], message: string])[] = [
    ["an unknown flag", ["--nmae", "x"], "there is no flag --nmae"],
    ["an unknown flag with a value", ["--zzz=secret"], "there is no flag --zzz"],
    ["an unknown short flag", ["-x"], "there is no flag -x"],
    ["a flag with one dash", ["-name", "x"], "there is no flag -name"],
    ["a prefix of a flag", ["--nam", "x"], "there is no flag --nam"],
    ["a missing value at the end", ["--name"], "--name needs a value"],
    ["a flag where a value should be", ["--name", "--dry-run"], "--name needs a value"],
    ["-- where a value should be", ["--name", "--", "x"], "--name needs a value"],
    ["an empty value", ["--name", "", "x"], "the value of --name is empty"],
    ["an empty value after =", ["--name=", "x"], "the value of --name is empty"],
    ["a repeated flag", ["--name", "a", "--name", "b", "x"], "--name is given 2 times"],
    ["a repeated boolean", ["--dry-run", "--no-dry-run", "--name", "a", "x"], "--dry-run is given 2 times"],
    ["--no- before a flag with a value", ["--no-name", "x"], "there is no flag --no-name: --name takes a value"],
    ["a value of a boolean", ["--dry-run=true"], "--dry-run takes no value"],
    ["a missing required flag", ["x"], "--name is missing"],
    ["a missing required positional", ["--name", "a"], "SPEC is missing"],
    ["an empty positional", ["--name", "a", ""], "SPEC is empty"],
    ["an empty repeated positional", ["--name", "a", "x", "y", ""], "PATH is empty"],
    ["no option of an enum", ["--mode", "boto", "--name", "a", "x"], '--mode is one of switch, boot, test, not "boto"'],
    ["no number", ["--count", "1e1", "--name", "a", "x"], '--count is a whole number from 1 to 10, not "1e1"'],
    [
      "a number out of range",
      ["--count", "11", "--name", "a", "x"],
      '--count is a whole number from 1 to 10, not "11"',
    ],
    ["no duration", ["--timeout", "5", "--name", "a", "x"], '--timeout "5": a duration is written like 45s'],
    ["what parse refuses", ["--port", "http", "--name", "a", "x"], "--port: it is no port"],
  ];
  for (const [what, words, message] of cases) {
    test(what, () => {
      const error = usageError(words);
      expect(error.message).toStartWith(`cannot run \`nixdeploy sample\`: ${message}`);
      expect(error.hint).toEndWith("See `nixdeploy sample --help`.");
    });
  }

  test("an extra positional", () => {
    expect(usageError(["x"], bare).message).toBe('cannot run `nixdeploy bare`: unexpected argument "x"');
  });
});

describe("hints", () => {
  for (const [given, meant] of [
    ["--agnet", "agent"],
    ["--agents", "agent"],
    ["--dryrun", "dry-run"],
    ["--verbos", "verbose"],
    ["--time-out", "timeout"],
    ["--jsn", "json"],
  ]) {
    test(`${given} → --${meant}`, () => {
      expect(usageError([given ?? ""]).hint).toStartWith(`Did you mean --${meant}?`);
    });
  }

  test("nothing near: no guess", () => {
    expect(usageError(["--frobnicate"]).hint).toBe("See `nixdeploy sample --help`.");
  });

  test("an enum's nearest option", () => {
    expect(usageError(["--mode", "swich", "--name", "a", "x"]).hint).toStartWith("Did you mean switch?");
  });

  test("a secret belongs into the environment", () => {
    expect(usageError(["--token", "hunter2"]).hint).toStartWith("Secrets are not given on the command line");
  });
});

test("no error repeats the value of an unknown flag, or a token", () => {
  const token = "nd_admin_0123456789abcdef_secretsecret";
  for (const words of [[`--token=${token}`], ["--token", token], [token], ["--count", token, "--name", "a", "x"]]) {
    const { message, hint } = usageError(words, words.length === 1 && words[0] === token ? bare : command);
    expect(`${message} ${hint}`).not.toContain("secretsecret");
  }
});
