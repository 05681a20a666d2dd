/**
 * A deployment spec out of what other programs have evaluated or built: nothing is evaluated here. Pure.
 *
 *     line = job | spec | NAME "=" STORE-PATH          empty lines and lines that begin with "#" are passed over
 *     job  = an object as `nix-eval-jobs` prints it: "attr" or "attrPath", and "outputs" or "error"
 *     spec = {"agents": {…}, "rollbackScript": {…}}    what a job of a CI matrix wrote down
 *
 * An agent is called as the last part of its attribute, without what stands around it in flakes:
 *
 * | attribute                                            | agent                       |
 * | ---------------------------------------------------- | --------------------------- |
 * | `nuc`, `nuc.x86_64-linux`, `x86_64-linux.nuc`        | nuc                         |
 * | `nuc.config.system.build.toplevel`                   | nuc                         |
 * | `ada.activationPackage`                              | ada                         |
 * | `nixosConfigurations.nuc`, `darwinConfigurations.…`  | nuc                         |
 * | `hydraJobs.hosts.nuc`                                | with prefix hydraJobs.hosts |
 *
 * Source: nix-eval-jobs, README "Using" and `src/drv.cc`.
 */
import { NixdeployError } from "../../errors.ts";
import { type AgentName, parseAgentName } from "../../names.ts";
import { quoteExcerpt } from "../../nix/parse-error.ts";
import { parseStorePath, type StorePath } from "../../nix/store-path.ts";
import { describeType, isObject } from "../json-value.ts";
import { parseSpec, splitAssignment } from "./spec.ts";

export type JobText = {
  /** A file's name, for messages. */
  readonly origin: string;
  readonly text: string;
};

export type SpecObject = {
  readonly agents: Readonly<Record<string, StorePath>>;
  readonly rollbackScript?: Readonly<Record<string, StorePath>>;
};

type Found = { readonly name: string; readonly path: StorePath; readonly at: string };

const FAULTS_MAX = 50;
const SYSTEM = /^(?:x86_64|aarch64|armv[67]l|i686|riscv64|powerpc64le)-(?:linux|darwin|freebsd)$/;
const COLLECTIONS: ReadonlySet<string> = new Set(["nixosConfigurations", "darwinConfigurations", "homeConfigurations"]);
const WRAPPERS: readonly (readonly string[])[] = [
  ["config", "system", "build", "toplevel"],
  ["system", "build", "toplevel"],
  ["toplevel"],
  ["activationPackage"],
  ["system"],
];

/**
 * @param options.prefix parts of an attribute; jobs elsewhere are none of ours
 * @throws NixdeployError "refused" with every fault at once: what did not evaluate, what cannot be an agent, what
 *   contradicts itself
 */
export function makeSpec(texts: readonly JobText[], { prefix }: { readonly prefix: readonly string[] }): SpecObject {
  const faults: string[] = [];
  const agents = new Map<AgentName, Found>();
  const scripts = new Map<string, Found>();
  const add = <Name extends string>(to: Map<Name, Found>, parse: (text: string) => Name, found: Found) => {
    try {
      const name = parse(found.name);
      const before = to.get(name);
      if (before === undefined) to.set(name, found);
      else if (before.path !== found.path)
        faults.push(`${found.at}: ${name} is ${found.path}, but ${before.path} at ${before.at}`);
    } catch (error) {
      faults.push(`${found.at}: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  for (const { origin, text } of texts) {
    for (const { at, value } of splitValues({ origin, text }, faults)) {
      const read = readValue(value, { at, prefix, faults });
      for (const found of read.agents) add(agents, parseAgentName, found);
      for (const found of read.scripts) add(scripts, (name) => name, found);
    }
  }
  if (faults.length === 0 && agents.size === 0) faults.push("there is no job of an agent in it");
  if (faults.length > 0) {
    const more = faults.length > FAULTS_MAX ? [`and ${faults.length - FAULTS_MAX} more`] : [];
    throw new NixdeployError("refused", "cannot make a spec of these jobs: nothing was written", {
      details: [...faults.slice(0, FAULTS_MAX), ...more],
      hint: "Jobs that are no agents are left out by --prefix ATTRIBUTE, what did not evaluate by nobody.",
    });
  }
  const toObject = (all: ReadonlyMap<string, Found>) =>
    Object.fromEntries([...all].map(([name, { path }]) => [name, path]));
  return { agents: toObject(agents), ...(scripts.size === 0 ? {} : { rollbackScript: toObject(scripts) }) };
}

/** A whole text that is one JSON object is a spec or a job; else each line is something. */
function splitValues(
  { origin, text }: JobText,
  faults: string[],
): readonly { readonly at: string; readonly value: unknown }[] {
  const whole = parseJson(text);
  if (isObject(whole)) return [{ at: origin, value: whole }];
  return text.split("\n").flatMap((each, index) => {
    const line = each.trim();
    if (line === "" || line.startsWith("#")) return [];
    const at = `${origin}:${index + 1}`;
    const value = line.startsWith("{") ? parseJson(line) : splitAssignment(line);
    if (value !== undefined && value !== null) return [{ at, value }];
    faults.push(`${at}: ${quoteExcerpt(line)} is neither a job in JSON nor NAME=STORE-PATH`);
    return [];
  });
}

type Reading = { readonly at: string; readonly prefix: readonly string[]; readonly faults: string[] };
type Read = { readonly agents: readonly Found[]; readonly scripts: readonly Found[] };
const NOTHING: Read = { agents: [], scripts: [] };

function readValue(value: unknown, reading: Reading): Read {
  const { at, faults } = reading;
  if (!isObject(value)) {
    faults.push(`${at}: it is ${describeType(value)} instead of an object`);
    return NOTHING;
  }
  if ("agents" in value) return readSpecObject(value, reading);
  if (typeof value["path"] === "string" && typeof value["name"] === "string" && !("attr" in value)) {
    return readPath({ name: value["name"], path: value["path"] }, reading);
  }
  return readJob(value, reading);
}

function readSpecObject(value: object, { at, faults }: Reading): Read {
  try {
    const { spec } = parseSpec(JSON.stringify(value), at);
    const all = (paths: ReadonlyMap<string, StorePath>) => [...paths].map(([name, path]) => ({ name, path, at }));
    return { agents: all(spec.agents), scripts: all(spec.rollbackScript) };
  } catch (error) {
    if (!(error instanceof NixdeployError)) throw error;
    faults.push(...(error.details.length === 0 ? [error.message] : error.details).map((fault) => `${at}: ${fault}`));
    return NOTHING;
  }
}

function readJob(job: Readonly<Record<string, unknown>>, reading: Reading): Read {
  const { at, prefix, faults } = reading;
  const attribute = readAttribute(job);
  if (attribute === null) {
    faults.push(`${at}: it is no job of nix-eval-jobs: it has neither "attr" nor "attrPath"`);
    return NOTHING;
  }
  if (prefix.some((part, index) => attribute[index] !== part)) return NOTHING;
  const parts = stripAround(attribute.slice(prefix.length));
  const shown = quoteExcerpt(attribute.join("."));
  const [name, ...rest] = parts;
  if (name === undefined || rest.length > 0) {
    faults.push(`${at}: which agent ${shown} is cannot be told: name what stands before it by --prefix`);
    return NOTHING;
  }
  if (typeof job["error"] === "string") {
    const [first = ""] = job["error"].trim().split("\n");
    faults.push(`${at}: ${shown} did not evaluate: ${quoteExcerpt(first.trim())}`);
    return NOTHING;
  }
  const outputs = job["outputs"];
  const path = isObject(outputs) ? outputs["out"] : undefined;
  if (typeof path !== "string") {
    faults.push(`${at}: ${shown} has no output "out" with a store path`);
    return NOTHING;
  }
  return readPath({ name, path }, reading);
}

function readPath({ name, path }: { readonly name: string; readonly path: string }, { at, faults }: Reading): Read {
  try {
    return { agents: [{ name, path: parseStorePath(path), at }], scripts: [] };
  } catch (error) {
    faults.push(`${at}: ${error instanceof Error ? error.message : String(error)}`);
    return NOTHING;
  }
}

function readAttribute(job: Readonly<Record<string, unknown>>): readonly string[] | null {
  const { attrPath, attr } = job;
  if (Array.isArray(attrPath) && attrPath.every((part) => typeof part === "string")) return attrPath;
  return typeof attr === "string" ? splitAttribute(attr) : null;
}

/** `a."b.c".d` → a, b.c, d */
export function splitAttribute(text: string): readonly string[] {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|[^."]+/g)].map(([whole, quoted]) => quoted ?? whole);
}

/** Without collections and systems before the name, and without what leads from a configuration to its package. */
function stripAround(attribute: readonly string[]): readonly string[] {
  let parts = attribute;
  if (COLLECTIONS.has(parts[0] ?? "")) parts = parts.slice(1);
  const wrapper = WRAPPERS.find(
    (each) =>
      parts.length > each.length && each.every((part, index) => parts[parts.length - each.length + index] === part),
  );
  if (wrapper !== undefined) parts = parts.slice(0, -wrapper.length);
  return parts.length > 1 ? parts.filter((part) => !SYSTEM.test(part)) : parts;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not one value: it is read line by line, or the line is a fault.
    return undefined;
  }
}
