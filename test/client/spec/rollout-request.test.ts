/** The request of `activate` says what was asked for, all of it and nothing else. */
import { expect, test } from "bun:test";
import { createRolloutSchema } from "../../../src/api/rollouts.ts";
import { planRolloutRequest, type RolloutRequestOptions } from "../../../src/client/spec/rollout-request.ts";
import { parseSpec } from "../../../src/client/spec/spec.ts";
import { parseWorkspaceName } from "../../../src/names.ts";
import { storePathFor } from "../../support/tiny-path.ts";

const [SYSTEM, SCRIPT] = [storePathFor("system"), storePathFor("script")];
const specOf = (more: object = {}) =>
  parseSpec(JSON.stringify({ agents: { nuc: SYSTEM }, ...more }), "deploy.json").spec;
const NOTHING: RolloutRequestOptions = {
  ...{ spec: specOf(), mode: "switch", policy: {}, requireOnline: false, retry: false },
  ...{ workspace: undefined, description: undefined, origin: undefined, expiresInMs: undefined },
};
const BARE = { agents: { nuc: SYSTEM }, mode: "switch" };
const workspace = parseWorkspaceName("home");

test.each<readonly [Partial<RolloutRequestOptions>, object]>([
  [{}, {}],
  [{ policy: { confirmWindowMs: undefined } }, {}],
  [{ policy: { confirmWindowMs: 5_000 } }, { policy: { confirmWindowMs: 5_000 } }],
  [{ workspace }, { workspace }],
  [{ description: "" }, { description: "" }],
  [{ description: "new kernel" }, { description: "new kernel" }],
  [{ origin: { commit: "abc" } }, { origin: { commit: "abc" } }],
  [{ requireOnline: true }, { requireOnline: true }],
  [{ retry: true }, { retry: true }],
  [{ expiresInMs: 60_000 }, { expiresInMs: 60_000 }],
  [{ spec: specOf({ rollbackScript: { "x86_64-linux": SCRIPT } }) }, { rollbackScript: { "x86_64-linux": SCRIPT } }],
])("%p", (asked, more) => {
  const request = planRolloutRequest({ ...NOTHING, ...asked });
  // Key by key: a field that is there and undefined would be another request under the same key.
  expect(Object.entries(request).sort()).toEqual(Object.entries({ ...BARE, ...more }).sort());
  expect(createRolloutSchema.safeParse(request).success).toBe(true);
});
