/** The table of drift's own documentation, row by row. */
import { describe, expect, test } from "bun:test";
import { DEPLOYMENT_STATES, MODES } from "../../../src/deployment.ts";
import { parseDeploymentId } from "../../../src/names.ts";
import type { StorePath } from "../../../src/nix/store-path.ts";
import type { MachineState } from "../../../src/protocol.ts";
import { type DriftDeployment, findDrift } from "../../../src/server/agents/drift.ts";
import { storePathFor } from "../../support/tiny-path.ts";

const [A, B, C, X] = [storePathFor("a"), storePathFor("b"), storePathFor("c"), storePathFor("x")];
const PATHS: Readonly<Record<string, StorePath | undefined>> = { A, B, C, X };
const SYSTEM = "/nix/var/nix/profiles/system";
const TOOLS = "/nix/var/nix/profiles/tools";

/** "succeeded switch B after A" */
function deploymentOf(text: string): DriftDeployment {
  const [stateName, modeName, path = "", , previous = ""] = text.split(" ");
  const state = DEPLOYMENT_STATES.find((name) => name === stateName);
  const mode = MODES.find((name) => name === modeName);
  const storePath = PATHS[path];
  if (state === undefined || mode === undefined || storePath === undefined) throw new Error(text);
  return { state, mode, storePath, previousPath: PATHS[previous] ?? null };
}

/** "profile current", or "profile current=base" for a specialisation of it. */
function stateOf(text: string): MachineState {
  const [profile = "", running = ""] = text.split(" ");
  const [current = "", base = ""] = running.split("=");
  return {
    profilePath: PATHS[profile] ?? null,
    generation: 1,
    currentPath: PATHS[current] ?? null,
    currentBasePath: PATHS[base] ?? null,
    bootedPath: null,
    storeFreeBytes: null,
    inFlight: null,
  };
}

/** Newest first; then machines without drift, and machines with it. */
const CASES: readonly (readonly [
  deployments: readonly string[],
  fine: readonly string[],
  drifted: readonly string[],
])[] = [
  [[], ["A A", "X X", "- -"], []],
  [["succeeded switch B after A"], ["B B", "B X=B"], ["A A", "B A", "A B", "X X", "- B", "B -", "B X", "B X=A"]],
  [["degraded switch B after A"], ["B B"], ["A A", "B A"]],
  [
    ["succeeded boot B after A", "succeeded switch A"],
    ["B A", "B B", "B X=A"],
    ["A A", "B X", "A B"],
  ],
  [["succeeded boot B after A"], ["B A", "B B"], ["A A", "B X"]],
  [
    ["succeeded boot C after B", "succeeded boot B after A"],
    ["C A", "C B", "C C"],
    ["B A", "C X"],
  ],
  [
    ["succeeded test B after A", "succeeded switch A"],
    ["A B", "A A", "A X=B"],
    ["B B", "A X", "X A"],
  ],
  [
    ["succeeded test C", "succeeded test B", "succeeded switch A"],
    ["A C", "A A"],
    ["A B", "C C"],
  ],
  [["succeeded test B"], ["A B", "X X"], []],
  [["succeeded switch B after A", "succeeded test C"], ["B B"], ["B C"]],
  [["succeeded dry-activate C", "succeeded switch B"], ["B B"], ["B C", "A A"]],
  ...["failed", "rolled-back", "cancelled", "superseded", "expired"].map(
    (state) => [[`${state} switch C`, "succeeded switch B"], ["B B"], ["C C", "B C"]] as const,
  ),
];

describe("a system profile", () => {
  for (const [deployments, fine, drifted] of CASES) {
    for (const [texts, hasDrift] of [[fine, false] as const, [drifted, true] as const]) {
      for (const text of texts) {
        test(`${text} after ${deployments.join(", ") || "nothing"}: ${hasDrift ? "drift" : "none"}`, () => {
          const state = stateOf(text);
          const known = { deployments: deployments.map(deploymentOf), isRunning: false, profile: SYSTEM, state };
          const drift = findDrift(known);
          expect(drift !== null).toBe(hasDrift);
          if (drift !== null) expect(drift).toMatchObject({ profile: state.profilePath, current: state.currentPath });
          expect(findDrift({ ...known, isRunning: true })).toBeNull();
          const inFlight = parseDeploymentId("a000000000000000");
          expect(findDrift({ ...known, state: { ...state, inFlight } })).toBeNull();
        });
      }
    }
  }
});

test("another profile has no running system", () => {
  const known = { deployments: [deploymentOf("succeeded switch B after A")], isRunning: false, profile: TOOLS };
  expect(findDrift({ ...known, state: stateOf("B X") })).toBeNull();
  expect(findDrift({ ...known, state: stateOf("A X") })).toEqual({ expected: B, profile: A, current: null });
  const systemB = "/nix/var/nix/profiles/system-profiles/b";
  expect(findDrift({ ...known, profile: systemB, state: stateOf("B X") })).not.toBeNull();
});
