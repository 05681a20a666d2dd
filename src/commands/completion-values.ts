/** Which values of whose knowledge belong where a command line asks for one, by how it asks. Pure. */
import { parseAgentSelector } from "../agent-selector.ts";
import { parseAgentName, parseCacheName, parseTokenId, parseWorkspaceName } from "../names.ts";

export type ValueKind = "agents" | "workspaces" | "caches" | "rollouts" | "tokens" | "logins";

export type ValueKinds = {
  /** Those that somebody has to be asked for; `agents=` begins a pair. */
  readonly values: readonly (ValueKind | "agents=")[];
  /** Files belong here too. */
  readonly files: "files" | "directories" | null;
};

const BY_PARSER: ReadonlyMap<unknown, ValueKind> = new Map<unknown, ValueKind>([
  [parseAgentName, "agents"],
  [parseAgentSelector, "agents"],
  [parseWorkspaceName, "workspaces"],
  [parseCacheName, "caches"],
  [parseTokenId, "tokens"],
]);
/** By a word of what the help calls the value. */
const BY_WORD: Readonly<Record<string, ValueKind | "agents=">> = {
  AGENT: "agents",
  ID: "rollouts",
  "NAME=PATH": "agents=",
};
const FILE_WORDS = ["FILE", "PATH", "SPEC"];
/** Their ids are of something else. */
const OTHER_IDS = /^webhook /;
/** What these name does not exist yet. */
const MAKES_NAMES = /(^| )(create|add-foreign)$/;

/**
 * What may be written where a declaration asks for a value.
 * @param label as the help has it, such as `ID|AGENT`
 * @param parse the declaration's own
 * @param commandName "" for the value of a flag
 */
export function findValueKinds(label: string, parse: unknown, commandName: string): ValueKinds {
  const words = label.split("|");
  const files = words.includes("DIR")
    ? "directories"
    : words.some((word) => FILE_WORDS.includes(word))
      ? "files"
      : null;
  if (label === "NEW" || MAKES_NAMES.test(commandName)) return { values: [], files };
  if (label === "URL" && /^log(in|out)\b/.test(commandName)) return { values: ["logins"], files };
  const byParser = BY_PARSER.get(parse);
  if (byParser !== undefined) return { values: [byParser], files };
  // No flag takes the id of a rollout.
  const isOther = commandName === "" || OTHER_IDS.test(commandName);
  const known = words.filter((word) => word !== "ID" || !isOther).map((word) => BY_WORD[word]);
  const values = known.filter((kind) => kind !== undefined);
  return { values, files };
}
