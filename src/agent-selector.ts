/**
 * How people name agents wherever they may name several. Pure.
 *
 *     selector = name | glob | "label:" key "=" value | "label:" key
 *     name     = as in names.ts
 *     glob     = a name in which "*" stands for any characters, none too, and "?" for one
 *     value    = a label's value, in which both stand for the same
 *
 * A name selects exactly that agent. Upper and lower case differ.
 */
import { type Labels, parseLabelKey } from "./labels.ts";
import { quoteExcerpt } from "./nix/parse-error.ts";

export type AgentSelector =
  | { readonly kind: "name"; readonly text: string }
  | { readonly kind: "glob"; readonly text: string }
  /** `value` null: whatever its value. */
  | { readonly kind: "label"; readonly text: string; readonly key: string; readonly value: string | null };

export type Selectable = { readonly name: string; readonly labels: Labels };

/** What a selector may look like, for help texts. */
export const SELECTOR_HINT = "a name, a pattern such as 'web-*', or label:KEY=VALUE";

/** Without a wildcard it is a name. */
const GLOB = /^[A-Za-z0-9*?][A-Za-z0-9._*?-]{0,63}$/;
const VALUE_GLOB = /^[A-Za-z0-9*?][A-Za-z0-9._/:@+*?-]{0,127}$/;
const LABEL_PREFIX = "label:";

/** @throws Error that says what it should look like */
export function parseAgentSelector(text: string): AgentSelector {
  if (text.startsWith(LABEL_PREFIX)) return parseLabelSelector(text);
  if (!GLOB.test(text)) throw new Error(`${quoteExcerpt(text)} selects no agents: it must be ${SELECTOR_HINT}`);
  return { kind: /[*?]/.test(text) ? "glob" : "name", text };
}

function parseLabelSelector(text: string): AgentSelector {
  const [key = "", ...rest] = text.slice(LABEL_PREFIX.length).split("=");
  const value = rest.length === 0 ? null : rest.join("=");
  if (value !== null && !VALUE_GLOB.test(value)) {
    throw new Error(`${quoteExcerpt(text)} selects no agents: ${quoteExcerpt(value)} is no value of a label`);
  }
  return { kind: "label", text, key: parseLabelKey(key), value };
}

export function matchesAgent(selector: AgentSelector, agent: Selectable): boolean {
  switch (selector.kind) {
    case "name":
      return agent.name === selector.text;
    case "glob":
      return matchesGlob(selector.text, agent.name);
    case "label": {
      const value = Object.hasOwn(agent.labels, selector.key) ? agent.labels[selector.key] : undefined;
      return value !== undefined && (selector.value === null || matchesGlob(selector.value, value));
    }
    default:
      return selector satisfies never;
  }
}

/** Looks back to the last star only, so that no pattern costs more than its length times the text's. */
function matchesGlob(pattern: string, text: string): boolean {
  let at = 0;
  let from = 0;
  let star = -1;
  let starFrom = 0;
  while (from < text.length) {
    const wanted = pattern[at];
    if (wanted === "*") {
      star = at;
      starFrom = from;
      at += 1;
    } else if (wanted === "?" || wanted === text[from]) {
      at += 1;
      from += 1;
    } else if (star >= 0) {
      at = star + 1;
      starFrom += 1;
      from = starFrom;
    } else return false;
  }
  return /^\**$/.test(pattern.slice(at));
}
