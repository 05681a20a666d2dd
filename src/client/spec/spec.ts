/**
 * Deployment specs: which agent is to run which store path. Pure.
 *
 *     { "agents": { NAME: STORE-PATH, … }, "rollbackScript": { SYSTEM: STORE-PATH, … } | null, "nixdeploy": { … } }
 *
 * The format of Cachix Deploy's `deploy.json`, so that its users change nothing. Keys at the top that are not known
 * are ignored, with a warning; what is ours stands under "nixdeploy" (`spec-health-checks.ts`). Whether an agent or a path exists is for the coordinator to say.
 */
import { NixdeployError } from "../../errors.ts";
import { type AgentName, parseAgentName } from "../../names.ts";
import { NixParseError, quoteExcerpt } from "../../nix/parse-error.ts";
import { parseStorePath, type StorePath } from "../../nix/store-path.ts";
import { describeType, isObject } from "../json-value.ts";
import { parseOurKey, type SpecHealthChecks } from "./spec-health-checks.ts";

export type DeploymentSpec = {
  /** In the order of the text; at least one. */
  readonly agents: ReadonlyMap<AgentName, StorePath>;
  /** Nix system, such as `x86_64-linux` → a script that is run after activation. */
  readonly rollbackScript: ReadonlyMap<string, StorePath>;
  readonly healthChecks: SpecHealthChecks;
};

export type ParsedSpec = { readonly spec: DeploymentSpec; readonly warnings: readonly string[] };

/** More than anybody reads; a file that is something else may have one in each line. */
const FAULTS_MAX = 50;
const KNOWN_KEYS: ReadonlySet<string> = new Set(["agents", "rollbackScript", "nixdeploy"]);
const EXAMPLE = `{"agents": {"nuc": "/nix/store/…"}}`;

/**
 * @param origin what the text was read from, for messages
 * @throws NixdeployError "refused" with every fault of the text at once
 */
export function parseSpec(text: string, origin: string): ParsedSpec {
  const value = parseJson(text, origin);
  if (!isObject(value)) throw refuse(origin, [`it is ${describeType(value)} instead of an object`]);
  const faults: string[] = [];
  const agents = parsePaths(value["agents"], { key: "agents", parseName: parseAgentName, faults });
  const rollbackScript = parsePaths(value["rollbackScript"] ?? {}, {
    key: "rollbackScript",
    parseName: parseSystem,
    faults,
  });
  const healthChecks = parseOurKey(value["nixdeploy"] ?? {}, { agents: value["agents"], faults });
  if (faults.length === 0 && agents.size === 0) faults.push(`"agents" names no agent`);
  if (faults.length > 0) throw refuse(origin, faults);
  const unknown = Object.keys(value).filter((key) => !KNOWN_KEYS.has(key));
  return {
    spec: { agents, rollbackScript, healthChecks },
    warnings: unknown.map((key) => `${origin}: ${quoteExcerpt(key)} is not known to this version and was ignored`),
  };
}

/** A pair of the command line: `NAME=PATH`; null when `text` has no such form. */
export function splitAssignment(text: string): { readonly name: string; readonly path: string } | null {
  const [, name, path] = /^([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(.*)$/s.exec(text) ?? [];
  return name === undefined || path === undefined ? null : { name, path };
}

function parseJson(text: string, origin: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new NixdeployError("refused", `cannot read the deployment spec ${origin}: it is not JSON`, {
      hint: `A spec looks like ${EXAMPLE}.`,
      cause: error,
    });
  }
}

type ParsePathsOptions<Name extends string> = {
  readonly key: string;
  readonly parseName: (text: string) => Name;
  /** Faults that are found are appended here. */
  readonly faults: string[];
};

function parsePaths<Name extends string>(value: unknown, options: ParsePathsOptions<Name>): Map<Name, StorePath> {
  const { key, parseName, faults } = options;
  const paths = new Map<Name, StorePath>();
  if (!isObject(value)) {
    faults.push(
      value === undefined ? `"${key}" is missing` : `"${key}" is ${describeType(value)} instead of an object`,
    );
    return paths;
  }
  for (const [name, path] of Object.entries(value)) {
    const at = `"${key}" → ${quoteExcerpt(name)}`;
    try {
      if (typeof path === "string") paths.set(parseName(name), parseStorePath(path));
      else faults.push(`${at}: it is ${describeType(path)} instead of a store path`);
    } catch (error) {
      faults.push(`${at}: ${describeFault(error)}`);
    }
  }
  return paths;
}

function describeFault(error: unknown): string {
  if (error instanceof NixParseError) return `no store path: ${error.reason}`;
  return error instanceof Error ? error.message : String(error);
}

function parseSystem(text: string): string {
  if (/^[a-z0-9_]+-[a-z0-9]+$/.test(text)) return text;
  throw new Error(`${quoteExcerpt(text)} is no Nix system, such as x86_64-linux`);
}

function refuse(origin: string, faults: readonly string[]): NixdeployError {
  return new NixdeployError("refused", `cannot read the deployment spec ${origin}: it is not of the right form`, {
    details: faults.length <= FAULTS_MAX ? faults : [...faults.slice(0, FAULTS_MAX), moreFaults(faults.length)],
    hint: `A spec looks like ${EXAMPLE}.`,
  });
}

function moreFaults(count: number): string {
  return `and ${count - FAULTS_MAX} more`;
}
