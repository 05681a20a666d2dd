/**
 * Where a deployment spec comes from: a file, a `./result` symlink, a store path (out of the cache when the local
 * store does not have it), or pairs NAME=PATH of the command line. What a spec is says `spec.ts`.
 */
import { type FileHandle, open } from "node:fs/promises";
import { resolve } from "node:path";
import { describeError, NixdeployError } from "../../errors.ts";
import { type AgentName, NAME_RULE, parseAgentName } from "../../names.ts";
import { quoteExcerpt } from "../../nix/parse-error.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { type CacheReader, FILE_BYTES_MAX, readFileFromCache } from "../nix-files/cache-file.ts";
import { readBounded } from "../read-bounded.ts";
import { quoteShellWord } from "../ssh/shell-words.ts";
import { describeAbsent, requireStorePath, resolveArgument } from "../store-argument.ts";
import { type ParsedSpec, parseSpec, splitAssignment } from "./spec.ts";
import { NO_HEALTH_CHECKS } from "./spec-health-checks.ts";

export type ReadSpecOptions = {
  /** SPEC, or one or more NAME=PATH. */
  readonly words: readonly string[];
  readonly cwd: string;
  readonly cache: CacheReader;
  readonly signal: AbortSignal;
};

/**
 * @throws NixdeployError "usage" when the words name no spec, "not-found" when neither store nor cache has it,
 *   "refused" with all faults when it is none
 */
export async function readSpec(options: ReadSpecOptions): Promise<ParsedSpec> {
  const [first = "", ...others] = options.words;
  const pairs = options.words.map(splitAssignment);
  const assignments = pairs.filter((pair) => pair !== null);
  if (assignments.length === pairs.length) return { spec: await readPairs(assignments, options.cwd), warnings: [] };
  if (assignments.length > 0 || others.length > 0) {
    throw new NixdeployError("usage", "cannot read the deployment spec: give one SPEC, or only pairs NAME=PATH", {
      hint: "For example `nixdeploy activate ./result`, or `nixdeploy activate nuc=./result tv=./other`.",
    });
  }
  const local = await readLocalFile(first, options.cwd);
  if (local !== null) return parseSpec(local, first);
  return await readFromCache(first, options);
}

type Pair = { readonly name: string; readonly path: string };

async function readPairs(pairs: readonly Pair[], cwd: string): Promise<ParsedSpec["spec"]> {
  const agents = new Map<AgentName, StorePath>();
  for (const { name, path } of pairs) {
    const agent = parseAgentName(name);
    if (agents.has(agent)) throw new NixdeployError("usage", `cannot deploy to ${name}: it is named twice`);
    if (path === "") throw new NixdeployError("usage", `cannot deploy to ${name}: no path follows the "="`);
    agents.set(agent, await requireStorePath(path, cwd));
  }
  return { agents, rollbackScript: new Map(), healthChecks: NO_HEALTH_CHECKS };
}

/** @returns null when there is no such file here */
async function readLocalFile(text: string, cwd: string): Promise<string | null> {
  let file: FileHandle;
  try {
    file = await open(resolve(cwd, text), "r");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : null;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw new NixdeployError("host", `cannot read ${text}: ${describeError(error)}`, { cause: error });
  }
  await using _closed = file;
  const stats = await file.stat();
  if (stats.isDirectory()) {
    throw new NixdeployError("usage", `cannot read ${text}: it is a directory, not a deployment spec`, {
      hint: `To deploy it to one agent, write NAME=${text}.`,
    });
  }
  // A pipe or a device says nothing of its size.
  const contents = await readBounded(file.createReadStream({ autoClose: false }), FILE_BYTES_MAX);
  if (contents !== null) return contents.toString("utf8");
  throw new NixdeployError("refused", `cannot read ${text}: it is larger than ${FILE_BYTES_MAX} bytes`);
}

async function readFromCache(text: string, { cwd, cache, signal }: ReadSpecOptions): Promise<ParsedSpec> {
  const resolved = await resolveArgument(text, cwd);
  if (resolved.kind !== "store-path") throw describeNoSpec(text);
  const { storePath } = resolved;
  const contents = await readFileFromCache(cache, storePath, signal);
  if (contents === null) {
    throw new NixdeployError("not-found", `cannot read ${storePath}: neither the local store nor the cache has it`, {
      hint: `Build it here, or bring it into the cache: nixdeploy push ${quoteShellWord(text)}`,
    });
  }
  return parseSpec(new TextDecoder().decode(contents), storePath);
}

/** Nothing is called `text`: a pair whose name is none, the name of an agent, or a file that is not there. */
function describeNoSpec(text: string): NixdeployError {
  const [, name] = /^([^=/]*)=/.exec(text) ?? [];
  if (name !== undefined) {
    return new NixdeployError("usage", `cannot deploy to ${quoteExcerpt(name)}: it is no agent name`, {
      hint: `A name is ${NAME_RULE}.`,
    });
  }
  return describeAbsent(text, (agent) => `To deploy to an agent, write \`nixdeploy activate ${agent}=./result\`.`);
}
