/**
 * Specs out of lines of nix-eval-jobs and of CI matrices. The jobs have the shape that nix-eval-jobs 2.x prints (README of
 * nix-community/nix-eval-jobs, "Using"; src/drv.cc, src/worker.cc); none of them was made by a run of it.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { makeSpec, splitAttribute } from "../../../src/client/spec/spec-from-jobs.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { storePathFor } from "../../support/tiny-path.ts";

const NUC = storePathFor("nixos-system-nuc-24.05");
const TV = storePathFor("nixos-system-tv-24.05");
const PACKAGE = storePathFor("hello-2.12");

function job(attrPath: readonly string[], path: string | null, more: object = {}): string {
  return JSON.stringify({
    ...{ attr: attrPath.join("."), attrPath, drvPath: `${NUC}.drv`, name: "nixos-system", system: "x86_64-linux" },
    ...(path === null ? {} : { outputs: { out: path } }),
    ...more,
  });
}

function make(text: string, prefix: readonly string[] = []) {
  return makeSpec([{ origin: "jobs.json", text }], { prefix });
}

function faultsOf(run: () => unknown): readonly string[] {
  try {
    run();
  } catch (error) {
    if (error instanceof NixdeployError) return error.details;
    throw error;
  }
  throw new Error("it was taken");
}

describe("an agent is called", () => {
  test.each([
    [["nuc"], "nuc"],
    [["nuc", "x86_64-linux"], "nuc"],
    [["aarch64-linux", "nuc"], "nuc"],
    [["nuc", "config", "system", "build", "toplevel"], "nuc"],
    [["nixosConfigurations", "nuc", "config", "system", "build", "toplevel"], "nuc"],
    [["darwinConfigurations", "mac", "system"], "mac"],
    [["homeConfigurations", "ada", "activationPackage"], "ada"],
    [["nixosConfigurations", "web.example.org"], "web.example.org"],
    [["toplevel"], "toplevel"],
  ] as const)("%p: %s", (attrPath, name) => {
    expect(make(job(attrPath, NUC))).toEqual({ agents: { [name]: NUC } });
  });

  test("by the attribute alone where there is no list of its parts", () => {
    const text = JSON.stringify({ attr: 'nixosConfigurations."web.example.org"', outputs: { out: NUC } });
    expect(make(text)).toEqual({ agents: { "web.example.org": NUC } });
    expect(splitAttribute('a."b.c".d')).toEqual(["a", "b.c", "d"]);
  });
});

test("several lines, files, and kinds of lines make one spec, in their order", () => {
  const texts = [
    { origin: "a", text: `${job(["tv"], TV)}\n\n# a comment\nnuc=${NUC}\n` },
    {
      origin: "b",
      text: JSON.stringify({ agents: { pi: NUC }, rollbackScript: { "x86_64-linux": PACKAGE } }, null, 2),
    },
    { origin: "c", text: `{"agents":{"tv":"${TV}"}}\n{"name":"mac","path":"${TV}"}\n` },
  ];
  const spec = makeSpec(texts, { prefix: [] });
  expect(spec).toEqual({ agents: { tv: TV, nuc: NUC, pi: NUC, mac: TV }, rollbackScript: { "x86_64-linux": PACKAGE } });
  expect(Object.keys(spec.agents)).toEqual(["tv", "nuc", "pi", "mac"]);
});

test("below a prefix only, and what is elsewhere may be anything", () => {
  const lines = [
    job(["hosts", "nuc"], NUC),
    job(["packages", "hello", "x"], PACKAGE),
    job(["checks", "broken"], null, { error: "no" }),
  ];
  expect(make(lines.join("\n"), ["hosts"])).toEqual({ agents: { nuc: NUC } });
});

test("every fault is said at once, with its line", () => {
  const lines = [
    job(["nuc"], NUC),
    job(["tv"], null, { error: "error: attribute 'x' missing\n  at flake.nix" }),
    job(["ada@laptop"], NUC),
    job(["hosts", "pi"], NUC),
    job(["nuc"], TV),
    job(["ca"], null, { outputs: { out: null } }),
    job(["wrong"], "/etc/passwd"),
    "garbage",
    "[1]",
    '{"agents": []}',
    "{}",
  ];
  const faults = faultsOf(() => make(lines.join("\n")));
  for (const text of [
    'jobs.json:2: "tv" did not evaluate: "error: attribute \'x\' missing"',
    'jobs.json:3: "ada@laptop" is no agent name',
    'jobs.json:4: which agent "hosts.pi" is cannot be told',
    `jobs.json:5: nuc is ${TV}, but ${NUC} at jobs.json:1`,
    'jobs.json:6: "ca" has no output "out"',
    "jobs.json:7: cannot parse store path",
    'jobs.json:8: "garbage" is neither',
    'jobs.json:9: "[1]" is neither',
    'jobs.json:10: "agents" is',
    "jobs.json:11: it is no job",
  ]) {
    expect(faults.join("\n")).toContain(text);
  }
  expect(faults).toHaveLength(10);
});

test("nothing in it is a fault; the same path twice is none", () => {
  expect(faultsOf(() => make("\n"))).toEqual(["there is no job of an agent in it"]);
  expect(faultsOf(() => make(job(["a"], NUC), ["b"]))).toEqual(["there is no job of an agent in it"]);
  expect(make(`${job(["nuc"], NUC)}\nnuc=${NUC}`)).toEqual({ agents: { nuc: NUC } });
});

test("whatever is read, it is a spec or a refusal", () => {
  const piece = fc.constantFrom(
    job(["nuc"], NUC),
    `tv=${TV}`,
    "{",
    "}",
    '"',
    "\n",
    "=",
    "null",
    "a=",
    '{"agents":{}}',
    "\u0000",
  );
  fc.assert(
    fc.property(fc.array(fc.oneof(piece, fc.string()), { maxLength: 8 }), (pieces) => {
      try {
        const { agents } = make(pieces.join("\n"));
        expect(Object.keys(agents).length).toBeGreaterThan(0);
      } catch (error) {
        expect(error).toBeInstanceOf(NixdeployError);
      }
    }),
  );
});
