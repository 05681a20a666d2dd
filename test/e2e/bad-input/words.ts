/** Rows: names, paths and specs that are none, and what a result meets on its way out. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BadInput } from "./case.ts";

const ANOTHER = "0123456789abcdfg";

// biome-ignore format: a table, one row a line
export const NAMES: readonly BadInput[] = [
  { what: "a command that does not exist", command: "stauts", exitCode: 2, says: 'there is no command "stauts"', hint: "Did you mean `nixdeploy status`?" },
  { what: "no command, but a flag that is none", command: ["--bogus"], exitCode: 2, says: "there is no flag \"--bogus\"" },
  { what: "no command of a group, but such a flag", command: ["cache", "--bogus"], exitCode: 2, says: "there is no flag" },
  { what: "no command", command: [], exitCode: 2, says: "cannot run `nixdeploy`: no command is given" },
  { what: "a command name with control characters", command: ["\u001b[2J\nx"], exitCode: 2, says: 'there is no command "\\u001b[2J\\nx"' },
  { what: "an agent name with a slash", command: "agent --name ../x", exitCode: 2, says: '"../x" is no agent name: it must be 1 to 64 letters' },
  { what: "an agent name that is too long", command: `agent --name ${"n".repeat(65)}`, exitCode: 2, says: "is no agent name" },
  { what: "a profile that leads out of its folder", command: "agent --name n --profile ../x", exitCode: 2, says: "--profile: expected a name or an absolute path" },
  { what: "a profile that is a generation", command: "agent --name n --profile system-42-link", exitCode: 2, says: "names a generation, not a profile" },
  { what: "a public key without a name", command: "agent --name n --trusted-public-key AAAA", exitCode: 2, says: "--trusted-public-key: " },
  { what: "a public key that is too short", command: "agent --name n --trusted-public-key k:AAAA", exitCode: 2, says: "4 characters instead of 44" },
  { what: "a cache name with a slash", command: "cache show a/b", exitCode: 2, says: '"a/b" is no cache name' },
  { what: "a cache that does not exist", command: "cache show nope", exitCode: 1, says: "cannot find the cache nope: it does not exist" },
  { what: "neither public nor private", command: "cache set default", exitCode: 2, says: "give one of --public and --private" },
  { what: "both public and private", command: "cache set default --public --private", exitCode: 2, says: "give one of --public and --private" },
  { what: "a workspace that does not exist, for a token", command: "token create --kind push --workspace nope", exitCode: 1, says: "cannot find the workspace nope" },
  { what: "a workspace that does not exist, for a list", command: "agents --workspace nope", exitCode: 1, says: "cannot find the workspace nope" },
  { what: "a workspace that does not exist, for a rollout", command: "activate --workspace nope first={path}", exitCode: 1, says: "cannot find the workspace nope" },
  { what: "a token id with capital letters", command: "token revoke ABC", exitCode: 2, says: '"ABC" is no token id' },
  { what: "a token id that does not exist", command: `token revoke ${ANOTHER}`, exitCode: 1, says: `cannot find the token ${ANOTHER}` },
  { what: "a description that is too long", command: `token create --kind push --description ${"d".repeat(201)}`, exitCode: 2, says: "--description: it has 201 characters, more than 200" },
  { what: "a description of two lines", command: ["token", "create", "--kind", "push", "--description", "a\nb"], exitCode: 2, says: "--description: it has a line break" },
  { what: "an expiry beyond ten years", command: "token create --kind push --expires 3661d", exitCode: 2, says: "at most ten years" },
  { what: "the log of nothing", command: "logs nobody", exitCode: 1, says: 'cannot show the log of "nobody"', hint: "nixdeploy agents" },
  { what: "the log of what cannot be a name", command: "logs ../x", exitCode: 1, says: 'cannot show the log of "../x"' },
  { what: "a copy to nowhere", command: "copy {path}", exitCode: 2, says: "cannot copy: no host is given", hint: "--to ssh://root@nuc" },
  { what: "a copy in both directions", command: "copy --to a --from b {path}", exitCode: 2, says: "give either --to or --from" },
  { what: "a copy of nothing", command: "copy --to a", exitCode: 2, says: "cannot copy: no path was given", hint: "nixdeploy copy --to ssh://root@nuc ./result" },
  { what: "a host that is an option", command: ["copy", "--to=-oProxyCommand=id", "{path}"], exitCode: 2, says: "--to: expected ssh://USER@HOST[:PORT]" },
  { what: "a host with a password", command: "copy --to ssh://me:hunter2@a {path}", exitCode: 2, says: "a password does not belong into an address" },
  { what: "a host that is an option, among the paths", command: ["copy", "ssh://-oProxyCommand=id", "{path}"], exitCode: 2, says: "cannot copy: expected ssh://USER@HOST" },
  { what: "two ways to activate", command: "copy --to a --switch --boot {path}", exitCode: 2, says: "cannot use --switch and --boot together" },
  { what: "two paths for a profile", command: "copy --to a --profile p {path} {absent}", exitCode: 2, says: "cannot use --profile with 2 paths" },
  { what: "a way to activate what comes here", command: "copy --from a --switch {path}", exitCode: 2, says: "cannot use --switch with --from", hint: "nixdeploy local activate PATH" },
  { what: "a policy for nothing", command: "copy --to a --send-binary {path}", exitCode: 2, says: "cannot use --send-binary alone", hint: "--dry-activate" },
  { what: "two profiles of a system", command: "copy --to a --switch --profile p --system-name q {path}", exitCode: 2, says: "cannot use --profile and --system-name together" },
  { what: "a host that nobody is at", command: "copy --to ssh://root@127.0.0.1:1 {path}", exitCode: 75, says: "cannot reach root@127.0.0.1:1 by ssh: the connection was refused", hint: "1. Does sshd run there?" },
  { what: "two coordinators", command: "token list --data-dir {data} --url {url}", exitCode: 2, says: "cannot use --data-dir and --url together" },
];

// biome-ignore format: a table, one row a line
export const PATHS: readonly BadInput[] = [
  { what: "no path at all", command: "push", exitCode: 2, says: "no path was given, neither as an argument nor on standard input", hint: "nixdeploy push ./result" },
  { what: "the name of a cache first", command: "push mycache ./result", exitCode: 2, says: 'cannot use "mycache": there is no such file', hint: "`nixdeploy push --cache mycache ./result`" },
  { what: "the name of the cache and nothing else", command: "push default", exitCode: 2, says: 'cannot use "default"', hint: "`nixdeploy push --cache default ./result`" },
  { what: "a path that is nothing", command: "push ./nothing", exitCode: 2, says: "there is no such file", hint: "`nix build` makes ./result" },
  { what: "a path with control characters", command: ["push", "a\u001b[31m\nb"], exitCode: 2, says: 'cannot use "a\\u001b[31m\\nb"' },
  { what: "a path outside the store", command: "push {text}", exitCode: 2, says: "it is not in the Nix store", hint: "./result" },
  { what: "the store itself", command: "push /nix/store", exitCode: 2, says: "it is no store path", hint: "/nix/store/HASH-NAME" },
  { what: "a store path with a wrong hash", command: "push /nix/store/short-name", exitCode: 2, says: "it is no store path" },
  { what: "a store path that leads out of the store", command: "push /nix/store/../../etc", exitCode: 2, says: "it is not in the Nix store" },
  { what: "symlinks without end", command: "push {loop}", exitCode: 2, says: "its symlinks have no end" },
  { what: "a dangling symlink", command: "push {dangling}", exitCode: 2, says: "there is no such file" },
  { what: "a store path that is not there", command: "push {absent}", exitCode: 1, says: "cannot push {absent}: it is not in the local Nix store" },
  { what: "a bad path among good ones", command: "push {path} {text}", exitCode: 2, says: "it is not in the Nix store" },
  { what: "a bad path on standard input", command: "push", stdin: "{path}\n./nothing\n", exitCode: 2, says: "there is no such file" },
  { what: "bytes on standard input", command: "push", stdin: "\u0000\u0001\u001b[2J", exitCode: 2, says: "cannot use" },
  { what: "standard input that is closed", command: "push", through: "standard input closed", exitCode: 2, says: "no path was given" },
  { what: "standard input that is a directory", command: "push", through: "standard input is a directory", exitCode: 2, says: "cannot read the paths from standard input: it is a directory" },
  { what: "a cache that does not exist", command: "push --cache nope {path}", exitCode: 1, says: "cannot find the cache nope" },
  { what: "a path below a file", command: "push {text}/below", exitCode: 2, says: "there is no such file" },
  { what: "a path that is too long", command: `push ./${"x".repeat(300)}`, exitCode: 1, says: "the name is too long" },
];

const SPEC = "{new}/spec.json";

/** A spec of this text. */
function spec(what: string, text: string, answer: Pick<BadInput, "says"> & Partial<BadInput>): BadInput {
  const prepare: BadInput["prepare"] = async (world, directory) => {
    await mkdir(directory);
    await writeFile(join(directory, "spec.json"), world.fill(text));
  };
  return { what, command: `activate ${SPEC}`, prepare, exitCode: 1, ...answer };
}

// biome-ignore format: a table, one row a line
export const SPECS: readonly BadInput[] = [
  { what: "no spec", command: "activate", exitCode: 2, says: "SPEC|NAME=PATH is missing" },
  { what: "a spec that is not there", command: "activate ./nothing.json", exitCode: 2, says: "there is no such file" },
  { what: "the name of an agent alone", command: "activate first", exitCode: 2, says: 'cannot use "first"', hint: "`nixdeploy activate first=./result`" },
  { what: "a directory as spec", command: "activate {rows}", exitCode: 2, says: "it is a directory, not a deployment spec" },
  { what: "two specs", command: "activate {text} {text}", exitCode: 2, says: "give one SPEC, or only pairs NAME=PATH" },
  { what: "a spec and a pair", command: "activate {text} first={path}", exitCode: 2, says: "give one SPEC, or only pairs NAME=PATH" },
  { what: "a pair with an illegal name", command: ["activate", "a b={path}"], exitCode: 2, says: 'cannot deploy to "a b": it is no agent name' },
  { what: "a pair without a name", command: "activate ={path}", exitCode: 2, says: 'cannot deploy to "": it is no agent name' },
  { what: "a pair without a path", command: "activate first=", exitCode: 2, says: 'no path follows the "="' },
  { what: "an agent that is named twice", command: "activate first={path} first={path}", exitCode: 2, says: "cannot deploy to first: it is named twice" },
  { what: "a pair with a path outside the store", command: "activate first={text}", exitCode: 2, says: "it is not in the Nix store" },
  { what: "an agent that does not exist", command: "activate nobody={path}", exitCode: 1, says: "cannot start the rollout: the spec is refused", hint: "agent nobody: no such agent" },
  { what: "a path that was not pushed", command: "activate first={absent}", exitCode: 1, says: "the spec is refused, nothing was started", hint: "{absent}" },
  spec("a spec of no bytes", "", { says: "it is not JSON", hint: '{"agents": {"nuc": "/nix/store/…"}}' }),
  spec("a spec that is a list", "[]", { says: "not of the right form", hint: "it is a list instead of an object" }),
  spec("a spec that is null", "null", { says: "not of the right form", hint: "it is null instead of an object" }),
  spec("a spec that is a page", "<html>", { says: "it is not JSON" }),
  spec("a spec that is cut", '{"agents": {"first": "/nix/st', { says: "it is not JSON" }),
  spec("a spec without agents", "{}", { says: "not of the right form", hint: '"agents" is missing' }),
  spec("a spec whose agents are a list", '{"agents": []}', { says: "not of the right form", hint: "a list instead of an object" }),
  spec("a spec with no agent", '{"agents": {}}', { says: "not of the right form", hint: '"agents" names no agent' }),
  spec("a path that is a number", '{"agents": {"first": 1}}', { says: "not of the right form", hint: "it is a number instead of a store path" }),
  spec("a path outside the store", '{"agents": {"first": "/etc/passwd"}}', { says: "not of the right form", hint: "no store path" }),
  spec("a path with a way out", '{"agents": {"first": "{absent}/../x"}}', { says: "not of the right form", hint: "no store path" }),
  spec("an illegal agent name", '{"agents": {"../x": "{path}"}}', { says: "not of the right form", hint: '"../x" is no agent name' }),
  spec("an agent name with control characters", '{"agents": {"a\\u001b[2J": "{path}"}}', { says: "not of the right form", hint: "is no agent name" }),
  spec("all faults at once", '{"agents": {"a b": "{path}", "c": 3}, "rollbackScript": []}', { says: "not of the right form", hint: '"rollbackScript" is a list' }),
  spec("an agent that the spec lacks", '{"agents": {"first": "{path}"}}', { command: `activate ${SPEC} --agent second`, exitCode: 2, says: 'cannot deploy to "second": the spec has no such agent', hint: "It has: first." }),
];

export const OUTPUTS: readonly BadInput[] = [
  "status",
  "agents",
  "token list",
  "cache show default",
  "--help",
  "--version",
  "push --dry-run {path}",
  "serve --listen 127.0.0.1:0 --data-dir {new}",
].map((command) => ({
  what: `${command}, the result to a full disk`,
  command,
  through: "standard output on a full disk",
  exitCode: 1,
  says: "cannot write to standard output: no space is left on the device",
}));
