/**
 * What of a spec is ours, under the key "nixdeploy". Pure.
 *
 *     "nixdeploy": {
 *       "healthChecks": [CHECK, …],                              for every agent
 *       "agents": { NAME: { "healthChecks": [CHECK, …] }, … }    besides those, for this one
 *     }
 *
 * What a check is says `health-check.ts`. Here nothing unknown is ignored: a check that is misspelt would count as one
 * that passed.
 */
import { describeClash, type HealthCheck, parseSpecHealthChecks } from "../../health-check.ts";
import { type AgentName, parseAgentName } from "../../names.ts";
import { quoteExcerpt } from "../../nix/parse-error.ts";
import { describeType, isObject } from "../json-value.ts";

export type SpecHealthChecks = {
  readonly forAll: readonly HealthCheck[];
  /** Besides those for all. */
  readonly byAgent: ReadonlyMap<AgentName, readonly HealthCheck[]>;
};

export const NO_HEALTH_CHECKS: SpecHealthChecks = { forAll: [], byAgent: new Map() };

type Context = {
  /** The value of "agents" beside our key: what it does not name cannot have checks. */
  readonly agents: unknown;
  /** Faults that are found are appended here. */
  readonly faults: string[];
};

const OURS = `"nixdeploy"`;

export function parseOurKey(value: unknown, { agents, faults }: Context): SpecHealthChecks {
  const ours = readObject(value, OURS, { known: ["healthChecks", "agents"], faults });
  if (ours === null) return NO_HEALTH_CHECKS;
  const forAll = readChecks(ours, OURS, faults);
  const byAgent = new Map<AgentName, readonly HealthCheck[]>();
  const perAgent = ours["agents"] ?? {};
  if (!isObject(perAgent)) faults.push(`${OURS} → "agents" is ${describeType(perAgent)} instead of an object`);
  for (const [name, settings] of Object.entries(isObject(perAgent) ? perAgent : {})) {
    const at = `${OURS} → "agents" → ${quoteExcerpt(name)}`;
    if (!isObject(agents) || !Object.hasOwn(agents, name)) {
      faults.push(`${at}: "agents" names no such agent`);
      continue;
    }
    const own = readObject(settings, at, { known: ["healthChecks"], faults });
    const checks = own === null ? [] : readChecks(own, at, faults);
    const clash = describeClash([...forAll, ...checks]);
    if (clash !== null && describeClash(checks) === null) faults.push(`${at}: with those for all, ${clash}`);
    const agent = tryParseName(name);
    // One that is none is a fault of "agents".
    if (agent !== null) byAgent.set(agent, checks);
  }
  return { forAll, byAgent };
}

function readChecks(object: Readonly<Record<string, unknown>>, at: string, faults: string[]): readonly HealthCheck[] {
  const parsed = parseSpecHealthChecks(object["healthChecks"] ?? [], `${at} → "healthChecks"`);
  if (parsed.kind === "checks") return parsed.checks;
  faults.push(...parsed.faults);
  return [];
}

function readObject(
  value: unknown,
  at: string,
  { known, faults }: { readonly known: readonly string[]; readonly faults: string[] },
): Readonly<Record<string, unknown>> | null {
  if (!isObject(value)) {
    faults.push(`${at} is ${describeType(value)} instead of an object`);
    return null;
  }
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) faults.push(`${at} → ${quoteExcerpt(key)} is not known to this version`);
  }
  return value;
}

function tryParseName(text: string): AgentName | null {
  try {
    return parseAgentName(text);
  } catch {
    return null;
  }
}
