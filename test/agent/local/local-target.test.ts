/** Which agent of a machine is meant, told from the flags and from what there is. */
import { describe, expect, test } from "bun:test";
import { chooseTarget, type TargetQuestion } from "../../../src/agent/local/local-target.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { parseAgentName } from "../../../src/names.ts";

const NUC = {
  name: parseAgentName("nuc"),
  profilePath: "/profiles/system",
  stateDirectory: "/state/nuc",
  healthChecksFile: null,
};
const TOOLS = {
  name: parseAgentName("nuc-tools"),
  profilePath: "/profiles/tools",
  stateDirectory: "/state/nuc-tools",
  healthChecksFile: null,
};
const NOTHING: TargetQuestion = {
  name: null,
  profilePath: null,
  stateDirectory: null,
  known: [],
  defaults: { profilePath: "/profiles/default", stateDirectoryOf: (name) => `/state/${name}` },
};
const LOCAL = parseAgentName("local");

describe("chosen", () => {
  const cases: readonly (readonly [string, Partial<TargetQuestion>, object])[] = [
    ["the only one", { known: [NUC] }, { ...NUC, hasAgent: true }],
    ["the named one", { known: [NUC, TOOLS], name: TOOLS.name }, { ...TOOLS, hasAgent: true }],
    [
      "the one that keeps the profile",
      { known: [NUC, TOOLS], profilePath: NUC.profilePath },
      { ...NUC, hasAgent: true },
    ],
    [
      "the one of the state directory",
      { known: [NUC], stateDirectory: { path: TOOLS.stateDirectory, agent: TOOLS } },
      { ...TOOLS, hasAgent: true },
    ],
    [
      "the usual place, without any agent",
      {},
      {
        name: LOCAL,
        profilePath: "/profiles/default",
        stateDirectory: "/state/local",
        hasAgent: false,
        healthChecksFile: null,
      },
    ],
    [
      "a profile that no agent keeps",
      { known: [NUC], profilePath: "/profiles/other" },
      {
        name: LOCAL,
        profilePath: "/profiles/other",
        stateDirectory: "/state/local",
        hasAgent: false,
        healthChecksFile: null,
      },
    ],
    [
      "a state directory that no agent has used",
      { known: [NUC], stateDirectory: { path: "/elsewhere", agent: null } },
      {
        name: LOCAL,
        profilePath: "/profiles/default",
        stateDirectory: "/elsewhere",
        hasAgent: false,
        healthChecksFile: null,
      },
    ],
  ];
  for (const [what, changes, target] of cases) {
    test(what, () => {
      expect(chooseTarget({ ...NOTHING, ...changes })).toEqual(target as never);
    });
  }
});

describe("refused as wrong usage", () => {
  const cases: readonly (readonly [string, Partial<TargetQuestion>, string])[] = [
    ["several, and none is named", { known: [NUC, TOOLS] }, "this machine has several"],
    [
      "several with one profile",
      { known: [NUC, { ...TOOLS, profilePath: NUC.profilePath }], profilePath: NUC.profilePath },
      "this machine has several",
    ],
    [
      "a name that is not the state directory's",
      { name: LOCAL, stateDirectory: { path: NUC.stateDirectory, agent: NUC } },
      "the agent in /state/nuc is nuc",
    ],
    [
      "a profile that the named one does not keep",
      { known: [NUC], name: NUC.name, profilePath: "/profiles/other" },
      "the agent nuc keeps /profiles/system",
    ],
  ];
  for (const [what, changes, words] of cases) {
    test(what, () => {
      const choose = () => chooseTarget({ ...NOTHING, ...changes });
      expect(choose).toThrow(words);
      expect(choose).toThrow(NixdeployError);
    });
  }

  test("and says which there are", () => {
    try {
      chooseTarget({ ...NOTHING, known: [NUC, TOOLS] });
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({
        kind: "usage",
        details: ["nuc keeps /profiles/system", "nuc-tools keeps /profiles/tools"],
      });
    }
  });
});
