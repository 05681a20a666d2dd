import { describe, expect, test } from "bun:test";
import { parseSpec, selectAgents, splitAssignment } from "../../src/client/spec.ts";
import { NixdeployError } from "../../src/errors.ts";

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
    const { warnings } = parseSpec(JSON.stringify({ agents: { nuc: A }, nixdeploy: {}, agnets: 1 }), "deploy.json");
    expect(warnings).toEqual([
      'deploy.json: "nixdeploy" is not known to this version and was ignored',
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

describe("selectAgents", () => {
  const { spec } = parseSpec(JSON.stringify({ agents: { nuc: A, laptop: B } }), "x");

  test("keeps all without names, else only those named", () => {
    expect([...selectAgents(spec, []).agents.keys()].map(String)).toEqual(["nuc", "laptop"]);
    expect([...selectAgents(spec, ["laptop"]).agents.keys()].map(String)).toEqual(["laptop"]);
  });

  test("refuses names that the spec lacks, all at once", () => {
    const error = refusalOf(() => selectAgents(spec, ["desk", "nuc", "tv", "desk"]));
    expect(error.kind).toBe("usage");
    expect(error.message).toContain('"desk", "tv"');
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
