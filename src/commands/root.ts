/**
 * The command `nixdeploy` itself: the list of all commands, and the way from a command line to the one it names.
 * Each command's file is loaded only when it is the one: that keeps the start at a few milliseconds.
 */
import { runCommand } from "citty";
import { NixdeployError } from "../errors.ts";
import {
  type ArgDeclaration,
  type CommandEntry,
  flagNameOf,
  type NixdeployCommand,
  type NixdeployGroup,
} from "./command-line/args.ts";
import { COMMON_ARGS, type CommonValues, parseCommonValues } from "./command-line/common-args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { formatCommandHelp, formatGroupHelp, formatRootHelp } from "./command-line/help.ts";
import { findNearestName } from "./command-line/nearest-name.ts";
import { parseArgs } from "./command-line/parse-args.ts";
import { quoteWord } from "./command-line/quote-word.ts";

/** In the order of the help text. One line for each file `src/commands/<name>.ts` that exports `command`. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "serve",
    summary: "Run the coordinator, with its binary cache and API",
    load: () => import("./serve.ts"),
  },
  { name: "login", summary: "Remember a coordinator and a token for it", load: () => import("./login.ts") },
  { name: "logout", summary: "Forget a coordinator and its token", load: () => import("./logout.ts") },
  { name: "token", summary: "Make, list and revoke tokens", load: () => import("./token.ts") },
  { name: "push", summary: "Upload closures into a cache", load: () => import("./push.ts") },
  {
    name: "copy",
    summary: "Copy closures to or from hosts over SSH, without a coordinator",
    load: () => import("./copy.ts"),
  },
  {
    name: "activate",
    summary: "Deploy store paths to agents and follow until the end",
    load: () => import("./activate.ts"),
  },
  { name: "spec", summary: "Make and show deployment specs", load: () => import("./spec.ts") },
  { name: "retry", summary: "Try again what did not succeed", load: () => import("./retry.ts") },
  { name: "rollback", summary: "Go back to what ran before", load: () => import("./rollback.ts") },
  { name: "redeploy", summary: "Deploy an older rollout once more", load: () => import("./redeploy.ts") },
  { name: "cancel", summary: "Cancel deployments that wait or run", load: () => import("./cancel.ts") },
  {
    name: "agent",
    summary: "Run the agent that keeps a profile of this device up to date",
    load: () => import("./agent.ts"),
  },
  {
    name: "logs",
    summary: "Show the log of a deployment, a rollout or an agent's latest deployment",
    load: () => import("./logs.ts"),
  },
  { name: "audit", summary: "Show who did what, newest first", load: () => import("./audit.ts") },
  {
    name: "events",
    summary: "Show everything that changes, as it happens",
    load: () => import("./events.ts"),
  },
  {
    name: "doctor",
    summary: "Look for what is wrong here, and say what to do about it",
    load: () => import("./doctor.ts"),
  },
  { name: "webhook", summary: "Send changes to an address of yours, signed", load: () => import("./webhook.ts") },
  { name: "status", summary: "Show the coordinator and the agents", load: () => import("./status.ts") },
  {
    name: "local",
    summary: "Activate, roll back and look at this machine without the coordinator",
    load: () => import("./local.ts"),
  },
  {
    name: "supervise",
    summary: "Finish or undo the activation on record (started by the agent)",
    load: () => import("./supervise.ts"),
  },
  { name: "agents", summary: "List, remove, rename, label and approve agents", load: () => import("./agents.ts") },
  { name: "workspace", summary: "Make, show, set and delete workspaces", load: () => import("./workspace.ts") },
  { name: "cache", summary: "Make, show and set binary caches, and their keys", load: () => import("./cache.ts") },
  { name: "backup", summary: "Copy the coordinator's database while it serves", load: () => import("./backup.ts") },
  { name: "restore", summary: "Make a backup the coordinator's database", load: () => import("./restore.ts") },
  {
    name: "completion",
    summary: "Print what makes a shell complete nixdeploy's command lines",
    load: () => import("./completion.ts"),
  },
  {
    name: "complete",
    summary: "Say what may come next on a command line (for shells)",
    isHidden: true,
    load: async () => ({ command: (await import("./complete.ts")).createComplete(() => COMMANDS) }),
  },
];

/** What the command line asked for. */
export type Request =
  /** Text for standard output; nothing is run. */
  | { readonly kind: "print"; readonly text: string }
  /** No command at all: the help, as an error. */
  | { readonly kind: "no-command"; readonly what: string; readonly help: string }
  | { readonly kind: "run"; readonly common: CommonValues; readonly run: (context: CommandContext) => Promise<void> };

export type RootOptions = {
  readonly words: readonly string[];
  readonly version: string;
  readonly commands?: readonly CommandEntry[];
};

/** @throws NixdeployError "usage" when there is no such command or its arguments are wrong */
export async function resolveRequest({ words, version, commands = COMMANDS }: RootOptions): Promise<Request> {
  const beforeDashes = words.includes("--") ? words.slice(0, words.indexOf("--")) : words;
  if (beforeDashes.includes("--version")) {
    return { kind: "print", text: `nixdeploy ${version}\n` };
  }
  const { name, rest } = splitCommand(words);
  const wantsHelp = beforeDashes.includes("--help") || beforeDashes.includes("-h");
  if (name === null) {
    if (!wantsHelp) requireKnownFlags("nixdeploy", rest);
    const help = formatRootHelp(commands.filter(({ isHidden }) => isHidden !== true));
    return wantsHelp ? { kind: "print", text: help } : { kind: "no-command", what: "nixdeploy", help };
  }
  const loaded = await loadCommand(name, commands);
  if (loaded.kind === "command") {
    return wantsHelp ? { kind: "print", text: formatCommandHelp(loaded) } : prepareRun(loaded, rest);
  }
  if (loaded.alone !== null && !namesSubcommand(loaded, rest)) {
    return wantsHelp
      ? { kind: "print", text: formatCommandHelp(loaded.alone, loaded.commands) }
      : prepareRun(loaded.alone, rest);
  }
  const { name: subName, rest: subRest } = splitCommand(rest);
  if (subName === null) {
    const what = `nixdeploy ${loaded.name}`;
    if (!wantsHelp) requireKnownFlags(what, subRest);
    const help = formatGroupHelp(loaded);
    return wantsHelp ? { kind: "print", text: help } : { kind: "no-command", what, help };
  }
  const command = findInGroup(loaded, subName);
  return wantsHelp ? { kind: "print", text: formatCommandHelp(command) } : prepareRun(command, subRest);
}

/** Common flags may stand before the command (`nixdeploy --json status`): they are read as if they came after it. */
function splitCommand(words: readonly string[]): { readonly name: string | null; readonly rest: readonly string[] } {
  let index = 0;
  while (index < words.length && words[index]?.startsWith("-")) {
    index += takesNextWord(words[index] ?? "") ? 2 : 1;
  }
  return { name: words[index] ?? null, rest: [...words.slice(0, index), ...words.slice(index + 1)] };
}

/**
 * Of a group that is a command itself: only a word in the first place can be one of its commands, because what stands
 * behind a flag may be that flag's value.
 */
function namesSubcommand(group: NixdeployGroup, words: readonly string[]): boolean {
  const { name, rest } = splitCommand(words);
  const before = rest.slice(0, words.indexOf(name ?? ""));
  return (
    group.commands.some((command) => command.name === `${group.name} ${name}`) &&
    before.every((word, index) => isCommonFlag(word) || takesNextWord(before[index - 1] ?? ""))
  );
}

/** Where no command is named, a flag that is none is what its user should hear of. @throws NixdeployError "usage" */
function requireKnownFlags(what: string, words: readonly string[]): void {
  const unknown = words.find(
    (word, index) => word !== "--" && !isCommonFlag(word) && !takesNextWord(words[index - 1] ?? ""),
  );
  if (unknown === undefined) return;
  throw new NixdeployError("usage", `cannot run \`${what}\`: there is no flag ${quoteWord(unknown)}`, {
    hint: `See \`${what} --help\`.`,
  });
}

function isCommonFlag(word: string): boolean {
  return Object.entries(COMMON_ARGS).some(([key, declaration]) => isFlag(word, key, declaration));
}

function isFlag(word: string, key: string, declaration: ArgDeclaration): boolean {
  const flag = `--${flagNameOf(key, declaration)}`;
  return (
    word === flag ||
    word === `--no-${flag.slice(2)}` ||
    word.startsWith(`${flag}=`) ||
    word === "--help" ||
    word === "-h"
  );
}

function takesNextWord(word: string): boolean {
  return Object.entries(COMMON_ARGS).some(
    ([key, declaration]) => declaration.type !== "boolean" && word === `--${flagNameOf(key, declaration)}`,
  );
}

async function loadCommand(name: string, commands: readonly CommandEntry[]) {
  const entry = commands.find((candidate) => candidate.name === name);
  if (entry === undefined) {
    throw unknownCommand({ what: "nixdeploy", name, names: commands.map((candidate) => candidate.name) });
  }
  return (await entry.load()).command;
}

function findInGroup(group: NixdeployGroup, name: string): NixdeployCommand {
  const fullName = `${group.name} ${name}`;
  const command = group.commands.find((candidate) => candidate.name === fullName);
  if (command === undefined) {
    const names = group.commands.map((candidate) => candidate.name.slice(group.name.length + 1));
    throw unknownCommand({ what: `nixdeploy ${group.name}`, name, names });
  }
  return command;
}

type UnknownCommand = { readonly what: string; readonly name: string; readonly names: readonly string[] };

function unknownCommand({ what, name, names }: UnknownCommand): NixdeployError {
  const nearest = findNearestName(name, names);
  const help = `See \`${what} --help\`.`;
  return new NixdeployError("usage", `cannot run \`${what}\`: there is no command ${quoteWord(name)}`, {
    hint: nearest === null ? help : `Did you mean \`${what} ${nearest}\`? ${help}`,
  });
}

function prepareRun(command: NixdeployCommand, words: readonly string[]): Request {
  const values = parseArgs(command, words);
  return {
    kind: "run",
    common: parseCommonValues(values),
    run: async (context) => {
      await runCommand(command.citty, { rawArgs: [], data: { values, context } });
    },
  };
}
