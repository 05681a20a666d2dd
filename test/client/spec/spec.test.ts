import { describe, expect, test } from "bun:test";
import { parseAgentSelector } from "../../../src/agent-selector.ts";
import { createRolloutSchema } from "../../../src/api/rollouts.ts";
import { planRolloutRequest } from "../../../src/client/spec/rollout-request.ts";
import { selectSpecAgents } from "../../../src/client/spec/select-spec.ts";
import { parseSpec, splitAssignment } from "../../../src/client/spec/spec.ts";
import { NixdeployError } from "../../../src/errors.ts";

const HASH = "0123456789abcdfghijklmnpqrsvwxyz";
const A = `/nix/store/${HASH}-a`;
const B = `/nix/store/${HASH}-b`;

function refusalOf(run: () => unknown): NixdeployError {
  try {
    run();
  } catch (error) {
    if (error instanceof NixdeployError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("parseSpec", () => {
  test("reads agents and rollback scripts in the order of the text", () => {
    const text = JSON.stringify({ agents: { nuc: A, laptop: B }, rollbackScript: { "x86_64-linux": B } });
    const { spec, warnings } = parseSpec(text, "deploy.json");
    expect([...spec.agents].map(([name, path]) => `${name} ${path}`)).toEqual([`nuc ${A}`, `laptop ${B}`]);
    expect([...spec.rollbackScript].map(([system, path]) => `${system} ${path}`)).toEqual([`x86_64-linux ${B}`]);
    expect(warnings).toEqual([]);
  });

  test("takes an absent and a null rollback script, as Cachix writes them", () => {
    for (const rest of [{}, { rollbackScript: null }]) {
      expect(parseSpec(JSON.stringify({ agents: { nuc: A }, ...rest }), "x").spec.rollbackScript.size).toBe(0);
    }
  });

  test("warns of keys that it does not know", () => {
    const { warnings } = parseSpec(JSON.stringify({ agents: { nuc: A }, later: {}, agnets: 1 }), "deploy.json");
    expect(warnings).toEqual([
      'deploy.json: "later" is not known to this version and was ignored',
      'deploy.json: "agnets" is not known to this version and was ignored',
    ]);
  });

  test("lists every fault at once", () => {
    const text = JSON.stringify({
      agents: { nuc: "/nix/store/short", "bad name": A, laptop: 7, desk: "./result" },
      rollbackScript: { Linux: A, "x86_64-linux": null },
    });
    const error = refusalOf(() => parseSpec(text, "deploy.json"));
    expect(error.kind).toBe("refused");
    expect(error.message).toContain("deploy.json");
    expect(error.details).toHaveLength(6);
    const all = error.details.join("\n");
    for (const part of ['"nuc"', '"bad name"', '"laptop": it is a number', '"desk"', '"Linux"', "it is null"]) {
      expect(all).toContain(part);
    }
  });

  const refused: readonly [string, string, string][] = [
    ["empty text", "", "not JSON"],
    ["cut text", '{"agents":{"nuc"', "not JSON"],
    ["a list", "[]", "a list instead of an object"],
    ["null", "null", "null instead of an object"],
    ["a text", '"x"', "a string instead of an object"],
    ["no agents", "{}", '"agents" is missing'],
    ["agents that are a list", '{"agents":[]}', '"agents" is a list'],
    ["an empty fleet", '{"agents":{}}', "names no agent"],
    ["rollbackScript as a text", `{"agents":{"nuc":"${A}"},"rollbackScript":"x"}`, '"rollbackScript" is a string'],
    ["__proto__ as an agent", `{"agents":{"__proto__":"${A}"}}`, "is no agent name"],
  ];
  test.each(refused)("refuses %s", (_what, text, why) => {
    const error = refusalOf(() => parseSpec(text, "deploy.json"));
    expect(error.kind).toBe("refused");
    expect([error.message, ...error.details].join("\n")).toContain(why);
    expect(error.hint).toContain('{"agents"');
  });
});

describe("health checks", () => {
  const SSH = { name: "ssh", kind: "tcp", port: 22 };
  const SMOKE = { name: "smoke", kind: "command", command: [`${A}/bin/smoke`, "--fast"], attempts: 3 };
  const specOf = (nixdeploy: unknown) => JSON.stringify({ agents: { nuc: A, laptop: B }, nixdeploy });

  test("are for all, and besides for one agent", () => {
    const text = specOf({ healthChecks: [SSH], agents: { nuc: { healthChecks: [SMOKE] } } });
    const { spec, warnings } = parseSpec(text, "deploy.json");
    expect(warnings).toEqual([]);
    expect(spec.healthChecks.forAll).toMatchObject([SSH]);
    expect([...spec.healthChecks.byAgent]).toMatchObject([["nuc", [SMOKE]]]);
  });

  test("go with the request, for those agents that are asked for", () => {
    const { spec } = parseSpec(
      specOf({ healthChecks: [SSH], agents: { nuc: { healthChecks: [SMOKE] }, laptop: {} } }),
      "deploy.json",
    );
    const plan = (names: readonly string[]) =>
      planRolloutRequest({
        ...{ spec: selectSpecAgents(spec, { selectors: names.map(parseAgentSelector), known: [] }), mode: "switch" },
        ...{ policy: {}, requireOnline: false, retry: false },
        ...{ workspace: undefined, description: undefined, origin: undefined, expiresInMs: 60_000 },
      });
    expect(plan([])).toMatchObject({ healthChecks: [SSH], agentHealthChecks: { nuc: [SMOKE] } });
    expect(plan(["laptop"])).toMatchObject({ healthChecks: [SSH] });
    expect(Object.keys(plan(["laptop"]))).not.toContain("agentHealthChecks");
    expect(createRolloutSchema.safeParse(plan([])).success).toBe(true);
  });

  test("that are wrong are all named at once, beside what else is wrong", () => {
    const text = JSON.stringify({
      agents: { nuc: "./result" },
      nixdeploy: {
        healthCheks: [],
        healthChecks: [
          { ...SSH, prot: 22 },
          { name: "sh", kind: "command", command: ["/bin/sh", "-c", "true"] },
        ],
        agents: { nuc: { checks: [] }, tv: { healthChecks: [SSH] } },
      },
    });
    expect(refusalOf(() => parseSpec(text, "deploy.json")).details).toEqual([
      expect.stringContaining('"agents" → "nuc": no store path'),
      '"nixdeploy" → "healthCheks" is not known to this version',
      '"nixdeploy" → "healthChecks" → 1 ("ssh"): "prot" is not known here',
      '"nixdeploy" → "healthChecks" → 2 ("sh"): a command from outside the device must be a file of a store path, /nix/store/HASH-NAME[/…]',
      '"nixdeploy" → "agents" → "nuc" → "checks" is not known to this version',
      '"nixdeploy" → "agents" → "tv": "agents" names no such agent',
    ]);
  });

  const refused: readonly (readonly [what: string, nixdeploy: unknown, why: string])[] = [
    ["as a list", [], '"nixdeploy" is a list instead of an object'],
    ["agents that are a list", { agents: [] }, '"nixdeploy" → "agents" is a list'],
    ["an agent that is a list", { agents: { nuc: [SSH] } }, '"agents" → "nuc" is a list'],
    ["checks that are no list", { healthChecks: SSH }, "expected a list of at most 50"],
    ["one twice", { healthChecks: [SSH, SSH] }, 'two health checks are called "ssh"'],
    [
      "one for all and again for one",
      { healthChecks: [SSH], agents: { nuc: { healthChecks: [SSH] } } },
      '"agents" → "nuc": with those for all, two health checks are called "ssh"',
    ],
  ];
  test.each(refused)("are refused: %s", (_what, nixdeploy, why) => {
    const { details } = refusalOf(() => parseSpec(specOf(nixdeploy), "deploy.json"));
    expect(details).toEqual([expect.stringContaining(why)]);
  });
});

describe("selectSpecAgents", () => {
  const { spec } = parseSpec(JSON.stringify({ agents: { nuc: A, laptop: B, "web-1": A, "web-2": B } }), "x");
  const known = ["web-1", "web-2", "other"].map((name, index) => ({ name, labels: { ring: String(index + 1) } }));
  const namesOf = (...texts: string[]) =>
    [...selectSpecAgents(spec, { selectors: texts.map(parseAgentSelector), known }).agents.keys()].map(String);

  test.each([
    [[], ["nuc", "laptop", "web-1", "web-2"]],
    [["laptop"], ["laptop"]],
    [["web-*"], ["web-1", "web-2"]],
    [
      ["label:ring=2", "nuc"],
      ["nuc", "web-2"],
    ],
    [["label:ring"], ["web-1", "web-2"]],
  ])("%p keeps %p", (texts, names) => {
    expect(namesOf(...texts)).toEqual(names);
  });

  test("refuses what selects none of the spec, all at once", () => {
    const error = refusalOf(() => namesOf("desk", "nuc", "tv*", "desk", "label:ring=3"));
    expect(error.kind).toBe("usage");
    expect(error.message).toContain('"desk", "tv*", "label:ring=3"');
    expect(error.hint).toContain("nuc, laptop");
  });
});

test.each([
  ["nuc=./result", { name: "nuc", path: "./result" }],
  ["nuc=", { name: "nuc", path: "" }],
  ["a.b-c_1=x=y", { name: "a.b-c_1", path: "x=y" }],
  ["./result", null],
  ["./odd=name", null],
  ["=x", null],
  [`${"n".repeat(65)}=x`, null],
])("splitAssignment(%p)", (text, expected) => {
  expect(splitAssignment(text)).toEqual(expected);
});
