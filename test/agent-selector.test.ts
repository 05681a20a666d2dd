/** Names, patterns and labels: what selects which agents. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { matchesAgent, parseAgentSelector } from "../src/agent-selector.ts";
import { changeLabels, LABELS_MAX, type Labels, mergeLabels, parseLabel, parseLabelChange } from "../src/labels.ts";

const AGENTS: Readonly<Record<string, Labels>> = {
  "web-1": { role: "web", ring: "1" },
  "web-2": { role: "web", ring: "2" },
  "web-10": { role: "web/edge" },
  nuc: {},
  Web: { constructor: "x" },
};

const selected = (text: string) =>
  Object.entries(AGENTS)
    .filter(([name, labels]) => matchesAgent(parseAgentSelector(text), { name, labels }))
    .map(([name]) => name);

test.each([
  ["nuc", ["nuc"]],
  ["web", []],
  ["Web", ["Web"]],
  ["web-*", ["web-1", "web-2", "web-10"]],
  ["web-?", ["web-1", "web-2"]],
  ["*1*", ["web-1", "web-10"]],
  ["*-*0", ["web-10"]],
  ["*", ["web-1", "web-2", "web-10", "nuc", "Web"]],
  ["???", ["nuc", "Web"]],
  ["label:role=web", ["web-1", "web-2"]],
  ["label:role=web*", ["web-1", "web-2", "web-10"]],
  ["label:role", ["web-1", "web-2", "web-10"]],
  ["label:ring=?", ["web-1", "web-2"]],
  ["label:toString", []],
  ["label:constructor=x", ["Web"]],
])("%s", (text, names) => {
  expect(selected(text)).toEqual(names);
});

test.each(["", "-x", "a b", "web-[12]", "label:", "label:=x", "label:role=", "label:ro*le", "../x", "a".repeat(65)])(
  "%p selects nothing, and says what would",
  (text) => {
    expect(() => parseAgentSelector(text)).toThrow(/must be|is no/);
  },
);

test("a pattern matches as its regular expression does, and in no more than a moment", () => {
  const letters = fc.constantFrom("a", "b", "*", "?");
  const pattern = fc.array(letters, { minLength: 1, maxLength: 8 }).map((all) => all.join(""));
  const name = fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 8 }).map((all) => all.join(""));
  fc.assert(
    fc.property(pattern, name, (text, candidate) => {
      const expected = new RegExp(`^${text.replaceAll("*", ".*").replaceAll("?", ".")}$`).test(candidate);
      expect(matchesAgent(parseAgentSelector(text), { name: candidate, labels: {} })).toBe(expected);
    }),
  );
  const hostile = parseAgentSelector(`${"*a".repeat(31)}*b`);
  const begun = performance.now();
  for (let n = 0; n < 1_000; n += 1) matchesAgent(hostile, { name: "a".repeat(64), labels: {} });
  expect(performance.now() - begun).toBeLessThan(5_000);
});

describe("labels", () => {
  test("the operator's win key by key, and what is taken away shows the device's again", () => {
    const device = { role: "web", room: "1" };
    const operator = changeLabels({}, { role: "db" }) ?? {};
    expect(mergeLabels(device, operator)).toEqual({ role: "db", room: "1" });
    expect(mergeLabels(device, changeLabels(operator, { role: null, none: null }) ?? {})).toEqual(device);
  });

  test("too many are refused", () => {
    const many = Object.fromEntries(Array.from({ length: LABELS_MAX }, (_, n) => [`k${n}`, "v"]));
    expect(changeLabels(many, { k0: "other" })).not.toBeNull();
    expect(changeLabels(many, { more: "v" })).toBeNull();
    expect(changeLabels(many, { more: "v", k0: null })).not.toBeNull();
  });

  test.each(["role", "=x", "role=", "ro le=x", "role=a b", "-=x", `${"k".repeat(64)}=v`, `k=${"v".repeat(129)}`])(
    "%p is no label",
    (text) => {
      expect(() => parseLabel(text)).toThrow("label");
    },
  );

  test("changes", () => {
    expect(parseLabelChange("role=web-")).toEqual({ key: "role", value: "web-" });
    expect(parseLabelChange("role-")).toEqual({ key: "role", value: null });
    expect(() => parseLabelChange("role")).toThrow("KEY=VALUE or KEY-");
  });
});
