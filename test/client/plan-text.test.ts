/** What a plan looks like to people: one agent, many alike, too many, and what cannot be compared. */
import { expect, test } from "bun:test";
import { type ClosureDiffDto, type RolloutPlanDto, rolloutPlanSchema } from "../../src/api/rollout-plans.ts";
import { BRIEF, formatPlan, WHOLE } from "../../src/client/plan-text.ts";
import { storePathFor } from "../support/tiny-path.ts";

const FROM = storePathFor("from");
const TO = storePathFor("to");
const DIFF: ClosureDiffDto = {
  from: FROM,
  to: TO,
  changes: [
    { name: "linux", kind: "up", before: ["6.6.1"], after: ["6.6.2"] },
    { name: "openssl", kind: "changed", before: [], after: ["3.0"] },
    { name: "a-new-one", kind: "added", before: [], after: ["1.0"] },
    { name: "unit-old.service", kind: "removed", before: [], after: [] },
  ],
  changesOmitted: 0,
  rebuilt: 12,
  sizeBeforeBytes: 1_200_000_000,
  sizeAfterBytes: 1_100_000_000,
  fetchPaths: 1,
  fetchBytes: 20_000_000,
};
type Agent = RolloutPlanDto["agents"][number];
type AgentInput = Partial<Pick<Agent, "from" | "diff" | "why">>;

function planOf(agents: Readonly<Record<string, AgentInput>>, diffs: readonly ClosureDiffDto[] = [DIFF]) {
  return rolloutPlanSchema.parse({
    workspace: "default",
    agents: Object.entries(agents).map(([agent, more]) => ({
      ...{ agent, contact: "online", from: FROM, to: TO, diff: 0, why: null },
      ...more,
    })),
    diffs,
  });
}

test("one agent: counts, sizes, and a line for each package", () => {
  expect(formatPlan(planOf({ nuc: {} }), BRIEF)).toEqual([
    "nuc: 1 up, 1 changed, 1 added, 1 removed, 12 rebuilt; 1.2 GB → 1.1 GB (-100.0 MB); 20.0 MB to download (1 path)",
    "  ↑ linux             6.6.1 → 6.6.2",
    "  ~ openssl           3.0",
    "  + a-new-one         1.0",
    "  - unit-old.service",
  ]);
});

test("agents alike stand together; what runs already and what is unknown is said", () => {
  const why = "nothing is known to run there yet";
  const plan = planOf({ a: {}, b: {}, c: { from: TO, diff: null }, d: { from: null, diff: null, why } }, [
    { ...DIFF, changes: [], rebuilt: 0, fetchPaths: 0, fetchBytes: 0, sizeAfterBytes: DIFF.sizeBeforeBytes },
  ]);
  expect(formatPlan(plan, BRIEF)).toEqual([
    "a, b: no package changes; 1.2 GB → 1.2 GB (+0 B); nothing to download",
    "c: runs it already",
    "d: cannot compare: nothing is known to run there yet",
  ]);
});

test("many are summarized, and nothing is left out without a word", () => {
  const names = Array.from({ length: 500 }, (_, index) => `agent-${index}`);
  const each = storePathFor;
  const different = planOf(
    Object.fromEntries(names.map((name, index) => [name, { from: each(name), diff: index }])),
    names.map((name) => ({ ...DIFF, from: each(name), changes: [], fetchBytes: 1_000_000 })),
  );
  const lines = formatPlan(different, BRIEF);
  expect(lines).toHaveLength(11);
  expect(lines.at(-1)).toBe("and 490 more agents: 490.0 MB to download altogether (all of it: --dry-run --json)");
  const alike = planOf(Object.fromEntries(names.map((name) => [name, {}])), [{ ...DIFF, changesOmitted: 7 }]);
  const short = formatPlan(alike, { ...BRIEF, changes: 2 });
  expect(short[0]).toStartWith("agent-0, agent-1, agent-2, agent-3, agent-4, agent-5 and 494 more: 1 up, ");
  expect(short.slice(1)).toEqual(["  ↑ linux    6.6.1 → 6.6.2", "  ~ openssl  3.0", "  and 9 more"]);
  expect(formatPlan(alike, WHOLE)).toHaveLength(6);
});
