/**
 * Which agents of a spec are meant by `activate --agent`: names and patterns by the spec alone, labels by what the
 * coordinator knows of its agents.
 */
import { type AgentSelector, matchesAgent, type Selectable } from "../../agent-selector.ts";
import { NixdeployError } from "../../errors.ts";
import { quoteExcerpt } from "../../nix/parse-error.ts";
import type { DeploymentSpec } from "./spec.ts";

/** Whether somebody has to ask the coordinator first. */
export function needsLabels(selectors: readonly AgentSelector[]): boolean {
  return selectors.some(({ kind }) => kind === "label");
}

/**
 * `spec` with no other agents than those selected; unchanged without selectors.
 * @param known the registered agents, where labels are wanted
 * @throws NixdeployError "usage" listing every selector that selects none of the spec
 */
export function selectSpecAgents(
  spec: DeploymentSpec,
  { selectors, known }: { readonly selectors: readonly AgentSelector[]; readonly known: readonly Selectable[] },
): DeploymentSpec {
  if (selectors.length === 0) return spec;
  const labels = new Map(known.map(({ name, labels }) => [name, labels]));
  const matches = (selector: AgentSelector, name: string) =>
    matchesAgent(selector, { name, labels: labels.get(name) ?? {} });
  const names = [...spec.agents.keys()];
  const unmatched = selectors.filter((selector) => !names.some((name) => matches(selector, name)));
  if (unmatched.length > 0) {
    const texts = [...new Set(unmatched.map(({ text }) => quoteExcerpt(text)))].join(", ");
    throw new NixdeployError("usage", `cannot deploy to ${texts}: the spec has no such agent`, {
      hint: `It has: ${names.join(", ")}.`,
    });
  }
  const isSelected = (name: string) => selectors.some((selector) => matches(selector, name));
  return { ...spec, agents: new Map([...spec.agents].filter(([name]) => isSelected(name))) };
}
