import { describe, expect, test } from "bun:test";
import {
  DEPLOYMENT_STATES,
  type DeploymentState,
  isTerminal,
  OUTCOMES,
  PHASES,
  parsePhaseDurations,
} from "../src/deployment.ts";

test("every state is queued, offered, a phase or terminal, and every outcome is terminal", () => {
  const live: DeploymentState[] = ["queued", "offered", ...PHASES];
  expect(DEPLOYMENT_STATES.filter((state) => !isTerminal(state)).toSorted()).toEqual(live.toSorted());
  expect(OUTCOMES.every(isTerminal)).toBe(true);
});

describe("phase durations", () => {
  const cases: readonly (readonly [json: string, durations: Record<string, number>])[] = [
    ["{}", {}],
    ['{"fetching":10,"rolling-back":0}', { fetching: 10, "rolling-back": 0 }],
    ['{"dancing":5,"fetching":1}', { fetching: 1 }],
    ['{"fetching":"1"}', {}],
    ["null", {}],
    ["[]", {}],
    ["7", {}],
  ];
  for (const [json, durations] of cases) {
    test(json, () => expect(parsePhaseDurations(json)).toEqual(durations));
  }
});
